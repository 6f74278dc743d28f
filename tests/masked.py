"""Tiny made pictures with masks: bright squares (class 1) and red discs (class 2) on a dark smooth ground (0)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stillframe.store.split import SplitWriter
from stillframe.types import DatasetCard
from tiny import LABEL, MASK, picture

CLASSES = ["ground", "square", "disc"]
MASKS: dict[str, Any] = {
    "images": "images",
    "folder": "masks",
    "suffix": "",
    "column": None,
    "coco": [],
    "colours": None,
    "ignore": ["255"],
    "background": "background",
    "overlap": None,
}


def scene(seed: int, width: int = 32, height: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """A picture (H, W, 3) and its mask (H, W), both uint8; what is what can be told from the colours alone."""
    rng = np.random.default_rng(seed)
    image = picture(seed, width, height) // 4
    mask = np.zeros((height, width), dtype=np.uint8)
    y, x = np.mgrid[:height, :width]
    for kind in rng.permutation([1, 2]):
        side = int(rng.integers(8, 14))
        top, left = int(rng.integers(0, height - side)), int(rng.integers(0, width - side))
        inside = (y >= top) & (y < top + side) & (x >= left) & (x < left + side)
        if kind == 2:
            inside = (y - top - side / 2) ** 2 + (x - left - side / 2) ** 2 < (side / 2) ** 2
        image[inside] = (250, 250, 250) if kind == 1 else (250, 20, 20)
        mask[inside] = kind
    return image, mask


def mask_of(image: np.ndarray) -> np.ndarray:
    """The mask (..., H, W) that pictures (..., H, W, 3) of `scene` show by their colours."""
    red, green = image[..., 0] > 160, image[..., 1] > 135
    return np.where(red & green, 1, np.where(red, 2, 0)).astype(np.uint8)


def masked_folder(folder: Path, count: int = 12, **size: int) -> Path:
    """images/ (PNG) and masks/ (gray PNG of the values 0, 1, 2) by matching names."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        image, mask = scene(number, **size)
        Image.fromarray(image).save(folder / f"images/{number:02d}.png")
        Image.fromarray(mask).save(folder / f"masks/{number:02d}.png")
    return folder


def write_scenes(folder: Path, sizes: dict[str, int], size: int = 32) -> DatasetCard:
    """A prepared data set of scenes: a split each and card.json."""
    counts: dict[str, dict[str, int]] = {}
    pixels: dict[str, dict[str, int]] = {}
    number = 0
    for split, count in sizes.items():
        meta: dict[str, Any] = {
            "height": size,
            "width": size,
            "channels": 3,
            "encoding": "raw",
            "targets": [LABEL, MASK],
        }
        masks = []
        with SplitWriter(folder / split, **meta) as writer:
            for _ in range(count):
                image, mask = scene(number, size, size)
                number += 1
                masks.append(mask)
                writer.write([_row(number, image, mask)])
        counts[split] = {name: sum(bool((mask == at).any()) for mask in masks) for at, name in enumerate(CLASSES)}
        pixels[split] = {name: sum(int((mask == at).sum()) for mask in masks) for at, name in enumerate(CLASSES)}
    card = DatasetCard("scenes", CLASSES, counts, 3, size, size, [0.2] * 3, [0.25] * 3, [], "0" * 64, pixels=pixels)
    card.write(folder / "card.json")
    return card


def _row(number: int, image: np.ndarray, mask: np.ndarray) -> dict[str, Any]:
    size = image.shape[0]
    most = 1 + int(np.bincount(mask.ravel(), minlength=3)[1:].argmax())
    named = {"id": f"{number}.png", "source_id": f"{number}.png", "group": str(number), "slices": "{}"}
    source = {"source_width": size, "source_height": size, "source_mode": "RGB"}
    return {**named, **source, "label": most, "weight": 1.0, "image": image.tobytes(), "mask": mask.tobytes()}
