"""The clips that are taken of a video for an answer: when, and read from its file. Needs nothing but the decoder."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stillframe.data.clips import video
from stillframe.data.clips.film import VideoFacts
from stillframe.data.decode import Picture, Pixels, Refused

NAMES = {"mov": "MP4", "matroska": "Matroska", "mpegts": "MPEG-TS"}  # of containers
EDGE_S = 2e-3  # nothing at the very end is asked for: there the next part begins, or nothing is left


def seconds(frames: int, fps: float | None, views: int, start: float, end: float) -> NDArray[np.float64]:
    """The seconds of a video at which the frames of its clips are taken: (views, frames).

    Args:
        frames: of a clip.
        fps: frames a second; None: spread over the whole.
        views: clips.
        start: s, where the video (or its part) begins.
        end: s, where it ends.
    """
    number_T = np.arange(frames)
    if fps is None:
        share_V = (np.arange(views) + 0.5) / views
        at_VT = start + (number_T + share_V[:, None]) * (end - start) / frames
    else:
        rest = max(0.0, end - start - frames / fps)
        first_V = rest * (np.linspace(0.0, 1.0, views) if views > 1 else np.array([0.5]))
        at_VT = start + first_V[:, None] + (number_T + 0.5) / fps
    return np.clip(at_VT, start, max(start, end - EDGE_S))


def container_of(about: VideoFacts) -> str:
    """The container's usual name; FFmpeg's own where it has no other."""
    name = about.format.split(",")[0]
    return NAMES.get(name, name)


@dataclass(frozen=True)
class Reading:
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

    def judge(self, path: Path) -> VideoFacts:
        """What a video is (Refused: with the reason that quarantine.csv would have)."""
        try:
            return video.probe(path, min_px=self.min_px, max_megapixels=self.max_megapixels)
        except OSError as error:
            raise Refused(f"unreadable: {error.strerror or error}") from None

    def __call__(
        self,
        path: Path,
        *,
        start: float = 0.0,
        end: float | None = None,
        change: Callable[[Pixels], Pixels] = np.asarray,
    ) -> Picture:
        """The clips of a video, or of the part from `start` to `end`: the image is uint8 (V, T, H, W, C).

        Args:
            path: of the file.
            start: s from the first frame.
            end: s; None: where the video ends.
            change: what is done with each frame as soon as it is decoded, say `decode.prepare`.

        Raises:
            Refused: as `judge`, or a frame does not decode.
        """
        about = self.judge(path)
        until = min(math.inf if end is None else end, about.seconds)
        at_VT = seconds(self.frames, self.fps, self.views, start, until)
        once_N, place = np.unique(at_VT, return_inverse=True)
        limits = (self.min_px, self.max_megapixels)
        try:
            frame_N = video.frames_at(path, once_N, min_px=limits[0], max_megapixels=limits[1], change=change)
        except OSError as error:
            raise Refused(f"unreadable: {error.strerror or error}") from None
        mode = "L" if about.channels == 1 else "RGB"
        image = frame_N[place.reshape(at_VT.shape)]
        return Picture(image, mode, container_of(about), about.width, about.height, about.frames)
