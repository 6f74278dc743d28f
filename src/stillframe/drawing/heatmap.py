"""Images and clips under their heat maps."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from stillframe.drawing.encode import to_rgb
from stillframe.drawing.frame_strip import frame_strip


def draw_heatmap(image: NDArray[np.uint8], heatmap: NDArray[np.float32]) -> NDArray[np.uint8]:
    """An image beside itself under its heat map; frames of a clip above themselves under theirs.

    Args:
        image: uint8 (H, W, C), or a clip (T, H, W, C).
        heatmap: 0..1, (H, W), or of a clip (T, H, W).

    Returns:
        uint8 RGB.
    """
    row, heat_row = frame_strip(image), frame_strip(heatmap[..., None], gap_level=0)[..., 0]
    return overlay_heatmap(row, heat_row, below=image.ndim == 4)


def overlay_heatmap(
    image_HWC: NDArray[np.uint8], heatmap_HW: NDArray[np.float32], *, below: bool = False
) -> NDArray[np.uint8]:
    """The image, and to its right (or below it) the same image under its heat map.

    Args:
        image_HWC: uint8, 1 or 3 channels.
        heatmap_HW: 0..1.
        below: for wide images, such as the frames of a clip side by side.

    Returns:
        uint8 RGB, (H, 2 W, 3), or below (2 H, W, 3); where the heat map is 0 the second half is the image in gray.
    """
    rgb = to_rgb(image_HWC)
    gray = np.repeat(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2).astype(np.float32)
    levels = np.round(np.clip(heatmap_HW, 0.0, 1.0) * 255).astype(np.uint8)
    color = cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)[..., ::-1].astype(np.float32)
    opacity = 0.7 * np.clip(heatmap_HW, 0.0, 1.0)[..., None]
    mixed = gray * (1 - opacity) + color * opacity
    return np.concatenate([rgb, np.round(mixed).astype(np.uint8)], axis=0 if below else 1)
