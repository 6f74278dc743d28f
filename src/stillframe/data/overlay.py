"""A mask laid over its picture, for eyes."""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.typing import NDArray

from stillframe.sample import IGNORE

Pixels = NDArray[np.uint8]
SHARE = 0.45  # of the class's colour in the mixture
IGNORED = (255, 255, 255)
FIRST = ((0, 0, 0), (230, 75, 53), (77, 187, 213), (0, 160, 135), (243, 177, 60), (60, 84, 136), (180, 90, 190))


def palette(classes: int) -> Pixels:
    """A colour for each value of a mask, (256, 3) RGB: black for the first class, white where nothing counts."""
    table = np.zeros((256, 3), dtype=np.uint8)
    for index in range(classes):
        hue = (index * 0.618033988749895) % 1.0  # the golden ratio: neighbours are never alike
        later = [round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.75, 0.9)]
        table[index] = FIRST[index] if index < len(FIRST) else later
    table[IGNORE] = IGNORED
    return table


def overlay(image_HWC: Pixels, mask_HW: Pixels, classes: int) -> Pixels:
    """The picture (H, W, 1 or 3) with each class in its colour over it, (H, W, 3); the first class stays as it is."""
    image = np.repeat(image_HWC, 3, axis=2) if image_HWC.shape[2] == 1 else image_HWC
    coloured = palette(classes)[mask_HW]
    mixed = np.round(image * (1 - SHARE) + coloured * SHARE).astype(np.uint8)
    return np.where((mask_HW == 0)[:, :, None], image, mixed)
