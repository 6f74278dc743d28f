"""Tables behind the figures: ROC and precision-recall points, reliability, per class, confusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from stillframe.evaluation.class_scores import PER_CLASS, confidence_bins

POINTS = 200  # of a curve, at most


def curve_points(
    label_N: ArrayLike, probabilities_NK: ArrayLike, classes: Sequence[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """ROC and precision-recall curves of each class against the rest.

    Returns:
        Two tables of columns class, x, y with at most `POINTS` points a class: (false positive rate, true
        positive rate) and (recall, precision). A class that has no samples, or all of them, has no curve.
    """
    from sklearn.metrics import precision_recall_curve, roc_curve

    label_N, probabilities_NK = np.asarray(label_N), np.asarray(probabilities_NK, dtype=np.float64)
    roc, pr = [], []
    for at, name in enumerate(classes):
        positive_N, score_N = label_N == at, probabilities_NK[:, at]
        if positive_N.all() or not positive_N.any():
            continue
        false_rate, true_rate, _ = roc_curve(positive_N, score_N)
        precision, recall, _ = precision_recall_curve(positive_N, score_N, drop_intermediate=True)
        roc.append(_thinned(name, false_rate, true_rate))
        pr.append(_thinned(name, recall[::-1], precision[::-1]))
    empty = pd.DataFrame({"class": [], "x": [], "y": []})
    return (
        pd.concat(roc, ignore_index=True) if roc else empty,
        pd.concat(pr, ignore_index=True) if pr else empty,
    )


def _thinned(name: str, x: NDArray[np.float64], y: NDArray[np.float64]) -> pd.DataFrame:
    """At most `POINTS` points, evenly along the curve's length, so that a steep part keeps its own."""
    if len(x) > POINTS:
        length = np.r_[0.0, np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))]
        kept = np.unique(np.searchsorted(length, np.linspace(0.0, length[-1], POINTS)).clip(0, len(x) - 1))
        kept[0], kept[-1] = 0, len(x) - 1
        x, y = x[kept], y[kept]
    return pd.DataFrame({"class": name, "x": np.round(x, 6), "y": np.round(y, 6)})


def reliability(label_N: ArrayLike, probabilities_NK: ArrayLike, bins: int, stage: str) -> pd.DataFrame:
    """The reliability curve of the top-label confidence (Guo et al. 2017); empty bins are left out.

    Args:
        label_N: class indices.
        probabilities_NK: rows that sum to 1.
        bins: over 0..1.
        stage: "before" or "after" calibration, for the column of that name.

    Returns:
        Columns stage, bin, confidence, accuracy (means in the bin), count.
    """
    label_N, probabilities_NK = np.asarray(label_N), np.asarray(probabilities_NK, dtype=np.float64)
    confidence_N, right_N = probabilities_NK.max(1), probabilities_NK.argmax(1) == label_N
    bin_N = confidence_bins(confidence_N, bins)
    count = np.bincount(bin_N, minlength=bins)
    held = np.flatnonzero(count)
    return pd.DataFrame(
        {
            "stage": stage,
            "bin": held,
            "confidence": np.bincount(bin_N, weights=confidence_N, minlength=bins)[held] / count[held],
            "accuracy": np.bincount(bin_N, weights=right_N, minlength=bins)[held] / count[held],
            "count": count[held],
        }
    )


def per_class(
    label_N: ArrayLike,
    predicted_N: ArrayLike,
    classes: Sequence[str],
    scores: Mapping[str, float],
    intervals: Mapping[str, tuple[float, float]],
) -> pd.DataFrame:
    """One row a class: support, predicted, precision, recall, f1, each with `<name>_low` and `<name>_high`.

    A score that is not defined (no samples of the class), and an interval that is not there, is an empty
    cell.
    """
    actual = np.bincount(np.asarray(label_N), minlength=len(classes))
    answered = np.bincount(np.asarray(predicted_N), minlength=len(classes))
    rows = []
    for at, name in enumerate(classes):
        row: dict[str, object] = {"class": name, "support": int(actual[at]), "predicted": int(answered[at])}
        for kind in PER_CLASS:
            low, high = intervals.get(f"{kind}/{name}", (None, None))
            row |= {kind: scores.get(f"{kind}/{name}"), f"{kind}_low": low, f"{kind}_high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def confusion_long(label_N: ArrayLike, predicted_N: ArrayLike, classes: Sequence[str]) -> pd.DataFrame:
    """Columns actual, predicted (class names), one row a sample: what DVC's confusion plots read."""
    names = np.asarray(classes, dtype=object)
    return pd.DataFrame({"actual": names[np.asarray(label_N)], "predicted": names[np.asarray(predicted_N)]})
