"""Photographs of solar cells that were turned by a known angle."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np

from stillframe.ingest.decode import Pixels, decode
from stillframe.ingest.demo_sources import ELPV, DemoData
from stillframe.progress import bar

SEED = 0
N_IMAGES = {"train": 1000, "val": 200, "test": 300}
MOST = 45.0  # degrees, to either side
INSIDE, SIDE = 208, 96  # px: the square inside a turned photograph of 300 px, and of the images that are written


def make(folders: dict[str, Path], out: Path) -> None:
    """Write images/*.png and angles.csv (path, angle in degrees counterclockwise, split); each cell is used once."""
    paths = sorted(folders["cells"].rglob("*.png"))
    if len(paths) < sum(N_IMAGES.values()):
        raise ValueError(f"{folders['cells']} holds {len(paths)} photographs, {sum(N_IMAGES.values())} are needed")
    random = np.random.default_rng(SEED)
    order = iter(random.permutation(len(paths)).tolist())
    (out / "images").mkdir(parents=True)
    with (out / "angles.csv").open("w", encoding="utf-8", newline="") as file, bar("turning", len(paths)) as advance:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["path", "angle", "split"])
        for split, count in N_IMAGES.items():
            for _ in range(count):
                path, angle = paths[next(order)], round(random.uniform(-MOST, MOST), 2)
                cv2.imwrite(str(out / "images" / path.name), turned(decode(path.read_bytes()).image[:, :, :1], angle))
                table.writerow([f"images/{path.name}", angle, split])
                advance(1)


def turned(image: Pixels, angle: float) -> Pixels:
    """A photograph turned counterclockwise by degrees, cut to the square inside it at any angle, and made smaller."""
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1.0)
    whole = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR)
    top, left = (height - INSIDE) // 2, (width - INSIDE) // 2
    inside = whole[top : top + INSIDE, left : left + INSIDE]
    return np.asarray(cv2.resize(inside, (SIDE, SIDE), interpolation=cv2.INTER_AREA), dtype=np.uint8)


DEMO_DATA = {"turned_cells": DemoData({"cells": ELPV}, make)}
