"""Predictions as CSV, JSON lines or Parquet, row by row, to a file or to stdout."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from stillframe.config import nearest
from stillframe.paths import replacing

FORMATS = ("csv", "jsonl", "parquet")
ROWS = 8192  # of a Parquet row group
Row = dict[str, Any]


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
def open_table(out: str, columns: Mapping[str, type]) -> Iterator[Callable[[Row], None]]:
    """Yield a function that takes rows. A file is there whole at the end, or not at all.

    Args:
        out: as of `format_of`.
        columns: name -> str or float; `<noun>/<name>` become one object `<nouns>` in JSON lines.
    """
    kind, path = format_of(out)
    if path is None:
        with _writer(kind, sys.stdout.buffer, columns) as write:
            yield write
        sys.stdout.flush()
        return
    with replacing(path) as temporary, temporary.open("wb") as file, _writer(kind, file, columns) as write:
        yield write


@contextmanager
def _writer(kind: str, file: IO[bytes], columns: Mapping[str, type]) -> Iterator[Callable[[Row], None]]:
    if kind == "parquet":
        with _parquet(file, columns) as write:
            yield write
        return
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=False)
    try:
        if kind == "jsonl":
            yield lambda row: _json_line(text, {name: row[name] for name in columns})
        else:
            table = csv.DictWriter(text, list(columns), lineterminator="\n")
            table.writeheader()
            yield table.writerow
        text.flush()
    finally:
        text.detach()


def _json_line(text: IO[str], row: Row) -> None:
    """`probability/cat` and `probability/dog` become {"probabilities": {"cat": ..., "dog": ...}}."""
    line: dict[str, Any] = {}
    for column, value in row.items():
        noun, slash, name = column.partition("/")
        if slash:
            plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
            line.setdefault(plural, {})[name] = value
        else:
            line[column] = value
    text.write(json.dumps(line, ensure_ascii=False) + "\n")


@contextmanager
def _parquet(file: IO[bytes], columns: Mapping[str, type]) -> Iterator[Callable[[Row], None]]:
    import pyarrow as pa
    from pyarrow import parquet

    schema = pa.schema([(name, pa.string() if kind is str else pa.float32()) for name, kind in columns.items()])
    waiting: list[Row] = []
    with parquet.ParquetWriter(file, schema) as writer:

        def write(row: Row) -> None:
            waiting.append(row)
            if len(waiting) == ROWS:
                empty()

        def empty() -> None:
            if waiting:
                writer.write_table(pa.Table.from_pylist(waiting, schema=schema))
                waiting.clear()

        yield write
        empty()
