"""Videos on their way to a model of clips: a short one as evaluate reads it, a long one in windows.

A window has as many frames as a clip, evenly over its seconds. A long video is read once, in order; only the frames of
one window are kept, preprocessed, so that memory does not grow with its length.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from stillframe.inference.expand_paths import InputFile
from stillframe.inference.predictor import preprocess
from stillframe.ingest.decode import DecodedImage, InvalidImage, Pixels
from stillframe.ingest.video.decode import VideoInfo, stream
from stillframe.ingest.video.views import ClipReader, container_of
from stillframe.model_metadata import ModelMetadata

MAX_STRETCH = 2.0  # times the usual length: up to there a video is predicted as a whole


@dataclass(frozen=True, slots=True)
class VideoWindow:
    """A video, or a window of it.

    Attributes:
        path: as of `InputFile`.
        start: s from the first frame; None where nothing can be read.
        end: s; None as `start`.
        seconds: of the video that are done with this window and were not before.
        read: gives its clip or views, or raises InvalidImage.
    """

    path: str
    start: float | None
    end: float | None
    seconds: float
    read: Callable[[], DecodedImage]


@dataclass(frozen=True)
class WindowConfig:
    """How a video is cut; None: by the length of the model's clips.

    Attributes:
        seconds: of a window; set: every video is cut.
        stride: s from one start to the next; rounded to whole frames.
    """

    seconds: float | None = None
    stride: float | None = None

    def __post_init__(self) -> None:
        """ValueError: a length that is none."""
        for name, value in (("--window", self.seconds), ("--stride", self.stride)):
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"{name} {value:g}: seconds, more than 0")

    def lengths(self, metadata: ModelMetadata, seconds: float) -> tuple[float, float] | None:
        """Length and stride of the windows of a video of some seconds, s; None: it is predicted as a whole.

        As a whole where the clips that evaluate takes of a video see all of it; where they span it whatever its length,
        if it is at most `MAX_STRETCH` times as long as the training videos.
        """
        usual, reach = metadata.seconds, MAX_STRETCH
        if metadata.fps is not None:
            usual, reach = metadata.frames / metadata.fps, float(metadata.views)
        length = self.seconds if self.seconds is not None else usual
        if length is None:
            if self.stride is not None:
                raise ValueError("--stride: this file does not say how long its clips are: give --window, too")
            return None
        if self.seconds is None and self.stride is None and seconds <= reach * length * 1.001:
            return None
        return length, self.stride if self.stride is not None else length


def video_windows(files: Iterable[InputFile], metadata: ModelMetadata, config: WindowConfig) -> Iterator[VideoWindow]:
    """The windows of all videos, in order; of a video that is refused midway those before, then one that raises."""

    def refuse(refusal: InvalidImage) -> DecodedImage:
        raise refusal

    for file in files:
        path, done = Path(file.path), 0.0
        try:
            info = check_video(file, metadata)
            lengths = config.lengths(metadata, info.seconds)
            if lengths is None:
                read = partial(read_whole, path, metadata)
                yield VideoWindow(file.path, 0.0, info.seconds, info.seconds, read)
                continue
            mode, container = "L" if info.channels == 1 else "RGB", container_of(info)
            for start, end, clip in windows_of(path, info, metadata, *lengths):
                image = partial(DecodedImage, clip, mode, container, info.width, info.height, info.frames)
                yield VideoWindow(file.path, start, end, end - done, image)
                done = end
        except InvalidImage as refusal:
            yield VideoWindow(file.path, None, None, 0.0, partial(refuse, refusal))


def check_video(file: InputFile, metadata: ModelMetadata) -> VideoInfo:
    """What a video is (InvalidImage: it is refused)."""
    if file.problem:
        raise InvalidImage(file.problem)
    return _reader(metadata).judge(Path(file.path))


def _reader(metadata: ModelMetadata) -> ClipReader:
    return ClipReader(metadata.frames, metadata.fps, metadata.views, metadata.min_px, metadata.max_megapixels)


def read_whole(path: Path, metadata: ModelMetadata) -> DecodedImage:
    """The clips that evaluate takes of a video, preprocessed: (V, T, S, S, C) (InvalidImage: the reason)."""
    return _reader(metadata)(path, change=partial(preprocess, metadata=metadata))


def windows_of(
    path: Path, info: VideoInfo, metadata: ModelMetadata, length: float, stride: float
) -> Iterator[tuple[float, float, Pixels]]:
    """(start, end, clip) in order of time: s, s, uint8 (T, S, S, C), preprocessed.

    The last window ends with the video. One longer than the video is as long as the video.

    Args:
        path: of the video.
        info: from its probe.
        metadata: of the model.
        length: s, of a window.
        stride: s; at least one frame.

    Raises:
        InvalidImage: a frame does not decode.
    """
    step, frames = min(length, info.seconds) / metadata.frames, metadata.frames
    hop, min_px, max_megapixels = max(1, round(stride / step)), metadata.min_px, metadata.max_megapixels
    window: deque[Pixels] = deque(maxlen=frames)
    last, prepared, count, next_end = None, None, 0, frames
    ready: tuple[float, Pixels] | None = None  # start and clip of a window that may turn out to be the last
    for _, image in stream(path, 1 / step, start=step / 2, min_px=min_px, max_megapixels=max_megapixels):
        if ready is not None:
            yield ready[0], ready[0] + frames * step, ready[1]
            ready = None
        if image is not last or prepared is None:  # a frame that stands still is preprocessed once
            last, prepared = image, preprocess(image, metadata)
        window.append(prepared)
        count += 1
        if count == next_end:
            ready, next_end = ((count - frames) * step, np.stack(window)), next_end + hop
    if ready is None and window:
        window.extend([window[-1]] * (frames - len(window)))  # one frame too few by rounding
        ready = max(0.0, (count - frames) * step), np.stack(window)
    if ready is not None:
        yield ready[0], info.seconds, ready[1]
