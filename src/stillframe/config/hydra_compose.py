"""Composing conf/ with Hydra; the one module (with the sweep) that imports it."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml

from stillframe import config
from stillframe.paths import CONF, PARAMS, write_text

HEADER = "# Composed from conf/ by the stage `compose`. Edit conf/, not this file.\n"
ROOT = "config"  # conf/config.yaml


def compose(overrides: list[str], conf: Path = CONF) -> dict[str, Any]:
    """The composed and checked configuration, as plain containers; leaves no state in Hydra.

    Args:
        overrides: in Hydra's grammar, e.g. ["model=resnet18", "optim.lr=3e-4", "+debug=fast"].
        conf: the folder of the groups.

    Raises:
        FileNotFoundError: no conf/config.yaml here.
        ValueError: Hydra cannot compose (unknown group, option or key), or a value is wrong.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if not (conf / f"{ROOT}.yaml").is_file():
        raise FileNotFoundError(f"{conf}/{ROOT}.yaml is missing: run this in the repository's root")
    try:
        with initialize_config_dir(str(conf.resolve()), version_base="1.3"):
            composed = hydra_compose(ROOT, overrides=overrides)
            values: Any = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        raise ValueError(explain(overrides, conf) or f"{conf}/ does not compose: {_one_line(error)}") from None
    config.check_all(values, origin=f"{conf}/ (composed)")
    return dict(values)


def explain(overrides: list[str], conf: Path = CONF) -> str:
    """Why Hydra refuses the overrides, with the nearest right name; "" when the fault lies elsewhere."""
    groups = {
        folder.name: sorted(file.stem for file in folder.glob("*.yaml")) for folder in conf.iterdir() if folder.is_dir()
    }
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        top, *inner = key.split(".")
        if top not in groups and top not in config.TYPES:
            return f"{override}: unknown {key!r}: {config.nearest(top, [*groups, *config.TYPES])}"
        if top in groups and not inner:
            missing = [name for name in value.strip("[]").split(",") if name not in (*groups[top], "null", "")]
            if missing:
                return f"{override}: no {conf}/{top}/{missing[0]}.yaml: {config.nearest(missing[0], groups[top])}"
        kind = config.TYPES.get(top)
        for index, part in enumerate(inner):
            if not is_dataclass(kind):
                break  # a free-form section, such as validate.require
            names = {field.name: field.type for field in fields(kind)}
            if part not in names:
                section = ".".join([top, *inner[:index]])
                return f"{override}: unknown key {section}.{part}: {config.nearest(part, names)}"
            kind = getattr(config, str(names[part]).split(" | ")[0], None)
    return ""


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def as_yaml(values: dict[str, Any]) -> str:
    """Params as YAML that YAML 1.1 and 1.2 readers read alike."""
    return HEADER + yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=110)


def read(params: Path = PARAMS) -> dict[str, Any]:
    """What params.yaml holds; {} when it is not there.

    Raises:
        ValueError: it is not YAML.
    """
    if not params.exists():
        return {}
    try:
        values = yaml.safe_load(params.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(
            f"{params} is not plain YAML: delete it and run `stillframe compose` ({_one_line(error)})"
        ) from None
    return values if isinstance(values, dict) else {}


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """One line a parameter that differs."""
    before, after = config.flat(old), config.flat(new)

    def text(values: dict[str, Any], key: str) -> str:
        return repr(values[key]) if key in values else "(absent)"

    pairs = {key: (text(before, key), text(after, key)) for key in sorted(before | after)}
    return [f"{key}: {was} -> {is_}" for key, (was, is_) in pairs.items() if was != is_]


def write(values: dict[str, Any], params: Path = PARAMS) -> list[str]:
    """Write params.yaml; returns (and prints) what changed."""
    try:
        old = read(params)
    except ValueError:
        old = {}  # it is replaced anyway
    changed = differences(old, values)
    for line in changed:
        print(f"  {line}")
    write_text(params, as_yaml(values))
    return changed
