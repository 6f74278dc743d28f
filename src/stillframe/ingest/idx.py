"""idx files (the MNIST layout, LeCun et al. 1998): a magic number, big-endian sizes, then uint8 values."""

from __future__ import annotations

import gzip
import re
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from stillframe.ingest.listing import SPLIT_NAMES, Listing, SourceRow
from stillframe.paths import replacing

NAME = re.compile(r"^(?P<prefix>.*?)-?images?[-.]idx3-ubyte(\.gz)?$")
UINT8 = 8  # the type code of unsigned bytes


@dataclass(frozen=True)
class Header:
    """Sizes of an idx file: one per axis, and where the values begin (bytes)."""

    sizes: tuple[int, ...]
    offset: int


def _open(path: Path) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")


def header(path: Path) -> Header:
    """Read the header (ValueError: not an idx file of bytes)."""
    try:
        with _open(path) as file:
            zero, kind, axes = struct.unpack(">HBB", file.read(4))
            sizes = struct.unpack(f">{axes}I", file.read(4 * axes))
    except (struct.error, OSError, EOFError) as error:
        raise ValueError(f"{path} is not an idx file: {error}") from None
    if zero != 0 or kind != UINT8 or axes not in (1, 3):
        raise ValueError(f"{path} is not an idx file of bytes with 1 or 3 axes")
    return Header(sizes, 4 + 4 * axes)


def image_files(folder: Path) -> list[Path]:
    """The idx files of images in a folder; where one lies both packed and unpacked, the unpacked."""
    by_name = {
        path.name.removesuffix(".gz"): path for path in sorted(folder.iterdir(), reverse=True) if NAME.match(path.name)
    }
    return [by_name[name] for name in sorted(by_name)]


def read_idx(folder: Path, parse: Callable[[str], Any] = str) -> Listing:
    """Rows "<file>#<row>" of every pair of files, of images and of their numbers; `t10k` and `test` are the test split.

    Args:
        folder: of the files.
        parse: the value of a target from its number as text.

    Raises:
        ValueError: no such files, no labels beside images, or sizes that do not fit.
    """
    rows: list[SourceRow] = []
    for path in image_files(folder):
        stem = path.name.removesuffix(".gz")
        values = _values(path)
        head = header(path)
        if len(head.sizes) != 3 or len(values) != head.sizes[0]:
            raise ValueError(f"{path} has the sizes {head.sizes}, its labels are {len(values)}")
        match = NAME.match(path.name)
        prefix = match["prefix"].lower() if match else ""
        split = "test" if prefix == "t10k" else SPLIT_NAMES.get(prefix)
        rows += [SourceRow(f"{stem}#{index}", parse(str(value)), split) for index, value in enumerate(values)]
    if not rows:
        raise ValueError(f"{folder}: no idx files such as train-images-idx3-ubyte[.gz]")
    return Listing("idx", sorted(rows, key=lambda row: row.id), {}, [])


def _values(images: Path) -> NDArray[np.uint8]:
    """The numbers that belong to a file of images."""
    name = images.name.removesuffix(".gz").replace("images", "labels").replace("image", "label").replace("idx3", "idx1")
    path = next((images.with_name(name + end) for end in ("", ".gz") if images.with_name(name + end).is_file()), None)
    if path is None:
        raise ValueError(f"{images}: its labels are missing ({name} or {name}.gz)")
    head = header(path)
    try:
        with _open(path) as file:
            file.read(head.offset)
            values = np.frombuffer(file.read(), dtype=np.uint8)
    except (OSError, EOFError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if len(head.sizes) != 1 or len(values) != head.sizes[0]:
        raise ValueError(f"{path} holds {len(values)} labels, its header says {head.sizes}")
    return values


def unpacked(path: Path, folder: Path) -> Path:
    """An idx file that can be mapped into memory: itself, or its unpacked copy in `folder`.

    Raises:
        ValueError: the file is cut short or damaged.
    """
    head = header(path)
    whole = head.offset + int(np.prod(head.sizes, dtype=np.int64))
    target = path
    if path.suffix == ".gz":
        target = folder / path.name.removesuffix(".gz")
        try:
            with replacing(target) as temporary, _open(path) as source, temporary.open("wb") as copy:
                shutil.copyfileobj(source, copy, 1 << 20)
        except (OSError, EOFError) as error:
            raise ValueError(f"{path} is damaged: {error}") from None
    if target.stat().st_size != whole:
        raise ValueError(f"{path} is cut short: {target.stat().st_size} of {whole} bytes")
    return target


def images(path: Path) -> NDArray[np.uint8]:
    """All images of an unpacked idx file, mapped into memory: uint8 (N, H, W)."""
    head = header(path)
    count, height, width = head.sizes
    return np.memmap(path, dtype=np.uint8, mode="r", offset=head.offset, shape=(count, height, width))


def pixels(path: Path, index: int) -> NDArray[np.uint8]:
    """Image `index` of an unpacked idx file: uint8 (H, W, 1)."""
    return np.array(images(path)[index])[:, :, None]
