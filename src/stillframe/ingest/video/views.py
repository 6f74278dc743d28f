"""The clips that are taken of a video for an answer: when, and read from its file. Needs nothing but the decoder."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stillframe.ingest.decode import DecodedImage, InvalidImage, Pixels
from stillframe.ingest.video import decode
from stillframe.ingest.video.reader import VideoInfo
from stillframe.store.frame_times import seconds

NAMES = {"mov": "MP4", "matroska": "Matroska", "mpegts": "MPEG-TS"}  # of containers


def container_of(about: VideoInfo) -> str:
    """The container's usual name; FFmpeg's own where it has no other."""
    name = about.format.split(",")[0]
    return NAMES.get(name, name)


@dataclass(frozen=True)
class ClipReader:
    """How videos are read, as `data` says.

    Attributes:
        frames: of a clip.
        fps: frames a second; None: spread over the whole video.
        views: clips of a video.
        min_px: videos with a shorter side are refused.
        max_megapixels: videos with larger frames are refused.
    """

    frames: int
    fps: float | None
    views: int
    min_px: int
    max_megapixels: float

    def judge(self, path: Path) -> VideoInfo:
        """What a video is (InvalidImage: with the reason that quarantine.csv would have)."""
        try:
            return decode.probe(path, min_px=self.min_px, max_megapixels=self.max_megapixels)
        except OSError as error:
            raise InvalidImage(f"unreadable: {error.strerror or error}") from None

    def __call__(
        self,
        path: Path,
        *,
        start: float = 0.0,
        end: float | None = None,
        change: Callable[[Pixels], Pixels] = np.asarray,
    ) -> DecodedImage:
        """The clips of a video, or of the part from `start` to `end`: the image is uint8 (V, T, H, W, C).

        Args:
            path: of the file.
            start: s from the first frame.
            end: s; None: where the video ends.
            change: what is done with each frame as soon as it is decoded, say `decode.prepare`.

        Raises:
            InvalidImage: as `judge`, or a frame does not decode.
        """
        about = self.judge(path)
        until = min(math.inf if end is None else end, about.seconds)
        at_VT = seconds(self.frames, self.fps, self.views, start, until)
        once_N, inverse = np.unique(at_VT, return_inverse=True)
        limits = (self.min_px, self.max_megapixels)
        try:
            frame_N = decode.frames_at(path, once_N, min_px=limits[0], max_megapixels=limits[1], change=change)
        except OSError as error:
            raise InvalidImage(f"unreadable: {error.strerror or error}") from None
        mode = "L" if about.channels == 1 else "RGB"
        image = frame_N[inverse.reshape(at_VT.shape)]
        return DecodedImage(image, mode, container_of(about), about.width, about.height, about.frames)
