"""A made split of masks: smooth pictures whose class is a function of their brightness, whole or in tiles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from stillframe.config import ValidateConfig
from stillframe.evaluation.write_tables import write_evaluation, write_validation
from stillframe.inference.split_predictor import collected
from stillframe.ingest.tiles import cut, grid
from stillframe.reporting.gallery import draw_gallery
from stillframe.store.loader import SplitDataset
from stillframe.store.split import Split, SplitWriter
from stillframe.tasks import find_task
from stillframe.tasks.segmentation import IGNORE
from stillframe.types import DatasetCard, Prediction
from tiny import LABEL, MASK, picture

CLASSES = ["ground", "tree", "road"]
SIZE = 24  # px
VALIDATE = ValidateConfig(batch_size=3, tta="none", calibrate=True, threshold="auto", bins=10, require={})
TASK = find_task("segmentation")
CHOICES = {"temperature": 1.5, "threshold": None, "tta": "none", "bins": 10}


def truth_of(image: np.ndarray, seed: int) -> np.ndarray:
    """Three classes by the brightness, and a corner that is ignored."""
    mask = np.digitize(image.mean(-1), (90, 150)).astype(np.uint8)
    mask[: 2 + seed % 3, :3] = IGNORE
    return mask


def sizes(count: int, tiled: bool) -> list[tuple[int, int]]:
    """Height and width of each picture."""
    return [(SIZE + 17 * (at % 3), SIZE + 11 * (at % 4)) if tiled else (SIZE, SIZE) for at in range(count)]


def pictures(count: int, tiled: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    images = [picture(at, width=width, height=height) for at, (height, width) in enumerate(sizes(count, tiled))]
    return [(image, truth_of(image, at)) for at, image in enumerate(images)]


def write_split(folder: Path, count: int = 7, *, tiled: bool = False, overlap: float = 0.25, classes: int = 3) -> Path:
    """Write a split of `count` pictures; tiles of one picture do not follow each other."""
    rows = []
    for at, (image, mask) in enumerate(pictures(count, tiled)):
        mask[(mask >= classes) & (mask != IGNORE)] = classes - 1
        known = {"label": int(np.bincount(mask[mask != IGNORE], minlength=3)[1:].argmax()) + 1, "weight": 1.0}
        known |= {"group": str(at), "source_id": f"{at}.png", "source_mode": "RGB", "slices": "{}"}
        known |= {"source_width": image.shape[1], "source_height": image.shape[0]}
        places = grid(*mask.shape, SIZE, overlap) if tiled else [(0, 0)]
        for top, left in places:
            tile = {"id": f"{at}.png", "image": cut(image, top, left, SIZE, 0).tobytes()}
            tile["mask"] = cut(mask, top, left, SIZE, IGNORE).tobytes()
            if tiled:
                tile |= {"id": f"{at}.png#{top},{left}", "origin": f"{at}.png", "top": top, "left": left}
            rows.append({**known, **tile})
    if tiled:
        rows = rows[::2] + rows[1::2]
    with SplitWriter(
        folder, height=SIZE, width=SIZE, channels=3, encoding="raw", targets=[LABEL, MASK], tiles=tiled
    ) as writer:
        writer.write(rows)
    return folder


def card() -> DatasetCard:
    counts = {split: {"ground": 0, "tree": 4, "road": 3} for split in ("train", "val", "test")}
    return DatasetCard("made", CLASSES, counts, 3, SIZE, SIZE, [0.5] * 3, [0.2] * 3, [], "0" * 64)


def logits(image_BCHW: np.ndarray) -> np.ndarray:
    """A net that looks at one pixel at a time, wrong where a picture is reddish."""
    bright = image_BCHW.mean(1) + 0.5 * (image_BCHW[:, 0] - image_BCHW[:, 2])
    return np.stack([-abs(bright - centre) / 12 for centre in (60, 120, 180)], axis=1).astype(np.float32)


class Made:
    """Predicts a split with `logits` as `SplitPredictor` does with a network, in as many parts as processes."""

    tta = "none"
    batch_size = 3

    def __init__(self, split, world=1, answer=logits):
        self.split, self.world, self.answer = split, world, answer

    def __call__(self, collector):
        rows = SplitDataset([self.split])
        results = []
        for rank in range(self.world):
            state = collector.start(rows.splits[0])
            mine = collector.rows(rows.splits[0], rank, self.world)
            for first in range(0, len(mine), self.batch_size):
                batch = rows[0, mine[first : first + self.batch_size]]
                said = torch.from_numpy(self.answer(batch.image.numpy().astype(np.float32)))
                state.add(*collected(Prediction({"logits": said}, batch.index_B), batch))
            results.append(state.result())
        return collector.merge(results, Split(self.split))


def validate(made, section, card, out):
    """What the stage validate writes -> metrics, choices."""
    predictions, choices = TASK.evaluation.tune(made, section, card)
    predictions.to_parquet(out / "predictions.parquet", index=False)
    return write_validation(TASK, predictions, card, choices, out), choices


def evaluate(made, out, *, gallery=3, bootstrap=20, choices=CHOICES, facts=None):
    """What the stage evaluate writes -> metrics."""
    facts = facts or card()
    predictions = TASK.evaluation.predict(made, choices, facts, out)
    predictions.to_parquet(out / "predictions.parquet", index=False)
    options = {"seed": 0, "bootstrap": bootstrap, "slices": ["size"], "gallery": gallery}
    metrics, errors = write_evaluation(TASK, predictions, facts, choices, out, **options)
    draw_gallery(TASK, errors, predictions, made.split, out)
    return metrics
