"""The samples that a source folder lists, their ids, and walking its folders; nothing is decoded.

An id is the file's path relative to the source in POSIX spelling, or "<idx file>#<row>"; it names the sample in every
later stage.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
VIDEO_SUFFIXES = frozenset(
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
class SourceRow:
    """One sample as the source lists it.

    Attributes:
        id: path relative to the source (see `to_id`), or "<idx file>#<row>".
        target: what is to be learnt of the sample, as the task reads it from the source; `Target` knows its type.
        split: "train", "val" or "test" where the source says so.
        group: samples of one group never lie in two splits; None where the source names none.
        weight: of the sample in the loss, 0 or more.
        slices: extra columns of the table, by name.
        problem: why the row cannot be used whatever the file holds; "" for a usable row.
        file: id of the file where the row is a part of a video; "": the row's own id.
        start: s, of a part of a video.
        end: s; None: where the video ends.
    """

    id: str
    target: Any
    split: str | None = None
    group: str | None = None
    weight: float = 1.0
    slices: dict[str, str] = field(default_factory=dict)
    problem: str = ""
    file: str = ""
    start: float = 0.0
    end: float | None = None


@dataclass(frozen=True)
class Listing:
    """All rows of a source, sorted by id, and what was passed over."""

    layout: str
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


def _first_bytes(path: Path) -> bytes:
    """The first bytes of a file; none where it cannot be opened."""
    try:
        with path.open("rb") as file:
            return file.read(12)
    except OSError:
        return b""


def looks_like_image(path: Path) -> bool:
    """Whether the first bytes are those of a common image format; False where the file cannot be opened."""
    head = _first_bytes(path)
    return head.startswith(MAGIC) or head[4:8] == b"ftyp"


def looks_like_video(path: Path) -> bool:
    """Whether the first bytes are those of a common container of video; False where the file cannot be opened."""
    head = _first_bytes(path)
    return head[4:8] == b"ftyp" or head.startswith((b"\x1aE\xdf\xa3", b"GIF8", b"OggS", b"FLV")) or head[8:] == b"AVI "


def holds_videos(folder: Path, n_files: int = 1000) -> bool:
    """Whether most of the first files of a folder, at any depth, are videos by their endings (a GIF may be either)."""
    videos = images = 0
    for _, below, names in os.walk(folder):
        below.sort()
        for name in sorted(names):
            suffix = Path(name).suffix.lower()
            videos += suffix in VIDEO_SUFFIXES and suffix != ".gif"
            images += suffix in IMAGE_SUFFIXES and suffix != ".gif"
        if videos + images >= n_files:
            break
    return videos > images


def is_system_file(name: str) -> bool:
    """Whether a file or folder is hidden, or one that an operating system leaves."""
    return name.startswith(".") or name.lower() in SYSTEM_FILES


def walk(
    folder: Path, relative: str, ignored: Counter[str], above: tuple[str, ...] = (), *, videos: bool = False
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
    suffixes, what = (VIDEO_SUFFIXES, "a video") if videos else (IMAGE_SUFFIXES, "an image")
    if not entries and here.suffix.lower() in suffixes:
        yield relative, f"not a file: an empty folder named like {what}"
    for entry in entries:
        inside = f"{relative}/{entry.name}"
        if is_system_file(entry.name):
            ignored["hidden or system file"] += 1
        elif entry.is_dir():
            yield from walk(folder, inside, ignored, (*above, real), videos=videos)
        elif entry.is_symlink() and not os.path.exists(entry.path):
            yield inside, "broken symbolic link"
        elif not entry.is_file():
            yield inside, "not a file: a pipe, socket or device"
        elif Path(entry.name).suffix.lower() in suffixes:
            yield inside, ""
        elif looks_like_video(Path(entry.path)) if videos else looks_like_image(Path(entry.path)):
            yield inside, ""
        else:
            ignored[f"not {what} by name or content"] += 1
