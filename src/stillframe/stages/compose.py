"""Stage 1: compose conf/ into params.yaml, the one file that every other stage reads."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import yaml

from stillframe import config
from stillframe.paths import CONF, PARAMS, RAW, SOURCE, write_text

HEADER = "# Composed from conf/ by the stage `compose`. Edit conf/, not this file.\n"


def compose(overrides: list[str], conf: Path = CONF) -> dict[str, Any]:
    """The composed and checked configuration, as plain containers.

    Raises:
        ValueError: Hydra cannot compose (unknown group, option or key), or a value is wrong.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        with initialize_config_dir(str(conf.resolve()), version_base="1.3"):
            composed = hydra_compose("config", overrides=overrides)
            values = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        raise ValueError(f"{conf}/ does not compose: {error}") from None
    assert isinstance(values, dict)
    config.check_all(values, origin=f"{conf}/ (composed)")
    return {str(key): value for key, value in values.items()}


def as_yaml(values: dict[str, Any]) -> str:
    """Params as YAML that YAML 1.1 and 1.2 readers read alike."""
    return HEADER + yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=110)


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """One line a parameter that differs."""
    before, after = config.flat(old), config.flat(new)
    return [f"{key}: {before.get(key)!r} -> {after.get(key)!r}" for key in sorted(before | after) if before.get(key) != after.get(key)]


def link_source(data_path: str | None, source: Path = SOURCE) -> None:
    """Point data/source at the user's own folder, or at data/raw, so that DVC watches what preprocess reads."""
    target = Path(data_path).expanduser().resolve() if data_path else Path(os.path.relpath(RAW, source.parent))
    if source.is_symlink() and Path(os.readlink(source)) == target:
        return
    source.parent.mkdir(parents=True, exist_ok=True)
    temporary = source.with_name(f".{source.name}.new")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(source)


def run(*, conf: Path = CONF, params: Path = PARAMS) -> None:
    """Write params.yaml from conf/, unless `dvc exp run` has already written it with its own overrides."""
    if os.environ.get("DVC_EXP_NAME"):
        (data,) = config.read_params("data", path=params)
        link_source(data.path)
        print(f"{params} is left as `dvc exp run` composed it")
        return
    write(compose([], conf), params)


def write(values: dict[str, Any], params: Path = PARAMS) -> None:
    """Write params.yaml and say what changed."""
    old = yaml.safe_load(params.read_text(encoding="utf-8")) if params.exists() else {}
    for line in differences(old or {}, values):
        print(f"  {line}")
    write_text(params, as_yaml(values))
    link_source(values["data"]["path"])


if __name__ == "__main__":
    try:
        run()
    except (ValueError, FileNotFoundError) as problem:
        sys.exit(f"compose: {problem}")
