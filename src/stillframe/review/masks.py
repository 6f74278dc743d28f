"""Answers of one class a pixel: pictures are counted one after the other, and all scores come from the counts."""

from __future__ import annotations

import re
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from stillframe.config import ValidateConfig
from stillframe.evaluation.choices import choose
from stillframe.inference.split_predictor import SplitPredictor
from stillframe.paths import replacing
from stillframe.review.base import Choices, EvaluationContext, Review
from stillframe.review.mask_answers import AT_ONCE_PX
from stillframe.types import DatasetCard

MASKS = "masks.zip"
MIDNIGHT = (1980, 1, 1, 0, 0, 0)  # of all members: the same masks give the same file


def validate(
    asking: SplitPredictor, section: ValidateConfig, card: DatasetCard, out: Path
) -> tuple[dict[str, float], Choices]:
    """Tune temperature and threshold on a sample of pixels, then count all of the validation split with them."""
    from stillframe.evaluation.mask_tables import write_validation
    from stillframe.review.mask_answers import PixelSampler

    choices = choose(smaller(asking, card)(PixelSampler()), section, card, asking.tta)
    predictions = _counted(asking, choices, card, masks=False).drop(columns="png", errors="ignore")
    predictions.to_parquet(out / "predictions.parquet", index=False)
    return write_validation(predictions, card, out), choices


def evaluate(asking: SplitPredictor, tested: EvaluationContext) -> dict[str, float]:
    """Scores with intervals over the pictures, tables, the masks, and the worst pictures."""
    from stillframe.evaluation.mask_tables import write_test
    from stillframe.review.mask_pictures import draw_gallery

    card, section, out = tested.card, tested.section, tested.out
    predictions = _counted(asking, tested.choices, card, masks=True)
    predictions = store_masks(predictions, out / MASKS)
    predictions.to_parquet(out / "predictions.parquet", index=False)
    metrics, gallery = write_test(
        predictions,
        card,
        out,
        seed=tested.seed,
        bootstrap=section.bootstrap,
        slices=list(dict.fromkeys([*card.slices, *section.slices])),
        gallery=section.gallery,
    )
    draw_gallery(gallery, predictions, asking.split, out)
    return metrics


def smaller(asking: SplitPredictor, card: DatasetCard) -> SplitPredictor:
    """The same with fewer pictures at a time where they are large: batch sizes are set with small images in mind."""
    most = max(1, AT_ONCE_PX // (card.height * card.width))
    return replace(asking, batch_size=most) if asking.batch_size > most else asking


def _counted(asking: SplitPredictor, choices: dict[str, Any], card: DatasetCard, *, masks: bool) -> pd.DataFrame:
    from stillframe.review.mask_answers import ImageCollector

    threshold = choices["threshold"]
    asking = smaller(asking, card)
    return asking(ImageCollector(tuple(card.classes), choices["temperature"], threshold, choices["bins"], masks))


def store_masks(predictions: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Write the column `png` as one archive of indexed PNGs; instead of it `mask` names each picture's.

    One file, not thousands: DVC's cost is per file.
    """
    names = [
        f"{index:06d}_{re.sub(r'[^A-Za-z0-9.-]+', '_', Path(name).stem)[:80]}.png"
        for index, name in zip(predictions["index"], predictions["id"], strict=True)
    ]
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name, png in zip(names, predictions.get("png", []), strict=True):
            archive.writestr(zipfile.ZipInfo(name, MIDNIGHT), png)
    return predictions.drop(columns="png", errors="ignore").assign(mask=names)


REVIEW = Review(
    validate=validate,
    evaluate=evaluate,
    shown=(("accuracy", "iou_macro", "f1_macro", "ece"), ("accuracy", "iou_macro", "f1_macro", "boundary_f1", "ece")),
)
