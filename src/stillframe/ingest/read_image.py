"""One image or video by its path or its id, with the checks of preprocessing: prediction reads what training read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from stillframe.config import DataConfig
from stillframe.ingest import idx
from stillframe.ingest.decode import DecodedImage, InvalidImage, decode
from stillframe.ingest.listing import to_path
from stillframe.ingest.video.views import ClipReader


def content_of(path: Path, max_megapixels: float) -> tuple[bytes, os.stat_result]:
    """The bytes of a file and what the system said of it when they were read.

    Raises:
        InvalidImage: not a regular file, or larger than any sane image of so many pixels.
        OSError: it cannot be read.
    """
    limit = int(max_megapixels * 1e6 * 8) + (1 << 24)
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        raise InvalidImage("not a file: a folder" if stat.S_ISDIR(mode) else "not a file: a pipe, socket or device")
    with path.open("rb") as file:
        seen = os.fstat(file.fileno())
        if seen.st_size > limit:
            raise InvalidImage(f"too large: {seen.st_size} bytes")
        return file.read(), seen


def read_image(path: Path, *, min_px: int, max_megapixels: float) -> DecodedImage:
    """Read and decode one image file.

    Raises:
        InvalidImage: with the reason that preprocessing would write into quarantine.csv.
    """
    try:
        content, _ = content_of(path, max_megapixels)
    except (OSError, ValueError) as error:
        if isinstance(error, InvalidImage):
            raise
        raise InvalidImage(f"unreadable: {getattr(error, 'strerror', None) or error}") from None
    return decode(content, min_px=min_px, max_megapixels=max_megapixels)


def part_of(folder: Path, row_id: str) -> tuple[Path, float, float | None]:
    """File, begin and end (s; None: to the end) of a part of a video by its id, "path#12.5-15"."""
    name, _, span = row_id.rpartition("#")
    start, _, end = span.partition("-")
    return to_path(folder, name), float(start), float(end) if end else None


class SourceImages:
    """The source's images by the ids of prepared rows, as files or as rows of idx files; of videos their views."""

    def __init__(self, folder: Path, data: DataConfig, unpacked: Path) -> None:
        """Open a source.

        Args:
            folder: the source.
            data: section `data`.
            unpacked: a folder for unpacked copies of idx files.

        Raises:
            FileNotFoundError: no such folder. ValueError: an idx file is damaged.
        """
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is not a folder: run `dvc repro fetch`, or set data.path to your images")
        self.folder, self.data = folder, data
        self.files: dict[str, Path] = {}
        if data.format == "idx" or (data.format == "auto" and data.table is None):
            for path in idx.image_files(folder):
                self.files[path.name.removesuffix(".gz")] = idx.unpacked(path, unpacked)

    def __call__(self, row_id: str) -> DecodedImage:
        """The image of a row, or all views (V, T, H, W, C) of a video (InvalidImage: the file changed)."""
        if self.files:
            name, number = row_id.split("#")
            image = idx.pixels(self.files[name], int(number))
            return DecodedImage(image, "L", "IDX", image.shape[1], image.shape[0])
        path, clip = to_path(self.folder, row_id), self.data.clip
        if clip is not None:
            read = ClipReader(clip.frames, clip.fps, clip.views, self.data.min_px, self.data.max_megapixels)
            path, start, end = (path, 0.0, None) if path.is_file() else part_of(self.folder, row_id)
            return read(path, start=start, end=end)
        return read_image(path, min_px=self.data.min_px, max_megapixels=self.data.max_megapixels)
