"""Tiny made images and the section `data` that fits them, for tests of every room."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from stillframe.store.columns import TargetColumn

LABEL, MASK = TargetColumn("label", "int"), TargetColumn("mask", "map")
DATA: dict[str, Any] = {
    "name": "tiny",
    "fetch": None,
    "path": None,
    "format": "auto",
    "table": None,
    "columns": {
        "path": "path",
        "label": "label",
        "split": None,
        "group": None,
        "weight": None,
        "start": None,
        "end": None,
        "slices": [],
    },
    "masks": None,
    "target": None,
    "clip": None,
    "classes": None,
    "leave_out": [],
    "image_size": 16,
    "symmetry": "none",
    "resize": "squash",
    "channels": "auto",
    "store": "auto",
    "val_fraction": 0.2,
    "test_fraction": 0.2,
    "folds": 0,
    "fold": 0,
    "max_bad_fraction": 0.5,
    "min_px": 4,
    "max_megapixels": 1.0,
    "near_duplicates": "group",
    "near_duplicate_bits": 2,
    "conflicts": "quarantine",
    "workers": 2,
    "backend": "loky",
}


def picture(seed: int, width: int = 24, height: int = 20, channels: int = 3) -> np.ndarray:
    """A smooth random picture, uint8 (H, W, C) or (H, W) for one channel: no two seeds are alike."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    image = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
    return image if channels == 3 else image[:, :, 0]
