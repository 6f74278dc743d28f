"""A picture or a clip with its heat map as one picture; without torch: what shows a file's answers needs none."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stillframe.drawing.frame_strip import strip
from stillframe.drawing.overlay import overlay


def under_heat(picture: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """An image beside itself under its heat map; frames of a clip above themselves under theirs.

    Args:
        picture: uint8 (H, W, C), or a clip (T, H, W, C).
        heat: 0..1, (H, W), or of a clip (T, H, W).

    Returns:
        uint8 RGB.
    """
    row, warm = strip(picture), strip(heat[..., None], paper=0)[..., 0]
    return overlay(row, warm, below=picture.ndim == 4)
