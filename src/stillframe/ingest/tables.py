"""A table as the source: CSV, TSV, whitespace-separated text or Parquet, one row a sample."""

from __future__ import annotations

import math
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stillframe.config import ColumnsConfig, DataConfig, nearest
from stillframe.ingest.listing import SPLIT_NAMES, Listing, SourceRow, to_id, walk
from stillframe.ingest.target import Target

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".csv", ".tsv", ".txt", ".parquet")


def canonical(text: str) -> str:
    """A text as it is compared: numbers by their value ("0", "0.0" and "-0" are one), other text as it stands."""
    try:
        number = float(text)
    except ValueError:
        return text
    if not math.isfinite(number):
        return text
    return str(int(number)) if number == int(number) and abs(number) < 1e15 else repr(number)


def find_table(folder: Path, data: DataConfig, target: Target) -> Path | None:
    """The table of a folder: `data.table`, or the one file beside the images that has the columns.

    Raises:
        ValueError: `data.table` is not there.
    """
    if data.table is not None:
        path = folder / data.table
        if not path.is_file():
            raise ValueError(f"data.table: {path} is not there")
        return path
    fits = []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith("."):
            try:
                frame = read_frame(path, data.columns)
            except ValueError:
                continue  # another table, not one of images
            if {data.columns.path, *target.table_columns(data)} <= set(frame.columns):
                fits.append(path)
    return fits[0] if len(fits) == 1 else None


def separator(path: Path) -> str:
    """Comma, tab or semicolon when the first line holds one, else runs of white space."""
    with path.open(encoding="utf-8-sig", errors="strict") as file:
        first = next((line for line in file if line.strip()), "")
    for mark in (",", "\t", ";"):
        if mark in first:
            return mark
    return r"\s+"


def read_frame(path: Path, columns: ColumnsConfig) -> pd.DataFrame:
    """The table with text cells; without a header where `columns.path` is a number, then columns are "0", "1", ...

    Raises:
        ValueError: not readable as a table; names the file.
    """
    import pandas as pd

    try:
        if path.suffix.lower() == ".parquet":
            return _as_text(pd.read_parquet(path))
        header: Any = None if columns.path.isdigit() else 0
        frame = pd.read_csv(
            path, sep=separator(path), header=header, dtype=str, keep_default_na=False, encoding="utf-8-sig"
        )
    except (ValueError, OSError) as error:  # pandas' and pyarrow's own errors are ValueErrors
        raise ValueError(f"{path} is not readable as a table: {error}") from None
    return frame.rename(columns=str)


def _as_text(frame: pd.DataFrame) -> pd.DataFrame:
    def text(value: Any) -> str:
        if value is None or value != value:
            return ""
        return canonical(str(value)) if isinstance(value, float) else str(value)

    return frame.rename(columns=str).map(text)


def read_table(folder: Path, data: DataConfig, target: Target) -> Listing:
    """Rows of the table, sorted by id; a file that is listed more than once becomes one row.

    Raises:
        ValueError: no table, or one without the named columns.
    """
    path, columns = find_table(folder, data, target), target.table_columns(data)
    if path is None:
        names = " and ".join(repr(name) for name in (data.columns.path, *columns))
        raise ValueError(f"{folder}: not one table with the columns {names}: set data.table and data.columns")
    frame = read_frame(path, data.columns)
    roles = ("path", "split", "group", "weight", "start", "end")
    named = [name for role in roles if (name := getattr(data.columns, role))]
    for name in [*named, *columns, *data.columns.slices]:
        if name not in frame.columns:
            raise ValueError(f"{path} has no column {name!r} (data.columns): {nearest(name, frame.columns)}")
    by_id: dict[str, list[SourceRow]] = {}
    for record in frame.to_dict("records"):
        row = _row(folder, {str(key): str(value) for key, value in record.items()}, data, target)
        by_id.setdefault(row.id, []).append(row)
    rows = [_merged(same, target) for _, same in sorted(by_id.items())]
    # images in the folders that the table does not list are counted, so that nobody misses them silently
    ignored: Counter[str] = Counter()
    listed = {row.file or row.id for row in rows}
    for top in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if top.is_dir() and not top.name.startswith("."):
            files = walk(folder, top.name, ignored, videos=data.clip is not None)
            ignored["not listed in the table"] += sum(to_id(name) not in listed for name, _ in files)
    return Listing("table", rows, {why: count for why, count in sorted(ignored.items()) if count}, [])


def _merged(same: list[SourceRow], target: Target) -> SourceRow:
    """Rows of one file as one row; targets or splits that contradict each other are a problem of that file."""
    first, splits = same[0], sorted({row.split for row in same if row.split})
    value, problem = target.merge([row.target for row in same])
    if first.problem:
        value, problem = first.target, first.problem
    elif not problem and len(splits) > 1:
        problem, splits = f"split: listed in {' and '.join(splits)}", []
    return replace(first, target=value, split=splits[0] if splits else None, problem=problem)


def _row(folder: Path, cells: dict[str, str], data: DataConfig, target: Target) -> SourceRow:
    columns = data.columns
    row_id, problem = relative_id(folder, cells[columns.path])
    value, wrong = target.from_cells(cells, data, folder)
    split = cells[columns.split].strip().lower() if columns.split else ""  # an empty cell: the splitter decides
    group = (cells[columns.group].strip() if columns.group else "") or None
    weight, weight_text = 1.0, cells[columns.weight] if columns.weight else "1"
    try:
        weight = float(weight_text)
    except ValueError:
        problem = problem or f"weight is not a number: {weight_text!r}"
    if not (math.isfinite(weight) and weight >= 0):
        problem = problem or f"weight is not 0 or more: {weight_text!r}"
        weight = 1.0
    problem = problem or wrong
    if split and split not in SPLIT_NAMES:
        problem = problem or f"split is not train, val or test: {split!r}"
    slices = {name: cells[name] for name in columns.slices}
    row = SourceRow(row_id, value, SPLIT_NAMES.get(split), group, weight, slices, problem)
    return row if data.clip is None else _part(row, cells, columns)


def _part(row: SourceRow, cells: dict[str, str], columns: ColumnsConfig) -> SourceRow:
    """A row of a video, from `columns.start` to `columns.end`, s; its id then is "path#12.5-15"."""
    texts = [cells[name].strip() if name else "" for name in (columns.start, columns.end)]
    try:
        start, end = (float(text) if text else None for text in texts)
    except ValueError:
        return replace(row, problem=row.problem or f"start or end is not a number: {texts}")
    if start is None and end is None:
        return row
    if not (0.0 <= (start or 0.0) < (math.inf if end is None else end)):
        return replace(row, problem=row.problem or f"start is not before end, or less than 0: {texts}")
    name = f"{row.id}#{_plain(start or 0.0)}-{'' if end is None else _plain(end)}"
    return replace(row, id=name, file=row.id, start=start or 0.0, end=end)


def _plain(seconds: float) -> str:
    """Seconds to the millisecond, without zeros at the end."""
    return f"{seconds:.3f}".rstrip("0").rstrip(".")


def relative_id(folder: Path, text: str) -> tuple[str, str]:
    """The id of a path in the table, and why it is refused ("" when it is not)."""
    if not text.strip():
        return text, "path missing"
    path = text
    if os.path.isabs(text):
        roots = (str(folder.absolute()), os.path.realpath(folder))
        inside = [root for root in roots if os.path.commonpath([root, os.path.normpath(text)]) == root]
        if not inside:
            return to_id(text), "path outside the source folder"
        path = os.path.relpath(os.path.normpath(text), inside[0])
    normal = os.path.normpath(path)
    if "\x00" in normal:
        return text, "path with a NUL byte"
    if normal == ".." or normal.startswith(f"..{os.sep}"):
        return to_id(text), "path outside the source folder"
    return to_id(normal), ""
