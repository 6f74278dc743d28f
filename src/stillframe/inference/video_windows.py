"""Videos on their way to a model that answers clips: a short one as evaluate asked about it, a long one in windows.

A window has as many frames as a clip, evenly over its seconds. A long video is read once, in order; only the frames of
one window are kept, as the net is shown them, so that memory does not grow with its length.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from stillframe.inference.expand_paths import InputFile
from stillframe.inference.model_metadata import ModelMetadata
from stillframe.inference.onnx_model import shown
from stillframe.ingest.decode import DecodedImage, InvalidImage, Pixels
from stillframe.ingest.video.decode import VideoInfo, stream
from stillframe.ingest.video.views import ClipReader, container_of

LONGER = 2.0  # times the usual length: up to there a video is asked about as a whole


@dataclass(frozen=True, slots=True)
class VideoWindow:
    """A video, or a window of it.

    Attributes:
        path: as of `InputFile`.
        start: s from the first frame; None where nothing can be read.
        end: s; None as `start`.
        passed: s of the video that are done with this part.
        read: gives its clip or views, or raises Refused.
    """

    path: str
    start: float | None
    end: float | None
    passed: float
    read: Callable[[], DecodedImage]


@dataclass(frozen=True)
class WindowConfig:
    """How a video is cut; None: by the length of the model's clips.

    Attributes:
        seconds: of a window; set: every video is cut.
        stride: s from one begin to the next; rounded to whole frames.
    """

    seconds: float | None
    stride: float | None

    def __post_init__(self) -> None:
        """ValueError: a length that is none."""
        for name, value in (("--window", self.seconds), ("--stride", self.stride)):
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"{name} {value:g}: seconds, more than 0")

    def of(self, facts: ModelMetadata, seconds: float) -> tuple[float, float] | None:
        """Length and stride of the windows of a video of some seconds, s; None: it is asked about as a whole.

        As a whole where the clips that evaluate takes of a video see all of it; where they span it whatever its length,
        if it is at most `LONGER` times as long as what the model learned from.
        """
        usual, reach = facts.seconds, LONGER
        if facts.fps is not None:
            usual, reach = facts.frames / facts.fps, float(facts.views)
        length = self.seconds if self.seconds is not None else usual
        if length is None:
            if self.stride is not None:
                raise ValueError("--stride: this file does not say how long its clips are: give --window, too")
            return None
        if self.seconds is None and self.stride is None and seconds <= reach * length * 1.001:
            return None
        return length, self.stride if self.stride is not None else length


def parts(found: Iterable[InputFile], facts: ModelMetadata, cut: WindowConfig) -> Iterator[VideoWindow]:
    """The parts of all videos, in their order; of one that is refused midway those before, then one that says so."""
    for one in found:
        path, passed = Path(one.path), 0.0
        try:
            about = judged(one, facts)
            windows = cut.of(facts, about.seconds)
            if windows is None:
                yield VideoWindow(one.path, 0.0, about.seconds, about.seconds, partial(read_whole, path, facts))
                continue
            for start, end, clip in windows_of(path, about, facts, *windows):
                yield VideoWindow(one.path, start, end, end - passed, _known(_picture(clip, about)))
                passed = end
        except InvalidImage as refusal:
            yield VideoWindow(one.path, None, None, 0.0, _raising(refusal))


def judged(one: InputFile, facts: ModelMetadata) -> VideoInfo:
    """What a video is (InvalidImage: it is not answered)."""
    if one.problem:
        raise InvalidImage(one.problem)
    return reading(facts).judge(Path(one.path))


def reading(facts: ModelMetadata) -> ClipReader:
    """How the videos of a model are read."""
    return ClipReader(facts.frames, facts.fps, facts.views, facts.min_px, facts.max_megapixels)


def read_whole(path: Path, facts: ModelMetadata) -> DecodedImage:
    """The clips that evaluate takes of a video, preprocessed: (V, T, S, S, C) (InvalidImage: the reason)."""
    return reading(facts)(path, change=partial(shown, facts=facts))


def windows_of(
    path: Path, about: VideoInfo, facts: ModelMetadata, length: float, stride: float
) -> Iterator[tuple[float, float, Pixels]]:
    """(start, end, clip) in order of time: s, s, uint8 (T, S, S, C) as the net is shown it.

    The last window ends with the video. One longer than the video is as long as the video.

    Args:
        path: of the video.
        about: from its probe.
        facts: of the model.
        length: s, of a window.
        stride: s; at least one frame.

    Raises:
        InvalidImage: a frame does not decode.
    """
    step, frames = min(length, about.seconds) / facts.frames, facts.frames
    hop, most = max(1, round(stride / step)), facts.max_megapixels
    held: deque[Pixels] = deque(maxlen=frames)
    last, made, number, due = None, None, 0, frames
    ready: tuple[float, Pixels] | None = None  # begin and clip of a window that may turn out to be the last
    for _, image in stream(path, 1 / step, start=step / 2, min_px=facts.min_px, max_megapixels=most):
        if ready is not None:
            yield ready[0], ready[0] + frames * step, ready[1]
            ready = None
        if image is not last or made is None:
            last, made = image, shown(image, facts)
        held.append(made)
        number += 1
        if number == due:
            ready, due = ((number - frames) * step, np.stack(held)), due + hop
    if ready is None and held:
        held.extend([held[-1]] * (frames - len(held)))  # one frame too few by rounding
        ready = max(0.0, (number - frames) * step), np.stack(held)
    if ready is not None:
        yield ready[0], about.seconds, ready[1]


def _picture(clip: Pixels, about: VideoInfo) -> DecodedImage:
    return DecodedImage(
        clip, "L" if about.channels == 1 else "RGB", container_of(about), about.width, about.height, about.frames
    )


def _known(picture: DecodedImage) -> Callable[[], DecodedImage]:
    return lambda: picture


def _raising(refusal: InvalidImage) -> Callable[[], DecodedImage]:
    def read() -> DecodedImage:
        raise refusal

    return read
