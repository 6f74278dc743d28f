"""Predictions as CSV, JSON lines or Parquet, row by row, to a file or to stdout."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from stillframe.config import nearest
from stillframe.inference.stream import InferenceResult
from stillframe.ingest.listing import to_id
from stillframe.paths import replacing

FORMATS = ("csv", "jsonl", "parquet")
NESTED = {"probability": "probabilities", "share": "shares"}  # columns <word>/<class> -> their object in JSON lines
ROWS = 8192  # of a Parquet row group
Write = Callable[[InferenceResult[Any], str], None]


def columns(classes: list[str], more: Sequence[str] = ()) -> list[str]:
    """The columns of a table of predictions; `more` of them, numbers, behind the path."""
    return ["path", *more, "predicted", "confidence", "reason", "heat", *(f"probability/{name}" for name in classes)]


def row(one: InferenceResult[Any], path: str, heat: str, classes: list[str]) -> dict[str, Any]:
    """One row; without an answer `predicted` is "" and numbers are None."""
    values: list[float | None] = [None] * len(classes)
    answer, confidence = "", None
    if one.probability_K is not None:
        values = [round(float(value), 6) for value in one.probability_K]
        answer, confidence = classes[one.decision], values[one.decision]
    named = {f"probability/{name}": value for name, value in zip(classes, values, strict=True)}
    return {
        **{"path": to_id(path), "predicted": answer, "confidence": confidence, "reason": one.reason, "heat": heat},
        **named,
    }


def format_of(out: str) -> tuple[str, Path | None]:
    """The format, and the file; None: stdout.

    Raises:
        ValueError: neither a format nor a file name that ends in one; names the nearest.
    """
    if out in FORMATS:
        return out, None
    ending = Path(out).suffix.removeprefix(".").lower()
    if ending not in FORMATS:
        raise ValueError(
            f"--out {out}: a file name ends in .csv, .jsonl or .parquet: {nearest(ending or out, FORMATS)}"
        )
    return ending, Path(out)


@contextmanager
def sink(out: str, classes: list[str], more: Sequence[str] = ()) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yield a function that takes the rows of labels. A file is there whole at the end, or not at all."""
    with table(out, columns(classes, more)) as write:
        yield write


@contextmanager
def table(out: str, names: list[str]) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yield a function that takes rows of these columns. A file is there whole at the end, or not at all."""
    kind, path = format_of(out)
    if path is None:
        with _writer(kind, sys.stdout.buffer, names) as write:
            yield write
        sys.stdout.flush()
        return
    with replacing(path) as temporary, temporary.open("wb") as file, _writer(kind, file, names) as write:
        yield write


@contextmanager
def _writer(kind: str, file: IO[bytes], names: list[str]) -> Iterator[Callable[[dict[str, Any]], None]]:
    if kind == "parquet":
        with _parquet(file, names) as write:
            yield write
        return
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=False)
    try:
        if kind == "jsonl":
            yield lambda values: _json_line(text, {name: values[name] for name in names})
        else:
            table = csv.DictWriter(text, names, lineterminator="\n")
            table.writeheader()
            yield table.writerow
        text.flush()
    finally:
        text.detach()


def _json_line(text: IO[str], values: dict[str, Any]) -> None:
    """Columns of one number a class become one object."""
    line: dict[str, Any] = {}
    for key, value in values.items():
        kind, mark, name = key.partition("/")
        if mark and kind in NESTED:
            line.setdefault(NESTED[kind], {})[name] = value
        else:
            line[key] = value
    text.write(json.dumps(line, ensure_ascii=False) + "\n")


@contextmanager
def _parquet(file: IO[bytes], names: list[str]) -> Iterator[Callable[[dict[str, Any]], None]]:
    import pyarrow as pa
    from pyarrow import parquet

    words = ("path", "predicted", "reason", "heat", "mask", "overlay")
    schema = pa.schema([(name, pa.string() if name in words else pa.float32()) for name in names])
    waiting: list[dict[str, Any]] = []
    with parquet.ParquetWriter(file, schema) as writer:

        def write(values: dict[str, Any]) -> None:
            waiting.append(values)
            if len(waiting) == ROWS:
                empty()

        def empty() -> None:
            if waiting:
                writer.write_table(pa.Table.from_pylist(waiting, schema=schema))
                waiting.clear()

        yield write
        empty()
