"""ROC and precision-recall curves of single classes, and their area under resampling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

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
    for k, name in enumerate(classes):
        positive_N, score_N = label_N == k, probabilities_NK[:, k]
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
        point = np.unique(np.searchsorted(length, np.linspace(0.0, length[-1], POINTS)).clip(0, len(x) - 1))
        point[0], point[-1] = 0, len(x) - 1
        x, y = x[point], y[point]
    return pd.DataFrame({"class": name, "x": np.round(x, 6), "y": np.round(y, 6)})


class RankedScores:
    """Scores of one class against the rest, sorted once, so that the AUROC of a resample needs no sorting.

    The area is the Mann-Whitney statistic: the share of pairs, a positive and a negative sample, that are ranked right.
    """

    def __init__(self, positive_N: NDArray[np.bool_], score_N: NDArray[np.float64]) -> None:
        self.order = np.argsort(score_N, kind="stable")
        self.positive = positive_N[self.order]
        score = score_N[self.order]
        self.starts = np.flatnonzero(np.r_[True, score[1:] != score[:-1]])  # ties share a step

    def area(self, weight_RN: NDArray[np.float32]) -> NDArray[np.float64]:
        """AUROC of each resample, (R,); NaN where one side is not drawn."""
        weight = weight_RN[:, self.order]
        if len(self.starts) == weight.shape[1]:  # no ties
            positive, every = weight * self.positive, weight
        else:
            positive = np.add.reduceat(weight * self.positive, self.starts, axis=1)
            every = np.add.reduceat(weight, self.starts, axis=1)
        negative = every - positive
        below = np.cumsum(negative, axis=1, dtype=np.float64) - 0.5 * negative
        pairs = negative.sum(1, dtype=np.float64) * positive.sum(1, dtype=np.float64)
        wins = np.einsum("rn,rn->r", positive, below, dtype=np.float64)
        return np.asarray(np.divide(wins, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0))
