"""All tables of one evaluated split, from its predictions; the pictures are the stage's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stillframe.evaluation import breakdown, curves
from stillframe.evaluation.calibration import softmax
from stillframe.evaluation.class_scores import classification_scores, expected_calibration_error, own_log_loss
from stillframe.evaluation.intervals import bootstrap_intervals, wilson
from stillframe.paths import write_json, write_text
from stillframe.types import DatasetCard

DIGITS = 10  # of written scores: below that the order of a sum shows, which may differ from machine to machine


@dataclass(frozen=True)
class LabelPredictions:
    """Labels and what the model says of them, as arrays."""

    label_N: NDArray[np.int64]
    predicted_N: NDArray[np.int64]
    probabilities_NK: NDArray[np.float64]  # calibrated
    uncalibrated_NK: NDArray[np.float64]

    @classmethod
    def of(cls, predictions: pd.DataFrame) -> LabelPredictions:
        """From the columns label, predicted, probabilities, logits."""
        return cls(
            predictions["label"].to_numpy(dtype=np.int64),
            predictions["predicted"].to_numpy(dtype=np.int64),
            np.stack(predictions["probabilities"].to_list()).astype(np.float64),
            softmax(np.stack(predictions["logits"].to_list())),
        )


def split_scores(answers: LabelPredictions, classes: Sequence[str], bins: int) -> tuple[dict[str, float], list[str]]:
    """`classification_scores`, and `ece_uncalibrated` and `log_loss_uncalibrated` at temperature 1."""
    scores, notes = classification_scores(answers.label_N, answers.probabilities_NK, classes, bins, answers.predicted_N)
    scores["ece_uncalibrated"] = expected_calibration_error(answers.label_N, answers.uncalibrated_NK, bins)
    scores["log_loss_uncalibrated"] = float(own_log_loss(answers.label_N, answers.uncalibrated_NK).mean())
    return {name: round(value, DIGITS) for name, value in scores.items()}, notes


def reliability_both(answers: LabelPredictions, bins: int) -> pd.DataFrame:
    """The reliability curve before and after calibration."""
    before = curves.reliability(answers.label_N, answers.uncalibrated_NK, bins, "before")
    after = curves.reliability(answers.label_N, answers.probabilities_NK, bins, "after")
    return pd.concat([before, after], ignore_index=True)


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write without the index, with at most ten digits."""
    write_text(path, table.to_csv(index=False, float_format=f"%.{DIGITS}g", lineterminator="\n"))


def write_validation_tables(predictions: pd.DataFrame, card: DatasetCard, bins: int, out: Path) -> dict[str, float]:
    """Write metrics.json, notes.json, reliability.csv, confusion.csv of the val split; return the metrics."""
    answers = LabelPredictions.of(predictions)
    scores, notes = split_scores(answers, card.classes, bins)
    write_json(out / "metrics.json", scores)
    write_json(out / "notes.json", notes)
    write_csv(out / "reliability.csv", reliability_both(answers, bins))
    write_csv(out / "confusion.csv", curves.confusion_long(answers.label_N, answers.predicted_N, card.classes))
    return scores


def write_tables(
    predictions: pd.DataFrame,
    card: DatasetCard,
    out: Path,
    *,
    bins: int,
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
            confusion.csv, roc.csv, pr.csv, reliability.csv, slices.csv, gallery.csv.
        bins: of the reliability curve and the ECE.
        seed: of the bootstrap.
        bootstrap: resamples; 0: no intervals.
        slices: `evaluate.slices`.
        gallery: rows of the error gallery, at most.

    Returns:
        The metrics, and the gallery's table (its `file` column names the pictures that the stage draws).

    Raises:
        ValueError: no samples, probabilities that are not finite, or a slice that does not exist.
    """
    if predictions.empty:
        raise ValueError("the test split is empty: set data.test_fraction above 0, or give a test folder")
    answers = LabelPredictions.of(predictions)
    by_slice = breakdown.slice_table(predictions, slices, card.classes)
    scores, notes = split_scores(answers, card.classes, bins)
    intervals = _intervals(answers, card.classes, bins, bootstrap, seed)
    roc, pr = curves.curve_points(answers.label_N, answers.probabilities_NK, card.classes)
    errors = breakdown.gallery_table(predictions, card.classes, gallery)
    write_json(out / "metrics.json", scores)
    write_json(out / "intervals.json", {name: list(interval) for name, interval in intervals.items()})
    write_json(out / "baseline.json", breakdown.baseline_scores(card.counts["train"], answers.label_N, card.classes))
    write_json(out / "notes.json", notes + _limits(answers, scores, intervals))
    tables = {
        "per_class": curves.per_class(answers.label_N, answers.predicted_N, card.classes, scores, intervals),
        "confusion": curves.confusion_long(answers.label_N, answers.predicted_N, card.classes),
        "roc": roc,
        "pr": pr,
        "reliability": reliability_both(answers, bins),
        "slices": by_slice,
        "gallery": errors,
    }
    for name, table in tables.items():
        write_csv(out / f"{name}.csv", table)
    return scores, errors


def _intervals(
    answers: LabelPredictions, classes: Sequence[str], bins: int, resamples: int, seed: int
) -> dict[str, tuple[float, float]]:
    """Bootstrap intervals, rounded as the scores are."""
    found = bootstrap_intervals(
        answers.label_N,
        answers.probabilities_NK,
        classes,
        bins,
        answers.predicted_N,
        resamples=resamples,
        seed=seed,
    )
    return {name: (round(low, DIGITS), round(high, DIGITS)) for name, (low, high) in found.items()}


def _limits(
    answers: LabelPredictions, scores: dict[str, float], intervals: dict[str, tuple[float, float]]
) -> list[str]:
    """Where the intervals say less than they seem to."""
    notes, total = [], len(answers.label_N)
    if scores["accuracy"] in (0.0, 1.0):
        low, high = wilson(round(total * scores["accuracy"]), total)
        notes.append(
            f"All {total} answers are {'right' if scores['accuracy'] else 'wrong'}: "
            "the bootstrap interval has no width. "
            f"Wilson's 95 % interval of the accuracy is {100 * low:.1f} to {100 * high:.1f} %."
        )
    elif any(low == high for low, high in intervals.values()):
        notes.append(
            "Where a score of a class is exactly 0 or 100 % its bootstrap interval has no width: "
            "with few images of the class that does not mean certainty."
        )
    if total < 100:
        notes.append(f"Only {total} test images: the intervals are wide, and themselves uncertain.")
    return notes
