"""What `predict` asks a model about: images, or videos whole and in windows; which of them, the model's facts say."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from stillframe.inference.expand_paths import InputFile, find
from stillframe.inference.model_metadata import ModelMetadata
from stillframe.inference.stream import InferenceResult
from stillframe.inference.video_windows import VideoWindow, WindowConfig, judged, parts
from stillframe.ingest.decode import DecodedImage, InvalidImage
from stillframe.ingest.read_image import read_image


class InputSource(Protocol):
    """Where the things that are asked about come from, and what a row says of them.

    Attributes:
        word: what is looked for, in the plural.
        unit: what is answered, in the plural.
        step: of the progress bar, in the plural.
        batch: asked at a time, where nobody says otherwise.
        columns: of a row, besides those that every row has.
    """

    word: str
    unit: str
    step: str
    batch: int
    columns: Sequence[str]

    def total(self, paths: Sequence[str], *, quick: bool) -> int:
        """How much there is to do, in steps of the progress bar; `quick`: only whether there is anything (0: no)."""

    def names(self, paths: Sequence[str], ignored: Counter[str]) -> Iterator[Any]:
        """What is asked about, each with a `path`; what is passed over is counted."""

    def read(self, name: Any) -> DecodedImage:
        """Its pixels (InvalidImage: with the reason)."""

    def place(self, name: Any) -> dict[str, Any]:
        """Its values in `columns`."""

    def answered(self, one: InferenceResult[Any]) -> int:
        """Take note of an answer; the steps of the progress bar that are done with it."""

    def end(self) -> None:
        """All are answered."""


class ImageInputs:
    """Image files, one answer each."""

    word, unit, step = "images", "images", "images"
    batch = 32
    columns: Sequence[str] = ()

    def __init__(self, facts: ModelMetadata, cut: WindowConfig, annotate: Path | None) -> None:
        """ValueError: an argument that is about videos."""
        self.facts = facts
        given = {"--window": cut.seconds, "--stride": cut.stride, "--annotate": annotate}
        for name, value in given.items():
            if value is not None:
                raise ValueError(f"{name} is about videos: this model ({facts.net}) answers images")

    def total(self, paths: Sequence[str], *, quick: bool) -> int:
        """Files."""
        return sum(1 for _ in find(paths, Counter()))

    def names(self, paths: Sequence[str], ignored: Counter[str]) -> Iterator[InputFile]:
        """The files."""
        return find(paths, ignored)

    def read(self, name: InputFile) -> DecodedImage:
        """Decoded by preprocessing's rule."""
        if name.problem:
            raise InvalidImage(name.problem)
        return read_image(Path(name.path), min_px=self.facts.min_px, max_megapixels=self.facts.max_megapixels)

    def place(self, name: InputFile) -> dict[str, Any]:
        """Nothing more."""
        return {}

    def answered(self, one: InferenceResult[InputFile]) -> int:
        """One file is one step."""
        return 1

    def end(self) -> None:
        """Nothing to do."""


class VideoInputs:
    """Videos: short ones as evaluate asked about them, long ones in windows. A step is a second."""

    word, unit, step = "videos", "windows", "seconds"
    batch = 4
    columns: Sequence[str] = ("start", "end")

    def __init__(self, facts: ModelMetadata, cut: WindowConfig, annotate: Path | None) -> None:
        self.facts, self.cut, self.folder = facts, cut, annotate
        self.passed, self.drawn = 0.0, 0
        self.told: list[InferenceResult[VideoWindow]] = []

    def total(self, paths: Sequence[str], *, quick: bool) -> int:
        """Whole seconds of all videos; of those that are refused 0."""
        found, seconds = 0, 0.0
        for one in find(paths, Counter(), videos=True):
            found += 1
            if quick:
                break
            try:
                seconds += judged(one, self.facts).seconds
            except InvalidImage:
                continue
        return max(1, int(seconds)) if found else 0

    def names(self, paths: Sequence[str], ignored: Counter[str]) -> Iterator[VideoWindow]:
        """The videos and windows."""
        return parts(find(paths, ignored, videos=True), self.facts, self.cut)

    def read(self, name: VideoWindow) -> DecodedImage:
        """Its clip, or views."""
        return name.read()

    def place(self, name: VideoWindow) -> dict[str, Any]:
        """From where to where, s."""
        start, end = name.start, name.end
        return {
            "start": None if start is None else round(start, 3),
            "end": None if end is None else round(end, 3),
        }

    def answered(self, one: InferenceResult[VideoWindow]) -> int:
        """Seconds, whole ones; draws the video before, when this is another."""
        if self.folder is not None:
            if self.told and self.told[0].name.path != one.name.path:
                self._annotate()
            if not one.reason:
                self.told.append(replace(one, picture=None))
        before, self.passed = self.passed, self.passed + one.name.passed
        return int(self.passed) - int(before)

    def end(self) -> None:
        """Draw the last video."""
        if self.told:
            self._annotate()

    def _annotate(self) -> None:
        from stillframe.inference.annotate_video import WindowPrediction, annotate

        assert self.folder is not None
        told = [
            WindowPrediction(one.name.start, one.name.end, one.probability_K, one.decision)
            for one in self.told
            if one.name.start is not None and one.name.end is not None and one.probability_K is not None
        ]
        source, self.told, self.drawn = Path(self.told[0].name.path), [], self.drawn + 1
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            annotate(source, told, self.facts, self.folder / f"{self.drawn:04d}_{plain(source.stem)}.mp4")
        except InvalidImage as refusal:  # its rows say so too
            print(f"annotate: {source}: {refusal}", file=sys.stderr)


def plain(name: str) -> str:
    """A file's name as part of another's: letters, digits, dots and dashes."""
    return re.sub(r"[^\w.-]+", "_", name)[:80]


def asked_of(facts: ModelMetadata, cut: WindowConfig, annotate: Path | None) -> InputSource:
    """What a model of these facts is asked about (ValueError: an argument that does not fit)."""
    return ImageInputs(facts, cut, annotate) if facts.frames == 1 else VideoInputs(facts, cut, annotate)
