"""Maps of class indices as images: indexed PNG with a colour a class, and laid over the image that they are of."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from stillframe.drawing.encode import to_rgb

UNDECIDED = 255  # a pixel without a class
OPACITY = 0.5  # of the colour over the image
EDGE = 1  # px, of the contour in full colour


def palette() -> NDArray[np.uint8]:
    """The colours of PASCAL VOC, (256, 3) RGB: 0 is black, neighbours differ much, UNDECIDED is cream.

    The bits of an index, from the lowest, go to red, green and blue in turn, to the highest bit first.
    """
    index = np.arange(256)
    colors = np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        for channel in range(3):
            colors[:, channel] |= (((index >> channel) & 1) << (7 - bit)).astype(np.uint8)
        index >>= 3
    return colors


def encode_class_map(class_HW: NDArray[np.uint8], classes: Sequence[str]) -> bytes:
    """An indexed PNG: values are class indices (or UNDECIDED), with colours, and the names as text "classes".

    Any reader of indexed PNG gives the indices back: `np.asarray(PIL.Image.open(path))`.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    image = Image.fromarray(class_HW)
    image.putpalette(palette().tobytes())
    names = PngInfo()
    names.add_itxt("classes", json.dumps(list(classes), ensure_ascii=False))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=names)
    return buffer.getvalue()


def overlay_class_map(image_HWC: NDArray[np.uint8], class_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image under the colours of its classes, contours in full colour: RGB (H, W, 3). Class 0 has no colour.

    Args:
        image_HWC: uint8, C = 1 or 3.
        class_HW: class indices of the same size.
    """
    image, color = to_rgb(image_HWC), palette()[class_HW]
    mixed = (image * (1 - OPACITY) + color * OPACITY).round().astype(np.uint8)
    out = np.where((class_HW > 0)[..., None], mixed, image)
    # a pixel is on a contour if a neighbour has another class
    kernel = np.ones((2 * EDGE + 1, 2 * EDGE + 1), np.uint8)
    edge = (cv2.dilate(class_HW, kernel) != class_HW) | (cv2.erode(class_HW, kernel) != class_HW)
    edge &= (class_HW > 0) & (class_HW != UNDECIDED)
    out[edge] = color[edge]
    return out
