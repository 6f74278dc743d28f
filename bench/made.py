"""Made images and the folders that the rows work in; nothing here is timed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from bench.measuring import ROOT
from numpy.typing import NDArray
from PIL import Image

from stillframe import config
from stillframe.config.hydra_compose import compose

CLASSES = ("ash", "birch", "cedar", "elm")


def photograph(number: int, side: int, channels: int) -> NDArray[np.uint8]:
    """uint8 (side, side, channels) with the falling spectrum and the noise of a photograph; all numbers differ."""
    random = np.random.default_rng(number)
    image = np.zeros((side, side, channels), dtype=np.float32)
    for octave in (3, 9, 27, 81):
        coarse = random.integers(0, 256, (min(octave, side), min(octave, side), 3), dtype=np.uint8)
        large = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
        image += np.asarray(large, dtype=np.float32)[:, :, :channels] / octave**0.5
    image += random.normal(0, 4, image.shape)
    image -= image.min()
    return np.asarray(image * (255 / image.max()), dtype=np.uint8)


def class_folders(folder: Path, count: int, side: int, channels: int) -> Path:
    """A tree of class folders: JPEG of quality 90 in colour, PNG in gray."""
    for number in range(count):
        image = photograph(number, side, channels)
        place = folder / CLASSES[number % len(CLASSES)]
        place.mkdir(parents=True, exist_ok=True)
        if channels == 3:
            Image.fromarray(image).save(place / f"{number:06d}.jpg", quality=90)
        else:
            Image.fromarray(image[:, :, 0]).save(place / f"{number:06d}.png")
    return folder


def prepared(folder: Path, *, train: int, val: int, side: int, channels: int, classes: int) -> Path:
    """data/prepared as the stage leaves it (raw uint8), made without files; a block of images is repeated."""
    from stillframe.store.columns import TargetColumn
    from stillframe.store.split import SplitWriter
    from stillframe.types import SPLITS, DatasetCard

    images = [photograph(number, side, channels).tobytes() for number in range(256)]
    counts, targets = {}, [TargetColumn("label", "int")]
    for split, size in zip(SPLITS, (train, val, val), strict=True):
        with SplitWriter(
            folder / split,
            height=side,
            width=side,
            channels=channels,
            encoding="raw",
            targets=targets,
        ) as writer:
            for first in range(0, size, 512):
                block = range(first, min(first + 512, size))
                writer.write([_row(split, number, number % classes, side, images[number % 256]) for number in block])
        counts[split] = {str(label): len(range(label, size, classes)) for label in range(classes)}
    names = [str(label) for label in range(classes)]
    card = DatasetCard("made", names, counts, channels, side, side, [0.5] * channels, [0.2] * channels, [], "0" * 64)
    card.write(folder / "card.json")
    return folder


def _row(split: str, number: int, label: int, side: int, image: bytes) -> dict[str, Any]:
    name = f"{split}/{number}"
    row = {"id": name, "label": label, "weight": 1.0, "group": name, "source_id": name, "source_width": side}
    return {**row, "source_height": side, "source_mode": "RGB", "slices": "{}", "image": image}


def sections(*overrides: str) -> dict[str, Any]:
    """The sections of conf/ with overrides, as dataclasses."""
    values = compose(list(overrides), ROOT / "conf")
    return {name: config.build(name, value) for name, value in values.items()}


def plan(folder: Path, threads: int, *overrides: str) -> Any:
    """The arguments of `loop.Training` for `folder`/data/prepared, on the CPU, with so many threads."""
    from stillframe.training.spec import TrainingSpec
    from stillframe.types import DatasetCard

    made = sections(*overrides)
    trainer = replace(made["trainer"], threads=threads, accelerator="cpu", early_stopping=None)
    data = folder / "data/prepared"
    given = {name: made[name] for name in ("task", "seed", "augment", "model", "optim")}
    card, augmented = DatasetCard.read(data / "card.json"), folder / "data/augmented"
    spec = TrainingSpec(
        **given, trainer=trainer, card=card, train=data / "train", val=data / "val", augmented=augmented
    )
    return spec, made["tracking"], folder / "artifacts"
