"""What an exported file says of itself: everything that decides its answers, and where it came from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

PREFIX = "stillframe."  # of the keys in the file's metadata


@dataclass(frozen=True)
class ModelMetadata:
    """The metadata of an exported file; each field is one key `stillframe.<field>`, its value JSON.

    A field with a default may be absent: older files say nothing of it.

    Attributes:
        task: name of the task.
        classes: names, in the order of the probabilities.
        size: px, of the square pictures that the net is shown.
        frames: of a clip; 1: the model answers images.
        fps: frames a second at which those of a clip are taken; None: spread over the whole video (and of images).
        sampling: how the frames of a clip are chosen, as `data.clip.sampling`; None of images.
        views: clips of a video whose logits are averaged, as in evaluate; 1 of images.
        seconds: s, the median length of the videos that it learned from; None of images.
        answer: what it answers: "label", a class; "mask", a class for each pixel.
        overlap: least share of a side that the tiles of a large image have in common, as `data.masks.overlap`; None:
            the whole image is resized.
        channels: 1 or 3, of these pictures; images of 1 and of 3 channels are taken.
        resize: squash, pad or crop.
        min_px: images with a shorter side below are not meant for it (`data.min_px`); refused by `predict`.
        max_megapixels: larger images are refused by `predict`, from their header.
        tta: the views whose logits are averaged: none, mirror or d4.
        temperature: what logits are divided by.
        threshold: probability of class 1 from which on it is the answer (two classes); None: the most probable class.
        net: name of the net.
        variant: fp32, or how it was made smaller.
        data: name of the data set.
        data_hash: `split_hash` of its card.
        run_id: of the MLflow run; None when the record had not been taken.
        git_commit: of the training; None outside git.
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
    answer: str = "label"
    overlap: float | None = None

    def metadata(self) -> dict[str, str]:
        """As text by key, for the file."""
        return {f"{PREFIX}{key}": json.dumps(value, ensure_ascii=False) for key, value in asdict(self).items()}

    @classmethod
    def read(cls, metadata: Mapping[str, str], origin: str) -> ModelMetadata:
        """From a file's metadata.

        Raises:
            ValueError: the file is not one of ours, or a value is damaged; names `origin`.
        """
        values: dict[str, Any] = {}
        for field in fields(cls):
            text = metadata.get(PREFIX + field.name)
            if text is None and field.default is not MISSING:
                continue
            if text is None:
                raise ValueError(f"{origin} says no {PREFIX}{field.name}: not a file that stillframe exported")
            try:
                values[field.name] = json.loads(text)
            except json.JSONDecodeError:
                raise ValueError(
                    f"{origin}: {PREFIX}{field.name} = {text[:80]!r} is not JSON: export it anew"
                ) from None
        return cls(**values)


def digest_of(path: Path) -> str:
    """The sha256 of a file: which one it was that answered."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
