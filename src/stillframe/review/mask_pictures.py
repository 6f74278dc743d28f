"""The worst pictures of a split of masks: the picture, the truth and the answer side by side."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stillframe.drawing.side_by_side import compare_class_maps
from stillframe.store.columns import NO_VALUE as IGNORE
from stillframe.store.split import Split


def draw_gallery(gallery: pd.DataFrame, predictions: pd.DataFrame, test: Path, out: Path) -> None:
    """Picture | truth | answer, under the names of the gallery's column `file` (relative to `out`)."""
    split, masks = Split(test), predictions.set_index("index")["mask"]
    for file, index in zip(gallery["file"], gallery["index"], strict=True):
        image_HWC, truth_HW = picture_of(split, int(index))
        answer_HW = answer_of(out / "masks.zip", str(masks[index]))
        answer_HW = np.where(truth_HW == IGNORE, IGNORE, answer_HW).astype(np.uint8)
        path = out / str(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not cv2.imwrite(str(path), compare_class_maps(image_HWC, [truth_HW, answer_HW])[..., ::-1]):
            raise OSError(f"{path} cannot be written")


def answer_of(archive: Path, name: str) -> NDArray[np.uint8]:
    """A saved mask: class indices (H, W)."""
    from PIL import Image

    with zipfile.ZipFile(archive) as opened:
        return np.asarray(Image.open(io.BytesIO(opened.read(name))), dtype=np.uint8)


def truth_of(split: Split, row: int) -> NDArray[np.uint8]:
    """The true mask (H, W) of the picture that a row is, or is a tile of."""
    return picture_of(split, row)[1] if split.tiled else split.target("mask", [row])[0]


def picture_of(split: Split, row: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The prepared picture (H, W, C) that a row is, or is a tile of, and its true mask (H, W)."""
    if not split.tiled:
        return split.images([row])[0], split.target("mask", [row])[0]
    table = split.table
    rows = np.flatnonzero((table["origin"] == table["origin"].iloc[row]).to_numpy())
    places = table.iloc[rows][["top", "left"]].to_numpy(dtype=np.int64)
    height, width = (places.max(0) + split.height).tolist()
    image = np.zeros((height, width, split.channels), np.uint8)
    mask = np.full((height, width), IGNORE, np.uint8)
    for at, (top, left) in zip(rows.tolist(), places.tolist(), strict=True):
        part = (slice(top, top + split.height), slice(left, left + split.width))
        image[part], mask[part] = split.images([at])[0], split.target("mask", [at])[0]
    return image, mask
