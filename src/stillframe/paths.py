"""Where the edges of the DAG lie, and how a file is written so that it is whole or not there at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PARAMS = Path("params.yaml")
CONF = Path("conf")
SOURCES = Path("src/stillframe")
CODE = Path("artifacts/code")  # one file a stage: digests of the code that it runs
SOURCE = Path("data/source")  # a link: to data/raw, or to the user's own folder; not in git, see docs/decisions.md
SOURCE_NOTE = Path("data/source.txt")  # where the link points: the output of compose that a fresh clone lacks
RAW = Path("data/raw")
PREPARED = Path("data/prepared")
AUGMENTED = Path("data/augmented")
TRAIN = Path("artifacts/train")
VALIDATE = Path("artifacts/validate")
EVALUATE = Path("artifacts/evaluate")
EXPORT = Path("artifacts/export")
REPORT = Path("artifacts/report")
RESUME = Path(".resume")  # state of unfinished training; outside DVC's outs, which DVC deletes before a re-run
WORK = Path(".work")  # finished pieces of unfinished preprocessing and augmentation


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; at a clean exit fsync it and rename it to `path`.

    After a crash `path` is either the old file or the new one, never a part of the new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # mkstemp makes files that only their owner can read
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with a fixed key order; NaN and infinity are refused (ValueError)."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        FileNotFoundError: with the command that makes the file.
        ValueError: when the file is not JSON (cut short, say).
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing: run `dvc repro` to make it") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON ({error}): delete it and run `dvc repro`") from None


def fresh_folder(path: Path) -> Path:
    """Make `path` an empty folder (what was in it is deleted) and return it."""
    if path.exists():
        shutil.rmtree(path)
    path.mkdir(parents=True)
    return path
