"""Masks as pictures: indexed PNG with a colour a class, and masks laid over what they are of."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from stillframe.types import IGNORE

VEIL = 0.5  # of the colour over the picture
EDGE = 1  # px, of the contour in full colour


def colours() -> NDArray[np.uint8]:
    """The colours of PASCAL VOC, (256, 3) RGB: 0 is black, neighbours differ much, IGNORE is cream.

    The bits of an index, from the lowest, go to red, green and blue in turn, to the highest bit first.
    """
    index = np.arange(256)
    out = np.zeros((256, 3), dtype=np.uint8)
    for place in range(8):
        for channel in range(3):
            out[:, channel] |= (((index >> channel) & 1) << (7 - place)).astype(np.uint8)
        index >>= 3
    return out


def encode(mask_HW: NDArray[np.uint8], classes: Sequence[str]) -> bytes:
    """An indexed PNG: values are class indices (IGNORE: no answer), with colours, and the names as text "classes".

    Any reader of indexed PNG gives the indices back: `np.asarray(PIL.Image.open(path))`.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    image = Image.fromarray(mask_HW)
    image.putpalette(colours().tobytes())
    names = PngInfo()
    names.add_itxt("classes", json.dumps(list(classes), ensure_ascii=False))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=names)
    return buffer.getvalue()


def veiled(image_HWC: NDArray[np.uint8], mask_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture under the colours of its mask, contours in full colour: RGB (H, W, 3). Class 0 has no colour.

    Args:
        image_HWC: uint8, C = 1 or 3.
        mask_HW: class indices of the same size.
    """
    image = np.repeat(image_HWC, 3, axis=2) if image_HWC.shape[2] == 1 else image_HWC
    colour = colours()[mask_HW]
    mixed = (image * (1 - VEIL) + colour * VEIL).round().astype(np.uint8)
    out = np.where((mask_HW > 0)[..., None], mixed, image)
    near = np.ones((2 * EDGE + 1, 2 * EDGE + 1), np.uint8)
    edge = (cv2.dilate(mask_HW, near) != mask_HW) | (cv2.erode(mask_HW, near) != mask_HW)
    edge &= (mask_HW > 0) & (mask_HW != IGNORE)
    out[edge] = colour[edge]
    return out
