"""Names for pixels: an exact hash, a perceptual hash, and a thumbnail that settles whether two images are one."""

from __future__ import annotations

import hashlib

import cv2
import numpy as np
from numpy.typing import NDArray

from stillframe.ingest.decode import Pixels, to_channels

THUMB = 64  # px, of the thumbnail that confirms near duplicates


def pixel_hash(image: Pixels) -> str:
    """sha256 over shape and pixels: equal for equal pictures whatever the file format."""
    return hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()


def perceptual_hash(gray: Pixels) -> int:
    """64-bit pHash of a gray image (H, W, 1): signs of the 8 x 8 lowest cosine terms against their median.

    Source: C. Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010.
    """
    small = cv2.resize(gray, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    terms = cv2.dct(small)[:8, :8].ravel()
    # cosine terms of equal pictures from two machines differ in the last digits: rounding keeps the bits equal
    terms = np.round(terms, 1)
    return int.from_bytes(np.packbits(terms > np.median(terms)).tobytes(), "big")


def thumbnail(gray: Pixels) -> Pixels:
    """uint8 (THUMB, THUMB) of a gray image (H, W, 1)."""
    return np.asarray(cv2.resize(gray, (THUMB, THUMB), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def fingerprints(image: Pixels) -> tuple[str, int, Pixels]:
    """Pixel hash, perceptual hash and thumbnail of a decoded image."""
    gray = to_channels(image, 1)
    return pixel_hash(image), perceptual_hash(gray), thumbnail(gray)


def texture(thumb: Pixels) -> NDArray[np.float32]:
    """What is left of a thumbnail without its coarse light and dark, as a unit vector (zeros for a flat picture)."""
    values = thumb.astype(np.float32)
    fine = values - cv2.GaussianBlur(values, (0, 0), 1.5)
    fine -= fine.mean()
    length = float(np.linalg.norm(fine))
    return np.asarray(fine / length if length > 1.0 else np.zeros_like(fine), dtype=np.float32).ravel()
