"""What lies in the source folder: rows of (id, label, optional split, group, weight, slices), nothing decoded yet.

Four layouts are read in place: class folders, folders that are already split, a table, and idx files. An id is the
file's path relative to the source in POSIX spelling, or "<idx file>#<row>"; it is the sample's name everywhere after.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from stillframe.config import DataConfig

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
IMAGE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .apng .gif .webp .bmp .dib .tif .tiff .ppm .pgm .pbm .pnm .jp2 .j2k .avif".split()
    + [".heic", ".heif"]  # refused for now, with the reason
)
FILM_SUFFIXES = frozenset(
    ".mp4 .m4v .mov .mkv .webm .avi .gif .mpg .mpeg .m2ts .mts .ts .ogv .wmv .asf .flv .3gp .3g2".split()
)
SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini", "__macosx", "source.json"})
MAGIC = (
    b"\xff\xd8\xff",
    b"\x89PNG",
    b"GIF8",
    b"BM",
    b"II*\x00",
    b"MM\x00*",
    b"RIFF",
    b"P5",
    b"P6",
    b"\x00\x00\x00\x0cjP",
)


@dataclass(frozen=True, slots=True)
class MaskFiles:
    """Where the mask of an image is.

    Attributes:
        files: (class, id of the file) each; class "" for a file whose values are the labels.
        shapes: what a COCO file says of the image, as JSON: height, width and [label, segmentation] each; "" for files.
    """

    files: tuple[tuple[str, str], ...] = ()
    shapes: str = ""


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One sample as the source lists it.

    Attributes:
        id: path relative to the source (see `to_id`), or "<idx file>#<row>".
        label: as the source spells it.
        split: "train", "val" or "test" where the source says so.
        group: samples of one group never lie in two splits; None where the source names none.
        weight: of the sample in the loss, 0 or more.
        slices: extra columns of the table, by name.
        problem: why the row cannot be used whatever the file holds; "" for a usable row.
        mask: of data with masks; such a row has no label.
        file: id of the file where the row is a part of a video; "": the row's own id.
        start: s, of a part of a video.
        end: s; None: where the video ends.
    """

    id: str
    label: str
    split: str | None = None
    group: str | None = None
    weight: float = 1.0
    slices: dict[str, str] = field(default_factory=dict)
    problem: str = ""
    mask: MaskFiles | None = None
    file: str = ""
    start: float = 0.0
    end: float | None = None


@dataclass(frozen=True)
class Listing:
    """All rows of a source, sorted by id, and what was passed over."""

    format: str
    rows: list[SourceRow]
    ignored: dict[str, int]  # why -> files
    empty: list[str]  # class folders without a file


def to_id(path: str) -> str:
    r"""A relative path as text that any UTF-8 file can hold: undecodable bytes as `\xNN`, a backslash doubled."""
    raw = path.replace("\\", "\\\\") if os.sep != "\\" else path.replace("\\", "/")
    return raw.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def to_path(folder: Path, row_id: str) -> Path:
    """The file of an id: the inverse of `to_id`."""
    parts = re.split(r"(\\\\|\\x[0-9a-f]{2})", row_id)
    raw = b"".join(
        b"\\" if part == "\\\\" else bytes([int(part[2:], 16)]) if part.startswith("\\x") else part.encode("utf-8")
        for part in parts
    )
    return folder / os.fsdecode(raw)


def _head(path: Path) -> bytes:
    """The first bytes of a file; none where it cannot be opened."""
    try:
        with path.open("rb") as file:
            return file.read(12)
    except OSError:
        return b""


def looks_like_image(path: Path) -> bool:
    """Whether the first bytes are those of a common image format; False where the file cannot be opened."""
    head = _head(path)
    return head.startswith(MAGIC) or head[4:8] == b"ftyp"


def looks_like_film(path: Path) -> bool:
    """Whether the first bytes are those of a common container of video; False where the file cannot be opened."""
    head = _head(path)
    return head[4:8] == b"ftyp" or head.startswith((b"\x1aE\xdf\xa3", b"GIF8", b"OggS", b"FLV")) or head[8:] == b"AVI "


def holds_films(folder: Path, looked_at: int = 1000) -> bool:
    """Whether most of the first files of a folder, at any depth, are videos by their endings (a GIF may be either)."""
    films = images = 0
    for _, below, names in os.walk(folder):
        below.sort()
        for name in sorted(names):
            suffix = Path(name).suffix.lower()
            films += suffix in FILM_SUFFIXES and suffix != ".gif"
            images += suffix in IMAGE_SUFFIXES and suffix != ".gif"
        if films + images >= looked_at:
            break
    return films > images


def read_source(folder: Path, data: DataConfig) -> Listing:
    """List the source.

    Raises:
        FileNotFoundError: the folder is not there.
        ValueError: no layout fits, or the table or an idx file cannot be read.
    """
    from stillframe.ingest import idx, tables
    from stillframe.ingest.masks import sources as mask_sources

    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder: set data.path to your images, or run `dvc repro fetch`")
    kind = detect(folder, data) if data.format == "auto" else data.format
    if kind == "table":
        listing = tables.read_table(folder, data)
    elif kind == "idx":
        listing = idx.read_idx(folder)
    elif kind in mask_sources.KINDS:
        listing = mask_sources.read(folder, data, kind)
    else:
        listing = read_folders(folder, split=kind == "split_folders", films=data.clip is not None)
    if not listing.rows:
        videos = "; for videos choose data=videos" if data.clip is None and holds_films(folder) else ""
        raise ValueError(
            f"{folder}: no images found (read as {kind}; ignored: {listing.ignored or 'nothing'}): "
            "check data.path and data.format" + videos
        )
    return listing


def detect(folder: Path, data: DataConfig) -> str:
    """The layout of a folder: "table", "idx", "split_folders", "folders", or, of data with masks, "masks" or "coco".

    Raises:
        ValueError: images and masks lie side by side, and no section data.masks says so.
    """
    from stillframe.ingest import idx, tables
    from stillframe.ingest.masks import sources as mask_sources

    if data.masks is not None:
        return mask_sources.detect(folder, data)
    mask_sources.warn_of_masks(folder)
    if data.table is not None:
        return "table"
    if idx.image_files(folder):
        return "idx"
    folders = [entry for entry in os.scandir(folder) if entry.is_dir() and not _system(entry.name)]
    splits = {SPLIT_NAMES.get(entry.name.lower()): entry for entry in folders}
    kinds = set(splits) - {None}
    if "train" in kinds and (len(kinds) > 1 or len(folders) == 1):
        if any(inner.is_dir() for inner in list(os.scandir(splits["train"].path))):
            return "split_folders"
    return "table" if tables.find_table(folder, data) else "folders"


def _system(name: str) -> bool:
    return name.startswith(".") or name.lower() in SYSTEM_FILES


def read_folders(folder: Path, *, split: bool, films: bool = False) -> Listing:
    """Rows of `class/**/file`, or with `split` of `train|val|test/class/**/file`; with `films` the files are videos."""
    ignored: Counter[str] = Counter()
    rows: list[SourceRow] = []
    empty: list[str] = []
    for top in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if _system(top.name) or not top.is_dir():
            ignored[_why(top)] += 1
        elif not split:
            _read_class(folder, top.name, None, rows, ignored, empty, films)
        elif top.name.lower() not in SPLIT_NAMES:
            ignored["beside the split folders"] += 1
        else:
            for inner in sorted(os.scandir(top.path), key=lambda entry: entry.name):
                if _system(inner.name) or not inner.is_dir():
                    ignored[_why(inner)] += 1
                else:
                    name = f"{top.name}/{inner.name}"
                    _read_class(folder, name, SPLIT_NAMES[top.name.lower()], rows, ignored, empty, films)
    rows.sort(key=lambda row: row.id)
    return Listing("split_folders" if split else "folders", rows, dict(sorted(ignored.items())), empty)


def _why(entry: os.DirEntry[str]) -> str:
    return "hidden or system file" if _system(entry.name) else "beside the class folders"


def _read_class(
    folder: Path,
    name: str,
    split: str | None,
    rows: list[SourceRow],
    ignored: Counter[str],
    empty: list[str],
    films: bool,
) -> None:
    label, before = to_id(name.split("/")[-1]), len(rows)
    for relative, problem in walk(folder, name, ignored, films=films):
        rows.append(SourceRow(to_id(relative), label, split, problem=problem))
    if len(rows) == before:
        empty.append(to_id(name))


def walk(
    folder: Path, relative: str, ignored: Counter[str], above: tuple[str, ...] = (), *, films: bool = False
) -> Iterator[tuple[str, str]]:
    """Every file below `folder/relative` that may be an image (or a video), as (relative path, problem or "").

    Links are followed; one that leads back to a folder above it is a problem, as is what cannot be listed.
    """
    here = folder / relative
    real = os.path.realpath(here)
    if real in above:
        yield relative, "symbolic link loop"
        return
    try:
        entries = sorted(os.scandir(here), key=lambda entry: entry.name)
    except OSError as error:
        yield relative, f"unreadable folder: {error.strerror}"
        return
    suffixes, what = (FILM_SUFFIXES, "a video") if films else (IMAGE_SUFFIXES, "an image")
    if not entries and here.suffix.lower() in suffixes:
        yield relative, f"not a file: an empty folder named like {what}"
    for entry in entries:
        inside = f"{relative}/{entry.name}"
        if _system(entry.name):
            ignored["hidden or system file"] += 1
        elif entry.is_dir():
            yield from walk(folder, inside, ignored, (*above, real), films=films)
        elif entry.is_symlink() and not os.path.exists(entry.path):
            yield inside, "broken symbolic link"
        elif not entry.is_file():
            yield inside, "not a file: a pipe, socket or device"
        elif Path(entry.name).suffix.lower() in suffixes:
            yield inside, ""
        elif looks_like_film(Path(entry.path)) if films else looks_like_image(Path(entry.path)):
            yield inside, ""
        else:
            ignored[f"not {what} by name or content"] += 1
