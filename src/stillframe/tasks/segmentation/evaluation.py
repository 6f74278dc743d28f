"""Scores of class maps, from the counts of each image's pixels.

Suffixes: N images, K classes, R resamples, B bins of confidence.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stillframe.config import ValidateConfig
from stillframe.paths import replacing
from stillframe.store.split import Split
from stillframe.tasks import class_scores
from stillframe.tasks.calibration import calibration_error, reliability, reliability_curve, tune_decisions
from stillframe.tasks.segmentation import METRICS, gallery
from stillframe.tasks.segmentation.collectors import ImageCollector, PixelSampler
from stillframe.types import DatasetCard

if TYPE_CHECKING:
    from stillframe.tasks.base_evaluation import Array, Choices, Collector, Scorer, Statistics

SLICE_METRICS = ("iou_macro", "f1_macro", "accuracy")
COMPARED = ("label", "iou", "confidence", "cell", "pixels", "boundary", "bins", "bins_before")
TARGET = ("actual",)
TUNED = ("temperature",)
SAMPLE_SCORE = "IoU"
MASKS = "masks.zip"
MIDNIGHT = (1980, 1, 1, 0, 0, 0)  # of all members: the same class maps give the same file
SAME_IOU = 1e-9  # two values that are no further apart are equal


def names(card: DatasetCard) -> Sequence[str]:
    """The classes."""
    return card.classes


def stand_in_names(tables: Sequence[pd.DataFrame]) -> Sequence[str]:
    """As many as there are values of boundary F1 in a row."""
    return [str(k) for k in range(max(len(table["boundary"].iloc[0]) if len(table) else 0 for table in tables))]


def tune(
    predict: Callable[[Collector], pd.DataFrame], section: ValidateConfig, card: DatasetCard
) -> tuple[pd.DataFrame, Choices]:
    """Temperature, and of two classes the threshold, from a sample of pixels; then all of the split with them."""
    pixels = predict(PixelSampler())
    choices = tune_decisions(np.stack(pixels["logits"].to_list()), pixels["label"].to_numpy(), section)
    return predict(_collector(card, choices, masks=False)).drop(columns="png", errors="ignore"), choices


def predict(
    predict: Callable[[Collector], pd.DataFrame], choices: Choices, card: DatasetCard, out: Path
) -> pd.DataFrame:
    """Counts of each image, and masks.zip with the class maps, which the column `mask` names."""
    return store_masks(predict(_collector(card, choices, masks=True)), out / MASKS)


def _collector(card: DatasetCard, choices: Choices, *, masks: bool) -> ImageCollector:
    return ImageCollector(tuple(card.classes), choices["temperature"], choices["threshold"], choices["bins"], masks)


def store_masks(predictions: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Write the column `png` as one archive of indexed PNGs; instead of it `mask` names each image's.

    One file, not thousands: DVC's cost is per file.
    """
    members = [
        f"{index:06d}_{re.sub(r'[^A-Za-z0-9.-]+', '_', Path(name).stem)[:80]}.png"
        for index, name in zip(predictions["index"], predictions["id"], strict=True)
    ]
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for member, png in zip(members, predictions.get("png", []), strict=True):
            archive.writestr(zipfile.ZipInfo(member, MIDNIGHT), png)
    return predictions.drop(columns="png", errors="ignore").assign(mask=members)


def statistics(predictions: pd.DataFrame, classes: Sequence[str], choices: Choices) -> Statistics:
    """Pixels by class, from the columns cell and pixels; of each image boundary F1, and the bins of confidence."""
    count, size = len(predictions), len(classes)
    right, actual, predicted = (np.zeros((count, size)) for _ in range(3))
    for i, (cell, pixels) in enumerate(zip(predictions["cell"], predictions["pixels"], strict=True)):
        true_class, predicted_class = np.divmod(np.asarray(cell, dtype=np.int64), size)
        np.add.at(actual[i], true_class, pixels)
        np.add.at(predicted[i], predicted_class, pixels)
        same = true_class == predicted_class
        right[i, true_class[same]] = np.asarray(pixels)[same]
    if count and not actual.any():
        raise ValueError("no pixel of this split is of a class: all masks hold the ignore value only")
    sums: Statistics = {"right": right, "actual": actual, "predicted": predicted}
    if "boundary" in predictions:
        boundary_NK = np.array(predictions["boundary"].to_list(), dtype=np.float64).reshape(count, size)
        sums |= {"boundary": np.nan_to_num(boundary_NK), "boundary_images": np.isfinite(boundary_NK)}
    return sums | {name: _bins(predictions[name]) for name in ("bins", "bins_before") if name in predictions}


def _bins(column: pd.Series[Any]) -> NDArray[np.float64]:
    """(N, 3, B) of a column of lists of 3 * B numbers."""
    values = np.array(column.to_list(), dtype=np.float64).reshape(len(column), -1)
    return values.reshape(len(column), 3, -1)


def scores(sums: Mapping[str, Array], classes: Sequence[str]) -> dict[str, Array]:
    """Rates from the pixels of all images together; boundary F1 as a mean over images, then over classes."""
    values = class_scores.class_scores(sums["right"], sums["actual"], sums["predicted"], classes, METRICS)
    if "boundary" in sums:
        with np.errstate(divide="ignore", invalid="ignore"):
            boundary_RK = sums["boundary"] / sums["boundary_images"]
            values["boundary_f1"] = np.nansum(boundary_RK, axis=-1) / np.isfinite(boundary_RK).sum(-1)
        values |= {f"boundary_f1/{name}": boundary_RK[..., k] for k, name in enumerate(classes)}
    if "bins" in sums:
        values["ece"] = calibration_error(sums["bins"])
    return values


def rank_scores(predictions: pd.DataFrame, classes: Sequence[str]) -> Scorer | None:
    """None: all scores follow from sums."""
    return None


def point_scores(predictions: pd.DataFrame, classes: Sequence[str], choices: Choices) -> dict[str, float]:
    """Calibration error at temperature 1, of a part of the pixels."""
    if "bins_before" not in predictions:
        return {}
    return {"ece_uncalibrated": float(calibration_error(_bins(predictions["bins_before"]).sum(0)))}


def sample_scores(predictions: pd.DataFrame) -> Array:
    """Mean IoU of each image; 0 for one without pixels that count, as for any other model."""
    return np.asarray(np.nan_to_num(predictions["iou"].to_numpy(dtype=np.float64)))


def confusion(predictions: pd.DataFrame, classes: Sequence[str]) -> NDArray[np.int64]:
    """Pixels (K, K): rows are the true classes, columns the predicted ones."""
    counts = np.zeros(len(classes) ** 2, dtype=np.int64)
    for cell, pixels in zip(predictions["cell"], predictions["pixels"], strict=True):
        counts[np.asarray(cell, dtype=np.int64)] += np.asarray(pixels, dtype=np.int64)
    return counts.reshape(len(classes), len(classes))


def baseline(predictions: pd.DataFrame, card: DatasetCard) -> dict[str, float | str]:
    """Scores of predicting one class everywhere: the one with most train pixels, of most data the background.

    The first class, where the card does not count pixels.
    """
    pixels = card.pixels.get("train", {})
    frequent = int(np.argmax([pixels.get(name, 0) for name in card.classes]))
    counts_KK = confusion(predictions, card.classes)
    constant_KK = np.zeros_like(counts_KK)
    constant_KK[:, frequent] = counts_KK.sum(1)
    values = class_scores.confusion_scores(constant_KK, card.classes, METRICS)
    return {**values, "class": card.classes[frequent]}


def notes(predictions: pd.DataFrame, classes: Sequence[str], scores: Mapping[str, float]) -> list[str]:
    """Classes without pixels, and classes that are never predicted."""
    return class_scores.class_notes(confusion(predictions, classes), classes, "pixel", "its IoU is 0")


def tables(predictions: pd.DataFrame, classes: Sequence[str], choices: Choices) -> dict[str, pd.DataFrame]:
    """reliability.csv, and pixel_confusion.csv with a row for each pair of classes that occurs."""
    stages = {stage: _bins(predictions[name]).sum(0) for stage, name in (("before", "bins_before"), ("after", "bins"))}
    counts_KK, class_K = confusion(predictions, classes), np.asarray(classes, dtype=object)
    rows, columns = np.nonzero(counts_KK)
    pairs = {"actual": class_K[rows], "predicted": class_K[columns], "pixels": counts_KK[rows, columns]}
    return {"reliability": reliability(stages), "pixel_confusion": pd.DataFrame(pairs)}


def test_tables(
    predictions: pd.DataFrame,
    classes: Sequence[str],
    scores: Mapping[str, float],
    intervals: Mapping[str, tuple[float, float]],
) -> dict[str, pd.DataFrame]:
    """per_class.csv; support and predicted are pixels."""
    counts_KK = confusion(predictions, classes)
    images_K = (statistics(predictions[["cell", "pixels"]], classes, {})["actual"] > 0).sum(0)
    counts = {"support": counts_KK.sum(1), "predicted": counts_KK.sum(0), "pictures": images_K}
    kinds = ("iou", "precision", "recall", "f1", "boundary_f1")
    return {"per_class": class_scores.per_class_table(classes, counts, kinds, scores, intervals)}


def plots(tables: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The confusion matrix of pixels, and reliability."""
    pairs = tables["pixel_confusion"].rename(columns={"pixels": "count"})
    return {"Confusion": pairs, "Reliability": reliability_curve(tables["reliability"])}


def errors(predictions: pd.DataFrame, classes: Sequence[str], most: int) -> pd.DataFrame:
    """The images with the lowest mean IoU over the classes in target or prediction, the worst one first.

    Returns:
        Columns index, id, iou, f1, accuracy, confidence, weakest (the class with the lowest IoU), weakest_iou.
    """
    defined = predictions[predictions["iou"].notna()]
    worst = defined.sort_values(["iou", "id"], kind="stable").head(most).reset_index(drop=True)
    table = worst[["index", "id", "iou", "f1", "accuracy", "confidence"]].copy()
    counts = statistics(worst[["cell", "pixels"]], classes, {})
    iou_NK = class_scores.rates(counts["right"], counts["actual"], counts["predicted"])["iou"]
    iou_NK = np.where(np.isfinite(iou_NK), iou_NK, np.inf)
    table["weakest"] = [classes[k] for k in iou_NK.argmin(1)]
    table["weakest_iou"] = iou_NK.min(1)
    return table


def gallery_image(split: Split, row: pd.Series[Any], out: Path) -> NDArray[np.uint8]:
    """The image, the true and the predicted class map side by side."""
    return gallery.side_by_side(split, int(row["index"]), out / MASKS, str(row["mask"]))


def explained(predictions: pd.DataFrame, classes: Sequence[str], most: int) -> pd.DataFrame | None:
    """None: a class map shows itself what decided."""
    return None


def disagreement(tables: Sequence[pd.DataFrame]) -> list[int]:
    """Rows whose mean IoU differs between models, the largest difference first."""
    iou_NM = np.stack([table["iou"].to_numpy(dtype=float) for table in tables], axis=1)
    gap_N = np.nan_to_num(iou_NM.max(1) - iou_NM.min(1))
    return [int(row) for row in np.argsort(-gap_N, kind="stable") if gap_N[row] > SAME_IOU]


def compared(
    tables: Sequence[pd.DataFrame], row: int, classes: Sequence[str]
) -> tuple[str, list[tuple[str, float, bool]]]:
    """No target as text; of each model "IoU", its value, and whether it is the best one."""
    values = [float(table["iou"].iloc[row]) for table in tables]
    return "", [("IoU", value, value >= max(values) - SAME_IOU) for value in values]
