"""A video with its predictions drawn into it: a caption, and the whole timeline below the frames.

Frame by frame through PyAV: memory does not grow with the length. The timeline is known only once all windows are
predicted, so the video is read a second time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stillframe.drawing.text import MIN_PX, caption, series_color
from stillframe.ingest.decode import Pixels, to_channels
from stillframe.ingest.video.decode import probe, stream
from stillframe.paths import replacing
from stillframe.tasks.base_output import Caption

MIN_WIDTH = 320  # px; a smaller video is enlarged, so that the caption can be read
DEFAULT_FPS = 25.0  # of a video that does not say its own
TICKS = 90_000  # a second, of the written file's clock
ENCODERS = (("h264", {"crf": "23", "preset": "veryfast"}), ("mpeg4", {"q": "4"}))  # the first that is there


@dataclass(frozen=True)
class CaptionedWindow:
    """A part of a video, from start to end in s, and its caption."""

    start: float
    end: float
    caption: Caption


def annotate(source: Path, windows: Sequence[CaptionedWindow], target: Path, *, max_megapixels: float) -> None:
    """Write `target`, an mp4 without sound; at each moment the caption of the window with the nearest middle is drawn.

    Args:
        source: the video.
        windows: in order of time, at least one.
        target: written whole or not at all.
        max_megapixels: larger videos are refused.

    Raises:
        InvalidImage: the video cannot be read any more. OSError: `target` cannot be written.
    """
    import av

    info = probe(source, max_megapixels=max_megapixels)
    scale, fps = max(1, math.ceil(MIN_WIDTH / info.width)), info.fps or DEFAULT_FPS
    width, height = 2 * math.ceil(info.width * scale / 2), 2 * math.ceil(info.height * scale / 2)
    band = 2 * max(4, height // 36)  # px, of the timeline below the frames
    line, letters, changes = timeline(windows, info.seconds, width, band), max(MIN_PX, height // 30), _changes(windows)
    with replacing(target) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        encoder = _encoder(container, fps, width, height + band)
        for second, image in stream(source, fps, max_megapixels=max_megapixels):
            text = windows[int(np.searchsorted(changes, second))].caption
            # enlarged by a whole factor, its last row and column repeated to an even size
            large = np.repeat(np.repeat(to_channels(image, 3), scale, axis=0), scale, axis=1)
            pixels = np.pad(large, ((0, height - large.shape[0]), (0, width - large.shape[1]), (0, 0)), mode="edge")
            stamp = caption(text.text, series_color(text.color), letters)[:height, :width]
            pixels[: stamp.shape[0], : stamp.shape[1]] = stamp
            below = _with_cursor(line, second / info.seconds)
            frame = av.VideoFrame.from_ndarray(np.concatenate([pixels, below]), "rgb24")
            frame.pts, frame.time_base = round(second * TICKS), Fraction(1, TICKS)
            container.mux(encoder.encode(frame))
        container.mux(encoder.encode())


def _encoder(container: Any, fps: float, width: int, height: int) -> Any:
    """A stream of the first encoder that this build of FFmpeg has."""
    import av

    for name, options in ENCODERS:
        if name in av.codecs_available:
            encoder = container.add_stream(name, rate=Fraction(fps).limit_denominator(1001), options=options)
            encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
            encoder.codec_context.time_base = Fraction(1, TICKS)
            return encoder
    raise ValueError("--annotate: this build of PyAV writes neither h264 nor mpeg4")


def _changes(windows: Sequence[CaptionedWindow]) -> NDArray[np.float64]:
    """When, in s, the next window's middle becomes the nearer one: one less than there are windows."""
    middles = np.array([(window.start + window.end) / 2 for window in windows])
    return np.asarray((middles[1:] + middles[:-1]) / 2)


def timeline(windows: Sequence[CaptionedWindow], seconds: float, width: int, height: int) -> Pixels:
    """uint8 (height, width, 3): the captions' colours over the time, paler where a caption is weaker."""
    second_W = (np.arange(width) + 0.5) / width * seconds
    color_N3 = np.array([series_color(window.caption.color) for window in windows], dtype=np.float64)
    strength_N1 = np.array([[window.caption.strength] for window in windows])
    mixed_N3 = (color_N3 * strength_N1 + 255 * (1 - strength_N1)).round().astype(np.uint8)
    return np.repeat(mixed_N3[np.searchsorted(_changes(windows), second_W)][None], height, axis=0)


def _with_cursor(line: Pixels, share: float) -> Pixels:
    """The timeline with a mark at the share of it that has passed."""
    out, column = line.copy(), min(line.shape[1] - 1, int(share * line.shape[1]))
    out[:, max(0, column - 2) : column + 3] = 255
    out[:, max(0, column - 1) : column + 2] = 0
    return out
