"""Made images whose mean brightness is a number to be learnt, and a second number that is its opposite."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

SECTION = {"columns": ["light", "dark"], "names": [], "units": ["cd", ""], "angles": []}


def numbered_folder(folder: Path, count: int, side: int = 16, seed: int = 0) -> Path:
    """`count` gray images and table.csv: path, light (mean brightness / 10), dark (1,000 - brightness), maker."""
    random = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    with (folder / "table.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "light", "dark", "maker"])
        for index, base in enumerate(np.linspace(30, 220, count)):
            image = np.clip(base + random.normal(0, 12, (side, side)), 0, 255).astype(np.uint8)
            Image.fromarray(image).save(folder / f"images/{index:03d}.png")
            table.writerow([f"images/{index:03d}.png", image.mean() / 10, 1000 - image.mean(), "xy"[index % 2]])
    return folder
