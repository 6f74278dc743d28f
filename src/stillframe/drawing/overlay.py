"""A picture under its heat map; without torch, so that what shows a file's answers needs none."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def overlay(image_HWC: NDArray[np.uint8], heat_HW: NDArray[np.float32], *, below: bool = False) -> NDArray[np.uint8]:
    """The picture, and to its right (or below it) the same picture under its heat map.

    Args:
        image_HWC: uint8, 1 or 3 channels.
        heat_HW: 0..1.
        below: for wide pictures, such as the frames of a clip side by side.

    Returns:
        uint8 RGB, (H, 2 W, 3), or below (2 H, W, 3); where the heat is 0 the second half is the picture in gray.
    """
    import cv2

    rgb = image_HWC if image_HWC.shape[2] == 3 else np.repeat(image_HWC, 3, axis=2)
    gray = np.repeat(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2).astype(np.float32)
    levels = np.round(np.clip(heat_HW, 0.0, 1.0) * 255).astype(np.uint8)
    colour = cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)[..., ::-1].astype(np.float32)
    strength = 0.7 * np.clip(heat_HW, 0.0, 1.0)[..., None]
    mixed = gray * (1 - strength) + colour * strength
    return np.concatenate([rgb, np.round(mixed).astype(np.uint8)], axis=0 if below else 1)
