"""A video with its answers drawn into it: the class and its probability, and the whole timeline under the picture.

Frame by frame through PyAV: memory does not grow with the length. The timeline is known only once all windows are
answered, so the video is read a second time.
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
from stillframe.inference.model_metadata import ModelMetadata
from stillframe.ingest.decode import Pixels, to_channels
from stillframe.ingest.video.decode import probe, stream
from stillframe.paths import replacing

LEAST_WIDTH = 320  # px; a smaller video is enlarged, so that the words can be read
FPS = 25.0  # of a video that does not say its own
TICKS = 90_000  # a second, of the written file's clock
ENCODERS = (("h264", {"crf": "23", "preset": "veryfast"}), ("mpeg4", {"q": "4"}))  # the first that is there


@dataclass(frozen=True)
class WindowPrediction:
    """What is said of a part of a video.

    Attributes:
        start: s.
        end: s.
        probability_K: float32.
        decision: class index.
    """

    start: float
    end: float
    probability_K: NDArray[np.floating[Any]]
    decision: int


def annotate(source: Path, told: Sequence[WindowPrediction], facts: ModelMetadata, to: Path) -> None:
    """Write `to`, an mp4 without sound; at each moment the answer whose middle is nearest is drawn.

    Args:
        source: the video.
        told: in order of time, at least one.
        facts: of the model: classes, and what videos are refused.
        to: written whole or not at all.

    Raises:
        Refused: the video cannot be read any more. OSError: `to` cannot be written.
    """
    import av

    about = probe(source, max_megapixels=facts.max_megapixels)
    scale = max(1, math.ceil(LEAST_WIDTH / about.width))
    width, height = 2 * math.ceil(about.width * scale / 2), 2 * math.ceil(about.height * scale / 2)
    band = 2 * max(4, height // 36)  # px, of the timeline under the picture
    line = timeline(told, about.seconds, width, band)
    turns, letters = _turns(told), max(MIN_PX, height // 30)
    with replacing(to) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        film = _encoder(container, about.fps or FPS, width, height + band)
        for second, image in stream(source, about.fps or FPS, max_megapixels=facts.max_megapixels):
            one = told[int(np.searchsorted(turns, second))]
            picture, share = _fitted(image, scale, height, width), float(one.probability_K[one.decision])
            text = f"{' '.join(facts.classes[one.decision].split())[:40]}  {round(100 * share)} %"
            _stamp(picture, caption(text, series_color(one.decision), letters))
            frame = av.VideoFrame.from_ndarray(
                np.concatenate([picture, _played(line, second / about.seconds)]), "rgb24"
            )
            frame.pts, frame.time_base = round(second * TICKS), Fraction(1, TICKS)
            container.mux(film.encode(frame))
        container.mux(film.encode())


def _encoder(container: Any, fps: float, width: int, height: int) -> Any:
    """A stream of the first encoder that this build of FFmpeg has."""
    import av

    for name, options in ENCODERS:
        if name in av.codecs_available:
            film = container.add_stream(name, rate=Fraction(fps).limit_denominator(1001), options=options)
            film.width, film.height, film.pix_fmt = width, height, "yuv420p"
            film.codec_context.time_base = Fraction(1, TICKS)
            return film
    raise ValueError("--annotate: this build of PyAV writes neither h264 nor mpeg4")


def _fitted(image: Pixels, scale: int, height: int, width: int) -> Pixels:
    """RGB, enlarged by a whole factor, its last row and column repeated to an even size; a fresh array."""
    large = np.repeat(np.repeat(to_channels(image, 3), scale, axis=0), scale, axis=1)
    return np.pad(large, ((0, height - large.shape[0]), (0, width - large.shape[1]), (0, 0)), mode="edge")


def _turns(told: Sequence[WindowPrediction]) -> NDArray[np.float64]:
    """When, in s, the next answer's middle becomes the nearer one: one less than there are answers."""
    middles = np.array([(one.start + one.end) / 2 for one in told])
    return np.asarray((middles[1:] + middles[:-1]) / 2)


def timeline(told: Sequence[WindowPrediction], seconds: float, width: int, height: int) -> Pixels:
    """uint8 (height, width, 3): the class by colour over the time, paler where it is less probable."""
    at_W = (np.arange(width) + 0.5) / width * seconds
    colour_N3 = np.array([series_color(one.decision) for one in told], dtype=np.float64)
    sure_N1 = np.array([[float(one.probability_K[one.decision])] for one in told])
    shown_N3 = (colour_N3 * sure_N1 + 255 * (1 - sure_N1)).round().astype(np.uint8)
    return np.repeat(shown_N3[np.searchsorted(_turns(told), at_W)][None], height, axis=0)


def _played(line: Pixels, share: float) -> Pixels:
    """The timeline with a mark at the share of it that has passed."""
    out, at = line.copy(), min(line.shape[1] - 1, int(share * line.shape[1]))
    out[:, max(0, at - 2) : at + 3] = 255
    out[:, max(0, at - 1) : at + 2] = 0
    return out


def _stamp(picture: Pixels, words: Pixels) -> None:
    """Lay the words over the upper left corner, in place."""
    height, width = min(words.shape[0], picture.shape[0]), min(words.shape[1], picture.shape[1])
    picture[:height, :width] = words[:height, :width]
