"""The parameters of reading and preparing images: what of section `data` decides the outcome of a chunk."""

from __future__ import annotations

import json
from dataclasses import dataclass

from stillframe.config import ClipConfig, DataConfig
from stillframe.ingest.target import Target
from stillframe.store.frame_sampling import check

RAW_UP_TO = 256  # px: with data.store = auto smaller images are kept raw, larger ones as JPEG


@dataclass(frozen=True)
class IngestConfig:
    """The parameters that decide what a chunk holds.

    Attributes:
        image_size: side of the prepared images, px.
        resize: "squash", "pad" or "crop".
        channels: "auto", "gray" or "rgb".
        encoding: "raw", "jpeg" or "none" (an audit keeps no images).
        min_px: images with a shorter side are refused.
        max_megapixels: larger images are refused.
        target: dotted name of the module that knows the task's targets.
        overlap: of tiles, a share of their side; None: images are resized.
        clip: section `data.clip` of videos; None: the files are images.
        section: `data.target`, the task's own section, as JSON; "": null.
    """

    image_size: int
    resize: str
    channels: str
    encoding: str
    min_px: int
    max_megapixels: float
    target: str
    overlap: float | None = None
    clip: ClipConfig | None = None
    section: str = ""

    @classmethod
    def of(cls, data: DataConfig, target: Target, *, keep_images: bool = True) -> IngestConfig:
        """From section `data`; with `keep_images` False nothing prepared is kept (encoding "none")."""
        frames = (check(data.clip).stored or data.clip.frames) if data.clip is not None else 1
        small = data.image_size**2 * frames <= RAW_UP_TO**2
        encoding = data.store if data.store != "auto" else ("raw" if small else "jpeg")
        return cls(
            data.image_size,
            data.resize,
            data.channels,
            encoding if keep_images else "none",
            data.min_px,
            data.max_megapixels,
            target.module,
            target.overlap(data),
            data.clip,
            json.dumps(data.target) if data.target is not None else "",
        )
