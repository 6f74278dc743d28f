"""Input sources for `predict`: images, whole videos or video windows, chosen by the model's metadata."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from stillframe.inference.expand_paths import InputFile, expand_paths
from stillframe.inference.stream import InferenceResult
from stillframe.inference.video_windows import VideoWindow, WindowConfig, check_video, video_windows
from stillframe.ingest.decode import DecodedImage, InvalidImage
from stillframe.ingest.read_image import read_image
from stillframe.model_metadata import ModelMetadata
from stillframe.tasks import find_task


class InputSource(Protocol):
    """Where inputs come from, and what a row says of them.

    Attributes:
        noun: of the files, in the plural.
        item_noun: of what gets a prediction, in the plural.
        progress_noun: of the steps of the progress bar, in the plural.
        batch_size: predicted together unless the user says otherwise.
        columns: of a row, besides those that every row has.
    """

    noun: str
    item_noun: str
    progress_noun: str
    batch_size: int
    columns: Mapping[str, type]

    def total(self, paths: Sequence[str], *, quick: bool) -> int:
        """How much there is to do, in steps of the progress bar; `quick`: only whether there is anything (0: no)."""

    def items(self, paths: Sequence[str], ignored: Counter[str]) -> Iterator[Any]:
        """What gets a prediction, each with a `path`; files that are passed over are counted in `ignored`."""

    def read(self, item: Any) -> DecodedImage:
        """Its pixels (InvalidImage: with the reason)."""

    def values(self, item: Any) -> dict[str, Any]:
        """Its values in `columns`."""

    def finish(self, result: InferenceResult[Any]) -> int:
        """Take note of a result; the steps of the progress bar that are done with it."""

    def end(self) -> None:
        """There are no more results."""


class ImageInputs:
    """Image files, one prediction each."""

    noun, item_noun, progress_noun = "images", "images", "images"
    batch_size = 32
    columns: Mapping[str, type] = {}

    def __init__(self, metadata: ModelMetadata) -> None:
        self.metadata = metadata

    def total(self, paths: Sequence[str], *, quick: bool) -> int:
        """Files."""
        return sum(1 for _ in expand_paths(paths, Counter()))

    def items(self, paths: Sequence[str], ignored: Counter[str]) -> Iterator[InputFile]:
        """The files."""
        return expand_paths(paths, ignored)

    def read(self, item: InputFile) -> DecodedImage:
        """Decoded by preprocessing's rule."""
        if item.problem:
            raise InvalidImage(item.problem)
        metadata = self.metadata
        return read_image(Path(item.path), min_px=metadata.min_px, max_megapixels=metadata.max_megapixels)

    def values(self, item: InputFile) -> dict[str, Any]:
        """No more columns."""
        return {}

    def finish(self, result: InferenceResult[InputFile]) -> int:
        """One file is one step."""
        return 1

    def end(self) -> None:
        """Nothing to do."""


class VideoInputs:
    """Videos: short ones as evaluate reads them, long ones in windows. A step is a second."""

    noun, item_noun, progress_noun = "videos", "windows", "seconds"
    batch_size = 4
    columns: Mapping[str, type] = {"start": float, "end": float}

    def __init__(self, metadata: ModelMetadata, windows: WindowConfig, annotate: Path | None) -> None:
        self.metadata, self.windows, self.folder = metadata, windows, annotate
        self.seconds_done, self.annotated = 0.0, 0
        self.pending: list[InferenceResult[VideoWindow]] = []  # of the video that is being predicted

    def total(self, paths: Sequence[str], *, quick: bool) -> int:
        """Whole seconds of all videos; of those that are refused 0."""
        files, seconds = 0, 0.0
        for file in expand_paths(paths, Counter(), videos=True):
            files += 1
            if quick:
                break
            try:
                seconds += check_video(file, self.metadata).seconds
            except InvalidImage:
                continue
        return max(1, int(seconds)) if files else 0

    def items(self, paths: Sequence[str], ignored: Counter[str]) -> Iterator[VideoWindow]:
        """The videos and windows."""
        return video_windows(expand_paths(paths, ignored, videos=True), self.metadata, self.windows)

    def read(self, item: VideoWindow) -> DecodedImage:
        """Its clip, or views."""
        return item.read()

    def values(self, item: VideoWindow) -> dict[str, Any]:
        """From where to where, s."""
        times = {"start": item.start, "end": item.end}
        return {name: None if second is None else round(second, 3) for name, second in times.items()}

    def finish(self, result: InferenceResult[VideoWindow]) -> int:
        """Whole seconds; annotates the video before, when this is another."""
        if self.folder is not None:
            if self.pending and self.pending[0].name.path != result.name.path:
                self._annotate()
            if not result.reason:
                self.pending.append(replace(result, image=None))
        before, self.seconds_done = self.seconds_done, self.seconds_done + result.name.seconds
        return int(self.seconds_done) - int(before)

    def end(self) -> None:
        """Annotate the last video."""
        if self.pending:
            self._annotate()

    def _annotate(self) -> None:
        from stillframe.inference.annotate_video import CaptionedWindow, annotate

        assert self.folder is not None
        output = find_task(self.metadata.task).output
        windows = [
            CaptionedWindow(
                result.name.start or 0.0, result.name.end or 0.0, output.caption(result.prediction, self.metadata)
            )
            for result in self.pending
        ]
        source, self.pending, self.annotated = Path(self.pending[0].name.path), [], self.annotated + 1
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            target = self.folder / f"{self.annotated:04d}_{safe_name(source.stem)}.mp4"
            annotate(source, windows, target, max_megapixels=self.metadata.max_megapixels)
        except InvalidImage as refusal:  # its rows say so too
            print(f"annotate: {source}: {refusal}", file=sys.stderr)


def safe_name(name: str) -> str:
    """A file's name as part of another's: letters, digits, dots and dashes."""
    return re.sub(r"[^\w.-]+", "_", name)[:80]


def input_source(metadata: ModelMetadata, windows: WindowConfig, annotate: Path | None) -> InputSource:
    """The inputs of a model (ValueError: an option that does not fit it)."""
    if metadata.frames > 1:
        return VideoInputs(metadata, windows, annotate)
    can_draw = "overlay" in find_task(metadata.task).output.columns(metadata)
    options = {"--window": windows.seconds, "--stride": windows.stride, "--annotate": None if can_draw else annotate}
    for name, value in options.items():
        if value is not None:
            raise ValueError(f"{name} is about videos: this model ({metadata.net}) answers images")
    return ImageInputs(metadata)
