"""Row 16: what a segmentation epoch waits for."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from bench.made import photograph, plan
from bench.measuring import Result, Setting

CLASSES = ["ground", "first", "second"]


def masked(folder: Path, *, train: int, val: int, side: int, channels: int) -> Path:
    """data/prepared with masks, as the stage leaves it (raw uint8), made without files; 64 images are repeated."""
    from stillframe.store.columns import TargetColumn
    from stillframe.store.split import SplitWriter
    from stillframe.types import SPLITS, DatasetCard

    pairs = []
    for number in range(64):
        image = photograph(number, side, channels)
        mask = (image.mean(axis=2) // 86).astype(np.uint8)
        pairs.append({"image": image.tobytes(), "mask": mask.tobytes()})
    meta = {"height": side, "width": side, "channels": channels, "encoding": "raw"}
    targets = [TargetColumn("label", "int"), TargetColumn("mask", "map")]
    for split, size in zip(SPLITS, (train, val, val), strict=True):
        with SplitWriter(folder / split, **meta, targets=targets) as writer:
            for number in range(size):
                name = f"{split}/{number}"
                row = {"id": name, "source_id": name, "group": name, "label": 1 + number % 2, "weight": 1.0}
                source = {"source_width": side, "source_height": side, "source_mode": "RGB", "slices": "{}"}
                writer.write([{**row, **source, **pairs[number % 64]}])
    pixels = {split: dict.fromkeys(CLASSES, side * side) for split in SPLITS}
    statistics = ([0.5] * channels, [0.2] * channels)
    DatasetCard("made", CLASSES, pixels, channels, side, side, *statistics, [], "0" * 64, pixels=pixels).write(
        folder / "card.json"
    )
    return folder


def waiting(setting: Setting) -> list[Result]:
    """The share of an epoch's steps that waits for batches of images and masks, as conf/experiment has it."""
    from bench.turns import waiting_for_data

    os.chdir(setting.work)
    images = setting.pick(256, 64)
    masked(setting.work / "data/prepared", train=images, val=32, side=128, channels=1)
    changes = (f"trainer.max_epochs={setting.pick(4, 2)}", "trainer.monitor=loss")
    experiment = plan(setting.work, setting.threads, "experiment=segmentation_garments", *changes)
    seen = waiting_for_data(experiment, images)
    note = (
        f"U-Net on `tf_efficientnet_lite0`, batch 16, `augment=upright` on image and mask per item in the main "
        f"process, 128 px gray: {seen.sample_us:.0f} us an image waited for, of "
        f"{seen.step_us:.0f} us that a step takes; validation left out."
    )
    what = "share of a segmentation epoch spent waiting for data, CPU, 128 px gray, `upright` online"
    return [Result(16, what, "<= 5 %", seen.shown, seen.share <= 0.05, note)]
