"""The metadata of a model: everything besides its weights that decides its predictions, and where it came from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

PREFIX = "stillframe."  # of the keys in the file's metadata


@dataclass(frozen=True)
class ModelMetadata:
    """The metadata of an exported file; each field is one key `stillframe.<field>`, its value JSON.

    A field with a default may be absent from an older file; keys of older files that are no field any more are ignored.

    Attributes:
        task: name of the task.
        classes: names, in the order of the outputs; [] of targets without classes.
        size: px, of the square images that the network takes.
        channels: 1 or 3, of these images; images of 1 and of 3 channels are accepted.
        resize: squash, pad or crop.
        min_px: images with a shorter side below are not meant for it (`data.min_px`); refused by `predict`.
        max_megapixels: larger images are refused by `predict`, from their header.
        tta: the test-time views that are averaged: none, mirror or d4.
        temperature: what logits are divided by.
        threshold: probability of class 1 from which on it is predicted (two classes); None: the most probable class.
        net: name of the network.
        variant: fp32, or how it was made smaller.
        data: name of the dataset.
        data_hash: `split_hash` of its card.
        run_id: of the MLflow run; None when the record had not been taken.
        git_commit: of the training; None outside git.
        frames: of a clip; 1: the model takes images.
        fps: frames a second at which those of a clip are taken; None: spread over the whole video (and of images).
        sampling: how the frames of a clip are chosen, as `data.clip.sampling`; None of images.
        views: clips of a video that are averaged, as in evaluate; 1 of images.
        seconds: s, the median length of the videos of the training split; None of images.
        overlap: least share of a side that the tiles of a large image have in common, as `data.masks.overlap`; None:
            the whole image is resized.
        thresholds: probability of each output from which on it is predicted, of outputs that are decided one by one;
            [] is not written.
        target: what else the task's output needs of the dataset's card, e.g. the units of values; {} is not written.
    """

    task: str
    classes: list[str]
    size: int
    channels: int
    resize: str
    min_px: int
    max_megapixels: float
    tta: str
    temperature: float
    threshold: float | None
    net: str
    variant: str
    data: str
    data_hash: str
    run_id: str | None
    git_commit: str | None
    frames: int = 1
    fps: float | None = None
    sampling: str | None = None
    views: int = 1
    seconds: float | None = None
    overlap: float | None = None
    thresholds: list[float] = field(default_factory=list)
    target: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """All fields by name, without what this model does not have."""
        absent = {name for name in ("thresholds", "target") if not getattr(self, name)}
        return {name: value for name, value in asdict(self).items() if name not in absent}

    def to_text(self) -> dict[str, str]:
        """The fields as text by key, for the file."""
        return {f"{PREFIX}{name}": json.dumps(value, ensure_ascii=False) for name, value in self.to_json().items()}

    @classmethod
    def read(cls, metadata: Mapping[str, str], origin: str) -> ModelMetadata:
        """From a file's metadata.

        Raises:
            ValueError: the file is not one of ours, or a value is damaged; names `origin`.
        """
        values: dict[str, Any] = {}
        for entry in fields(cls):
            text = metadata.get(PREFIX + entry.name)
            if text is None and (entry.default is not MISSING or entry.default_factory is not MISSING):
                continue  # older files do not have it
            if text is None:
                raise ValueError(f"{origin} says no {PREFIX}{entry.name}: not a file that stillframe exported")
            try:
                values[entry.name] = json.loads(text)
            except json.JSONDecodeError:
                raise ValueError(
                    f"{origin}: {PREFIX}{entry.name} = {text[:80]!r} is not JSON: export it anew"
                ) from None
        return cls(**values)


def digest_of(path: Path) -> str:
    """The sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
