"""All tables of one evaluated split of masks, from the counts of its pictures; the pictures are the review's."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from stillframe.evaluation.breakdown import MOST_VALUES, slice_values, slices_in_order
from stillframe.evaluation.pixel_counts import PixelCounts, image_intervals
from stillframe.evaluation.pixel_scores import OF_CLASS, mask_scores
from stillframe.evaluation.tables import DIGITS, write_csv
from stillframe.paths import write_json
from stillframe.types import DatasetCard

FEW = 100  # pictures below which a note says that the intervals are uncertain


def write_validation(predictions: pd.DataFrame, card: DatasetCard, out: Path) -> dict[str, float]:
    """Write metrics.json, notes.json, reliability.csv and pixel_confusion.csv of the val split; return the metrics."""
    pictures, scores, notes = _scored(predictions, card)
    write_json(out / "metrics.json", scores)
    write_json(out / "notes.json", notes)
    write_csv(out / "reliability.csv", reliability(pictures))
    write_csv(out / "pixel_confusion.csv", confusion_table(pictures, card.classes))
    return scores


def write_test(
    predictions: pd.DataFrame,
    card: DatasetCard,
    out: Path,
    *,
    seed: int,
    bootstrap: int,
    slices: Sequence[str],
    gallery: int,
) -> tuple[dict[str, float], pd.DataFrame]:
    """Write every table of the test split into `out`.

    Args:
        predictions: the columns of predictions.parquet.
        card: of the data set.
        out: artifacts/evaluate; gets metrics.json, intervals.json, baseline.json, notes.json, per_class.csv,
            pixel_confusion.csv, reliability.csv, slices.csv, gallery.csv.
        seed: of the bootstrap.
        bootstrap: resamples; 0: no intervals.
        slices: `evaluate.slices`.
        gallery: rows of the gallery, at most.

    Returns:
        The metrics, and the gallery's table (its `file` column names the pictures that are to be drawn).

    Raises:
        ValueError: no samples, or a slice that does not exist.
    """
    pictures, scores, notes = _scored(predictions, card)
    by_slice = slice_table(predictions, pictures, slices, card.classes, resamples=bootstrap, seed=seed)
    found = image_intervals(pictures, card.classes, resamples=bootstrap, seed=seed)
    intervals = {name: (round(low, DIGITS), round(high, DIGITS)) for name, (low, high) in found.items()}
    worst = gallery_table(predictions, card.classes, gallery)
    write_json(out / "metrics.json", scores)
    write_json(out / "intervals.json", {name: list(bounds) for name, bounds in intervals.items()})
    write_json(out / "baseline.json", baseline(pictures, card))
    if len(predictions) < FEW:
        notes.append(f"Only {len(predictions)} test images: the intervals are wide, and themselves uncertain.")
    write_json(out / "notes.json", notes)
    tables = {
        "per_class": per_class(pictures, card.classes, scores, intervals),
        "pixel_confusion": confusion_table(pictures, card.classes),
        "reliability": reliability(pictures),
        "slices": by_slice,
        "gallery": worst,
    }
    for name, table in tables.items():
        write_csv(out / f"{name}.csv", table)
    return scores, worst


def _scored(predictions: pd.DataFrame, card: DatasetCard) -> tuple[PixelCounts, dict[str, float], list[str]]:
    if predictions.empty:
        raise ValueError("the split is empty: set data.val_fraction and data.test_fraction above 0")
    pictures = PixelCounts.of(predictions, len(card.classes))
    if not pictures.actual_NK.any():
        raise ValueError("no pixel of this split is of a class: all masks hold the ignore value only")
    scores = {name: round(value, DIGITS) for name, value in pictures.scores(card.classes).items()}
    return pictures, scores, notes_about(pictures, card.classes)


def notes_about(pictures: PixelCounts, classes: Sequence[str]) -> list[str]:
    """What a reader must know about the scores of this split."""
    actual, answered = pictures.actual_NK.sum(0), pictures.answered_NK.sum(0)
    absent = [name for name, count in zip(classes, actual, strict=True) if not count]
    never = [name for name, here, said in zip(classes, actual, answered, strict=True) if here and not said]
    notes = []
    if absent:
        notes.append(
            f"No pixel of {', '.join(map(repr, absent))} in this split: recall is not defined there, and macro "
            "averages are over the other classes."
        )
    if never:
        notes.append(f"The model never answers {', '.join(map(repr, never))}: its IoU is 0.")
    return notes


def baseline(pictures: PixelCounts, card: DatasetCard) -> dict[str, float | str]:
    """Scores of answering one class everywhere: the one with most train pixels, of most data the background.

    Its name is under "class"; the first class, where the card does not count pixels.
    """
    pixels = card.pixels.get("train", {})
    answer = int(np.argmax([pixels.get(name, 0) for name in card.classes]))
    counts_KK = np.zeros_like(pictures.confusion_KK)
    counts_KK[:, answer] = pictures.confusion_KK.sum(1)
    return {**mask_scores(counts_KK, card.classes), "class": card.classes[answer]}


def confusion_table(pictures: PixelCounts, classes: Sequence[str]) -> pd.DataFrame:
    """Columns actual, predicted (class names), pixels; one row a pair that occurs."""
    rows, columns = np.nonzero(pictures.confusion_KK)
    names = np.asarray(classes, dtype=object)
    pixels = pictures.confusion_KK[rows, columns]
    return pd.DataFrame({"actual": names[rows], "predicted": names[columns], "pixels": pixels})


def reliability(pictures: PixelCounts) -> pd.DataFrame:
    """Columns stage (before, after calibration), bin, confidence, accuracy (means in the bin), count (pixels)."""
    parts = []
    for stage, bins_N3B in (("before", pictures.before_N3B), ("after", pictures.bins_N3B)):
        count, confidence, right = bins_N3B.sum(0)
        held = np.flatnonzero(count)
        table = {"bin": held, "confidence": confidence[held] / count[held], "accuracy": right[held] / count[held]}
        parts.append(pd.DataFrame({"stage": stage, **table, "count": count[held].astype(np.int64)}))
    return pd.concat(parts, ignore_index=True)


def per_class(
    pictures: PixelCounts,
    classes: Sequence[str],
    scores: Mapping[str, float],
    intervals: Mapping[str, tuple[float, float]],
) -> pd.DataFrame:
    """One row a class: support and predicted (pixels), pictures, and each score with `<name>_low` and `<name>_high`.

    A score that is not defined, and an interval that is not there, is an empty cell.
    """
    actual, answered = pictures.actual_NK.sum(0), pictures.answered_NK.sum(0)
    held = (pictures.actual_NK > 0).sum(0)
    rows = []
    for at, name in enumerate(classes):
        row: dict[str, object] = {"class": name, "support": int(actual[at]), "predicted": int(answered[at])}
        row["pictures"] = int(held[at])
        for kind in (*OF_CLASS, "boundary_f1"):
            low, high = intervals.get(f"{kind}/{name}", (None, None))
            row |= {kind: scores.get(f"{kind}/{name}"), f"{kind}_low": low, f"{kind}_high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def slice_table(
    predictions: pd.DataFrame,
    pictures: PixelCounts,
    columns: Sequence[str],
    classes: Sequence[str],
    *,
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Scores by slice, as `measure.review.slice_table` has them of labels.

    Returns:
        Columns slice, value, n (pictures), iou_macro, low, high (bootstrap over the slice's pictures), f1_macro,
        accuracy; macro averages over the classes that the slice has.

    Raises:
        ValueError: a column that the samples do not have, with the nearest right name.
    """
    extra = pd.DataFrame([json.loads(text or "{}") for text in predictions["slices"]], index=range(len(predictions)))
    rows = []
    for column in columns:
        value_N = slice_values(predictions, column, extra)
        for value in slices_in_order(value_N, MOST_VALUES):
            held_N = (value_N == value).fillna(False).to_numpy(dtype=bool)
            part = pictures.part(held_N)
            if not part.actual_NK.any():
                continue
            score = {
                name: float(found[0])
                for name, found in part.drawn(np.ones((1, int(held_N.sum())))).items()
                if found.ndim == 1
            }
            bounds = image_intervals(part, classes, resamples=resamples, seed=seed).get("iou_macro", (None, None))
            row = {"slice": column, "value": value, "n": int(held_N.sum()), "iou_macro": score["iou_macro"]}
            row |= {"low": bounds[0], "high": bounds[1]}
            rows.append({**row, "f1_macro": score["f1_macro"], "accuracy": score["accuracy"]})
    return pd.DataFrame(rows, columns=["slice", "value", "n", "iou_macro", "low", "high", "f1_macro", "accuracy"])


def gallery_table(predictions: pd.DataFrame, classes: Sequence[str], most: int) -> pd.DataFrame:
    """The pictures with the lowest mean IoU over the classes in truth or answer, the worst one first.

    Returns:
        Columns rank (from 1), file (the picture that is drawn), index (row in the split), id, iou, f1, accuracy,
        confidence, weakest (the class with the lowest IoU in this picture), weakest_iou.
    """
    known = predictions[predictions["iou"].notna()]
    worst = known.sort_values(["iou", "id"], kind="stable").head(most).reset_index(drop=True)
    weakest = [_weakest(cell, pixels, classes) for cell, pixels in zip(worst["cell"], worst["pixels"], strict=True)]
    table = worst[["index", "id", "iou", "f1", "accuracy", "confidence"]].copy()
    table["weakest"] = [name for name, _ in weakest]
    table["weakest_iou"] = [value for _, value in weakest]
    table.insert(0, "rank", np.arange(1, len(table) + 1))
    table.insert(1, "file", [f"gallery/{rank:03d}.png" for rank in table["rank"]])
    return table


def _weakest(cell: Sequence[int], pixels: Sequence[int], classes: Sequence[str]) -> tuple[str, float]:
    """The class with the lowest IoU of those in a picture's truth or answer, and that IoU."""
    counts_KK = np.zeros((len(classes), len(classes)))
    counts_KK.flat[np.asarray(cell, dtype=np.int64)] = np.asarray(pixels)
    union = counts_KK.sum(1) + counts_KK.sum(0) - np.diagonal(counts_KK)
    iou = np.divide(np.diagonal(counts_KK), union, out=np.full(len(classes), np.inf), where=union > 0)
    return classes[int(iou.argmin())], float(iou.min())
