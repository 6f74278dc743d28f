"""Images of a split of class maps: the image, its target and its prediction side by side."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stillframe.drawing.side_by_side import compare_class_maps
from stillframe.store.split import Split
from stillframe.tasks.segmentation import IGNORE


def side_by_side(split: Split, row: int, archive: Path, member: str) -> NDArray[np.uint8]:
    """Image | target | prediction of the image that a row is, or is a tile of: RGB (H, W, 3).

    Args:
        split: the test split.
        row: of the split.
        archive: the predicted class maps, masks.zip.
        member: name of this image's in it.
    """
    image_HWC, truth_HW = image_of(split, row)
    predicted_HW = read_mask(archive, member)
    predicted_HW = np.where(truth_HW == IGNORE, IGNORE, predicted_HW).astype(np.uint8)
    return compare_class_maps(image_HWC, [truth_HW, predicted_HW])


def read_mask(archive: Path, member: str) -> NDArray[np.uint8]:
    """A saved class map: class indices (H, W)."""
    from PIL import Image

    with zipfile.ZipFile(archive) as opened:
        return np.asarray(Image.open(io.BytesIO(opened.read(member))), dtype=np.uint8)


def truth_of(split: Split, row: int) -> NDArray[np.uint8]:
    """The true class map (H, W) of the image that a row is, or is a tile of."""
    return image_of(split, row)[1] if split.tiled else split.target("mask", [row])[0]


def image_of(split: Split, row: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The prepared image (H, W, C) that a row is, or is a tile of, and its true class map (H, W)."""
    if not split.tiled:
        return split.images([row])[0], split.target("mask", [row])[0]
    table = split.table
    rows = np.flatnonzero((table["origin"] == table["origin"].iloc[row]).to_numpy())
    corners = table.iloc[rows][["top", "left"]].to_numpy(dtype=np.int64)
    height, width = (corners.max(0) + split.height).tolist()
    image = np.zeros((height, width, split.channels), np.uint8)
    mask = np.full((height, width), IGNORE, np.uint8)
    for tile, (top, left) in zip(rows.tolist(), corners.tolist(), strict=True):
        part = (slice(top, top + split.height), slice(left, left + split.width))
        image[part], mask[part] = split.images([tile])[0], split.target("mask", [tile])[0]
    return image, mask
