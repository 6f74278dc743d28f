"""Images of one size beside each other."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from stillframe.drawing.class_map import overlay_class_map
from stillframe.drawing.encode import to_rgb

GAP = 4  # px of white between two images
LONGEST_PX = 512  # longer side of each image


def compare_class_maps(
    image_HWC: NDArray[np.uint8], maps: Sequence[NDArray[np.uint8]], longest: int = LONGEST_PX
) -> NDArray[np.uint8]:
    """The image, then the image under each map of class indices (H, W), from left to right: RGB.

    Args:
        image_HWC: uint8, C = 1 or 3.
        maps: of the same height and width, e.g. ground truth and prediction.
        longest: larger images are reduced to this longer side, px.
    """
    height, width = image_HWC.shape[:2]
    scale = min(1.0, longest / max(height, width))
    image = to_rgb(image_HWC)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8).reshape(*size[::-1], 3)
        maps = [np.asarray(cv2.resize(class_HW, size, interpolation=cv2.INTER_NEAREST), np.uint8) for class_HW in maps]
    gap = np.full((image.shape[0], GAP, 3), 255, np.uint8)
    pieces = [image, *(overlay_class_map(image, class_HW) for class_HW in maps)]
    return np.concatenate([part for piece in pieces for part in (gap, piece)][1:], axis=1)
