"""Stage 1: what the others run: conf/ composed into params.yaml, which all of them read, and the code of each."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from stillframe import code_fingerprint, config
from stillframe.config import hydra_compose
from stillframe.paths import CODE, CONF, PARAMS, RAW, SOURCE, SOURCE_NOTE, SOURCES, write_text
from stillframe.tasks import task_module


def target_of(data_path: str | None) -> Path:
    """Where data/source has to point: at the user's own folder, or at data/raw beside it.

    Raises:
        FileNotFoundError: the user's folder is not there.
    """
    if data_path is None:
        return Path(os.path.relpath(RAW, SOURCE.parent))
    target = Path(os.path.abspath(Path(data_path).expanduser()))  # a link of the user's own stays a link
    if not target.is_dir():
        raise FileNotFoundError(f"data.path = {data_path!r}: no such folder")
    return target


def link_source(data_path: str | None, source: Path = SOURCE) -> None:
    """Point data/source at what preprocess reads, so that DVC watches it.

    Raises:
        FileNotFoundError: the user's folder is not there.
        ValueError: something of the user's lies at data/source.
    """
    target = target_of(data_path)
    write_text(source.with_name(SOURCE_NOTE.name), f"{target}\n")
    if source.is_symlink() and Path(os.readlink(source)) == target:
        return
    if source.exists() and not source.is_symlink():
        raise ValueError(f"{source} must be a link, but is a file or folder: move it away")
    source.parent.mkdir(parents=True, exist_ok=True)
    temporary = source.with_name(f".{source.name}.new")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(source)


def run(
    *,
    conf: Path = CONF,
    sources: Path = SOURCES,
    params: Path = PARAMS,
    note: Path = SOURCE_NOTE,
    code: Path = CODE,
) -> None:
    """Write params.yaml from conf/, unless `dvc exp run` has already written it with its own overrides; and `code`.

    Raises:
        FileNotFoundError: no conf/, no `sources`, or the folder data.path is not there.
        ValueError: conf/ does not compose, a value is wrong, or a module does not parse.
    """
    if os.environ.get("DVC_EXP_NAME"):
        values = hydra_compose.read(params)
        config.check_all(values, origin=f"{params} (as `dvc exp run` composed it)")
        print(f"{params} is left as `dvc exp run` composed it")
    else:
        values = hydra_compose.compose([], conf)
        hydra_compose.write(values, params)
    for caution in config.cautions(values):
        print(f"warning: {caution}", file=sys.stderr)
    link_source(values["data"]["path"], params.parent / note.with_name(SOURCE.name))
    code_fingerprint.write(sources, code, task_module(values["task"]))


def stale(*, conf: Path = CONF, params: Path = PARAMS) -> list[str]:
    """What conf/ would change in params.yaml and data/source, one line each; [] when they are up to date."""
    values = hydra_compose.compose([], conf)
    changes = hydra_compose.differences(hydra_compose.read(params), values)
    source = params.parent / SOURCE
    try:
        target = str(target_of(values["data"]["path"]))
    except FileNotFoundError as problem:
        return [*changes, str(problem)]
    points_at = os.readlink(source) if source.is_symlink() else target  # a fresh clone has none: compose makes it
    return [*changes, f"{source}: {points_at} -> {target}"] if points_at != target else changes


if __name__ == "__main__":
    try:
        run()
    except (ValueError, OSError) as problem:
        sys.exit(f"compose: {problem}")
