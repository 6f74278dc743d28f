"""Reading the source folder into a `Listing`: class folders, folders that are already split, a table, idx files.

A task may add layouts of its own (`Target.detect`, `Target.read`), such as masks beside images.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from stillframe.config import DataConfig
from stillframe.ingest import idx, tables
from stillframe.ingest.listing import SPLIT_NAMES, Listing, SourceRow, holds_videos, is_system_file, to_id, walk
from stillframe.ingest.target import Target


def read_source(folder: Path, data: DataConfig, target: Target) -> Listing:
    """List the samples of a source folder with their targets.

    Raises:
        FileNotFoundError: the folder is not there.
        ValueError: no layout fits, or the table or an idx file cannot be read.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder: set data.path to your images, or run `dvc repro fetch`")
    layout = detect(folder, data, target) if data.format == "auto" else data.format
    if layout == "table":
        listing = tables.read_table(folder, data, target)
    elif layout == "idx":
        listing = idx.read_idx(folder, target.parse)
    elif layout in ("folders", "split_folders"):
        listing = read_folders(folder, target, split=layout == "split_folders", videos=data.clip is not None)
    elif target.read is not None:
        listing = target.read(folder, data, layout)
    else:
        raise ValueError(f"data.format = {layout!r} is a layout of another task: set `task`, or data.format to auto")
    if not listing.rows:
        videos = "; for videos choose data=videos" if data.clip is None and holds_videos(folder) else ""
        raise ValueError(
            f"{folder}: no images found (read as {layout}; ignored: {listing.ignored or 'nothing'}): "
            "check data.path and data.format" + videos
        )
    return listing


def detect(folder: Path, data: DataConfig, target: Target) -> str:
    """The layout of a folder: one of the task's own, "table", "idx", "split_folders" or "folders".

    Raises:
        ValueError: the folder or section `data` is of another task.
    """
    if layout := target.detect(folder, data):
        return layout
    if data.table is not None:
        return "table"
    if idx.image_files(folder):
        return "idx"
    folders = [entry for entry in os.scandir(folder) if entry.is_dir() and not is_system_file(entry.name)]
    splits = {SPLIT_NAMES.get(entry.name.lower()): entry for entry in folders}
    kinds = set(splits) - {None}
    if "train" in kinds and (len(kinds) > 1 or len(folders) == 1):
        if any(inner.is_dir() for inner in list(os.scandir(splits["train"].path))):
            return "split_folders"
    return "table" if tables.find_table(folder, data, target) else "folders"


def read_folders(folder: Path, target: Target, *, split: bool, videos: bool = False) -> Listing:
    """Rows of `class/**/file`, or with `split` of `train|val|test/class/**/file`; with `videos` of videos."""
    ignored: Counter[str] = Counter()
    rows: list[SourceRow] = []
    empty: list[str] = []
    for top in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if is_system_file(top.name) or not top.is_dir():
            ignored[_why(top)] += 1
        elif not split:
            _read_class(folder, top.name, None, rows, ignored, empty, target, videos)
        elif top.name.lower() not in SPLIT_NAMES:
            ignored["beside the split folders"] += 1
        else:
            for inner in sorted(os.scandir(top.path), key=lambda entry: entry.name):
                if is_system_file(inner.name) or not inner.is_dir():
                    ignored[_why(inner)] += 1
                else:
                    name = f"{top.name}/{inner.name}"
                    _read_class(folder, name, SPLIT_NAMES[top.name.lower()], rows, ignored, empty, target, videos)
    rows.sort(key=lambda row: row.id)
    return Listing("split_folders" if split else "folders", rows, dict(sorted(ignored.items())), empty)


def _why(entry: os.DirEntry[str]) -> str:
    return "hidden or system file" if is_system_file(entry.name) else "beside the class folders"


def _read_class(
    folder: Path,
    name: str,
    split: str | None,
    rows: list[SourceRow],
    ignored: Counter[str],
    empty: list[str],
    target: Target,
    videos: bool,
) -> None:
    value, before = target.parse(to_id(name.split("/")[-1])), len(rows)
    for relative, problem in walk(folder, name, ignored, videos=videos):
        rows.append(SourceRow(to_id(relative), value, split, problem=problem))
    if len(rows) == before:
        empty.append(to_id(name))
