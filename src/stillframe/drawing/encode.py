"""Images as the bytes of files."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray


def to_rgb(image_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image with three channels; a gray one is repeated."""
    return np.repeat(image_HWC, 3, axis=2) if image_HWC.shape[2] == 1 else image_HWC


def encode_image(image: NDArray[np.uint8], ending: str = ".png", options: Sequence[int] = ()) -> bytes:
    """An RGB image (H, W, 3), or a gray one (H, W) or (H, W, 1), as the bytes of a file.

    Args:
        image: uint8.
        ending: of the format: .png, .jpg.
        options: of `cv2.imencode`.
    """
    pixels = np.ascontiguousarray(image[..., ::-1]) if image.ndim == 3 and image.shape[2] == 3 else image
    encoded, content = cv2.imencode(ending, pixels, options)
    assert encoded, "an image of uint8 can be encoded"
    return content.tobytes()
