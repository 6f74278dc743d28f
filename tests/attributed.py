"""Made images with any number of three labels: each brightens one channel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from tiny import picture

LABELS = ["blau ü", "green, light", "red 2"]  # in natural order; label k brightens channel (2, 1, 0)[k]


def present(count: int) -> np.ndarray:
    """Which labels each image has: bool (N, 3); the first is the rarest, and some images have none."""
    return np.random.default_rng(5).random((count, len(LABELS))) < (0.2, 0.4, 0.6)


def attributed_folder(folder: Path, count: int, separator: str = "|") -> Path:
    """`images/000.png`, ... of 18 x 16 px, and table.csv with the columns path, label and maker."""
    (folder / "images").mkdir(parents=True)
    rows = present(count)
    for number, row in enumerate(rows):
        image = picture(number, width=18, height=16) // 3 + 110 * row[::-1].astype(np.uint8)
        Image.fromarray(image.astype(np.uint8)).save(folder / "images" / f"{number:03d}.png")
    table = pd.DataFrame({"path": [f"images/{number:03d}.png" for number in range(count)]})
    table["label"] = [separator.join(name for name, here in zip(LABELS, row, strict=True) if here) for row in rows]
    table["maker"] = ["xy"[number % 2] for number in range(count)]
    table.to_csv(folder / "table.csv", index=False)
    return folder
