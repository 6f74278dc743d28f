"""Frames of a video file at given seconds, by one rule, for preprocessing and prediction alike.

The rule: the header first (container by its content, size, duration), refusing what is too large, too long or without a
picture before memory is spent; then the end of the file, so that one that was cut short is an error and not a short
clip. Seconds count from the first frame, whatever the file's own clock says, and the frame at second t is the one that
is shown then: the last whose time is not after t. So a variable frame rate needs no special care. Frames are turned
upright by the file's rotation metadata; gray videos give one channel, all others RGB, transparency on white.

A file is sought, not read through: of a video of two hours only the groups of images around the wanted frames are
decoded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stillframe.ingest.decode import InvalidImage, Pixels
from stillframe.ingest.video.reader import VideoInfo, VideoReader

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

__all__ = ["VideoInfo", "frames_at", "probe", "stream"]


def probe(path: Path, *, min_px: int = 1, max_megapixels: float = 100.0) -> VideoInfo:
    """Judge a video by its header and its end; nothing is decoded.

    Args:
        path: of the file.
        min_px: videos with a shorter side are refused.
        max_megapixels: videos with larger frames are refused.

    Raises:
        InvalidImage: "not a video", "no video stream", "no frames", "truncated", "too large", "too small", "absurd
            duration", "damaged", each with its detail.
        OSError: the file cannot be read.
    """
    with _opened(path, min_px, max_megapixels, threads=1) as reader:
        return reader.facts


def frames_at(
    path: Path,
    seconds_T: Sequence[float] | NDArray[np.float64],
    *,
    min_px: int = 1,
    max_megapixels: float = 100.0,
    change: Callable[[Pixels], Pixels] = np.asarray,
) -> Pixels:
    """The frames that are shown at some seconds: uint8 (T, H, W, C), upright, C = 1 or 3.

    Args:
        path: of the file.
        seconds_T: seconds from the first frame, in any order, repeats allowed; a second before the first frame gives
            the first, one after the end the last.
        min_px: videos with a shorter side are refused.
        max_megapixels: videos with larger frames are refused.
        change: what is done with each frame, say `decode.resize`, before the next is decoded: memory holds one in
            full size.

    Raises:
        InvalidImage: as `probe`, and "damaged" where a frame does not decode.
        OSError: the file cannot be read.
    """
    return read(path, lambda facts: seconds_T, min_px=min_px, max_megapixels=max_megapixels, change=change)[1]


def read(
    path: Path,
    choose: Callable[[VideoInfo], Sequence[float] | NDArray[np.float64]],
    *,
    min_px: int = 1,
    max_megapixels: float = 100.0,
    change: Callable[[Pixels], Pixels] = np.asarray,
) -> tuple[VideoInfo, Pixels]:
    """What `probe` says and what `frames_at` gives, with one opening: `choose` gives the seconds by the facts."""
    with _opened(path, min_px, max_megapixels, threads=1) as reader:
        facts, wanted = reader.facts, np.asarray(choose(reader.facts), dtype=np.float64)
        last_frame: VideoFrame | None = None
        pixels: Pixels | None = None
        pixels_of: dict[int, Pixels] = {}
        for i in np.argsort(wanted, kind="stable").tolist():
            frame = reader.frame_at(float(wanted[i]))
            if frame is not last_frame or pixels is None:
                last_frame, pixels = frame, change(reader.pixels(frame))
            pixels_of[i] = pixels
    return facts, np.stack([pixels_of[i] for i in range(len(wanted))])


def stream(
    path: Path,
    fps: float,
    *,
    start: float = 0.0,
    end: float = math.inf,
    min_px: int = 1,
    max_megapixels: float = 100.0,
    threads: int = 0,
) -> Iterator[tuple[float, Pixels]]:
    """(second, frame) at start, start + 1 / fps, ... before `end` or the video's end; memory does not grow with it.

    Args:
        path: of the file.
        fps: frames a second that are given, not those of the file: repeats or leaves out frames of the file.
        start: s from the first frame.
        end: s from the first frame; excluded.
        min_px: videos with a shorter side are refused.
        max_megapixels: videos with larger frames are refused.
        threads: of the decoder; 0: as many as it likes.

    Yields:
        The second asked for, and the frame that is shown then: uint8 (H, W, C), upright, C = 1 or 3; the same array
        again where the file's frame is still the same. Read it, do not write into it.

    Raises:
        InvalidImage: as `frames_at`.
        OSError: the file cannot be read.
    """
    with _opened(path, min_px, max_megapixels, threads) as reader:
        last_frame: VideoFrame | None = None
        pixels: Pixels | None = None
        number, last = 0, min(end, reader.facts.seconds)
        while (second := start + number / fps) < last:
            frame = reader.frame_at(second)
            if frame is not last_frame or pixels is None:
                last_frame, pixels = frame, reader.pixels(frame)
            yield second, pixels
            number += 1


@contextmanager
def _opened(path: Path, min_px: int, max_megapixels: float, threads: int) -> Iterator[VideoReader]:
    """An open video; an error of FFmpeg about a bad file becomes `InvalidImage`."""
    import av

    with path.open("rb") as file:  # what cannot be read at all is an OSError, not a matter of the content
        head = file.read(12)
    if not head:
        raise InvalidImage("empty file: 0 bytes")
    reader = None
    try:
        reader = VideoReader(path, int(max_megapixels * 1e6), threads)
        reader.judge(min_px, max_megapixels)
        yield reader
    except av.error.FFmpegError as error:
        if reader is None and head[4:8] == b"ftyp":
            raise InvalidImage("truncated: the index (moov) that an MP4 file ends with is missing or damaged") from None
        if reader is None:
            raise InvalidImage(f"not a video: begins with {head!r} ({error.strerror})") from None
        raise InvalidImage(f"damaged: {type(error).__name__}: {error.strerror}") from None
    except MemoryError:
        raise InvalidImage("too large: does not fit into memory") from None
    finally:
        if reader is not None:
            reader.container.close()
