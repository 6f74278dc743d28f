"""Tiny made images, for tests of every room."""

from __future__ import annotations

import numpy as np
from PIL import Image


def picture(seed: int, width: int = 24, height: int = 20, channels: int = 3) -> np.ndarray:
    """A smooth random picture, uint8 (H, W, C) or (H, W) for one channel: no two seeds are alike."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    image = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
    return image if channels == 3 else image[:, :, 0]
