"""What is kept of the masks of a split: counts of each picture, from which all scores, intervals and slices follow.

Suffixes: N pictures, K classes, R resamples, B bins of confidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stillframe.evaluation.comparison import Difference, Spread
from stillframe.evaluation.intervals import LEVEL
from stillframe.evaluation.pixel_scores import OF_CLASS, OF_SPLIT, boundary_scores, mask_scores, pixel_rates

Counted = NDArray[np.float64]
CHUNK = 2_000_000  # weights of resamples at a time: 16 MB


@dataclass(frozen=True)
class PixelCounts:
    """Counts of N pictures.

    Attributes:
        right_NK: pixels of a class answered as it.
        actual_NK: pixels of a class in the truth.
        answered_NK: pixels answered as a class.
        confusion_KK: pixels of all pictures; rows are the true classes.
        boundary_NK: boundary F1; NaN where a picture has no contour of the class.
        bins_N3B: by calibrated confidence: pixels, sum of confidences, pixels answered right.
        before_N3B: the same before calibration, of a part of the pixels.
    """

    right_NK: Counted
    actual_NK: Counted
    answered_NK: Counted
    confusion_KK: NDArray[np.int64]
    boundary_NK: Counted
    bins_N3B: Counted
    before_N3B: Counted

    @classmethod
    def of(cls, predictions: pd.DataFrame, classes: int) -> PixelCounts:
        """From the columns cell, pixels, boundary, bins and bins_before of predictions.parquet."""
        count = len(predictions)
        right, actual, answered = (np.zeros((count, classes)) for _ in range(3))
        confusion = np.zeros(classes * classes, dtype=np.int64)
        for at, (cell, pixels) in enumerate(zip(predictions["cell"], predictions["pixels"], strict=True)):
            cell, pixels = np.asarray(cell, dtype=np.int64), np.asarray(pixels, dtype=np.int64)
            true, said = np.divmod(cell, classes)
            np.add.at(actual[at], true, pixels)
            np.add.at(answered[at], said, pixels)
            right[at, true[true == said]] = pixels[true == said]
            confusion[cell] += pixels
        boundary = np.array(predictions["boundary"].to_list(), dtype=np.float64).reshape(count, classes)
        return cls(
            right,
            actual,
            answered,
            confusion.reshape(classes, classes),
            boundary,
            _binned(predictions["bins"]),
            _binned(predictions["bins_before"]),
        )

    def scores(self, classes: Sequence[str]) -> dict[str, float]:
        """All scores of the pictures together; undefined ones are left out."""
        found = {**mask_scores(self.confusion_KK, classes), **boundary_scores(self.boundary_NK, classes)}
        for name, bins_N3B in (("ece", self.bins_N3B), ("ece_uncalibrated", self.before_N3B)):
            if bins_N3B[:, 0].any():
                found[name] = float(calibration_error(bins_N3B.sum(0)))
        return found

    def part(self, held_N: NDArray[np.bool_]) -> PixelCounts:
        """Some of the pictures; the confusion matrix stays that of all."""
        return PixelCounts(
            self.right_NK[held_N],
            self.actual_NK[held_N],
            self.answered_NK[held_N],
            self.confusion_KK,
            self.boundary_NK[held_N],
            self.bins_N3B[held_N],
            self.before_N3B[held_N],
        )

    def drawn(self, weight_RN: Counted) -> dict[str, Counted]:
        """`OF_SPLIT`, boundary_f1, ece (R,), and `OF_CLASS`, boundary_f1/ (R, K), with the pictures so often each."""
        values = pixel_rates(weight_RN @ self.right_NK, weight_RN @ self.actual_NK, weight_RN @ self.answered_NK)
        held_NK = np.isfinite(self.boundary_NK)
        with np.errstate(divide="ignore", invalid="ignore"):
            boundary_RK = (weight_RN @ np.where(held_NK, self.boundary_NK, 0.0)) / (weight_RN @ held_NK.astype(float))
        defined_RK = np.isfinite(boundary_RK)
        total_R = np.where(defined_RK, boundary_RK, 0.0).sum(1)
        values["boundary_f1/"] = boundary_RK
        values["boundary_f1"] = np.divide(
            total_R, defined_RK.sum(1), out=np.full(len(weight_RN), np.nan), where=defined_RK.any(1)
        )
        bins_R3B = np.einsum("rn,nab->rab", weight_RN, self.bins_N3B)
        values["ece"] = calibration_error(bins_R3B)
        return values


def _binned(column: pd.Series[Any]) -> Counted:
    """(N, 3, B) of a column of lists of 3 * B numbers."""
    values = np.array(column.to_list(), dtype=np.float64).reshape(len(column), -1)
    return values.reshape(len(column), 3, -1)


def calibration_error(bins_3B: Counted) -> Counted:
    """The expected calibration error of counts (..., 3, B) as in `PixelCounts.bins_N3B`: (...), NaN without pixels."""
    count, confidence, right = np.moveaxis(bins_3B, -2, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.abs(confidence - right).sum(-1) / count.sum(-1))


def image_intervals(
    pictures: PixelCounts, classes: Sequence[str], *, resamples: int, seed: int
) -> dict[str, tuple[float, float]]:
    """Percentile bootstrap over the pictures (Efron 1979): pixels of one picture are no independent draws.

    Returns:
        Score -> (low, high), the middle 95 %, by the names of `PixelCounts.scores`. A score that is undefined in
        more than half of the resamples (a class in a picture or two) has no interval.
    """
    count = len(pictures.right_NK)
    if resamples < 1 or not count:
        return {}
    rng, size = np.random.default_rng(seed), max(1, CHUNK // count)
    parts = [
        pictures.drawn(
            rng.multinomial(count, np.full(count, 1 / count), size=min(size, resamples - first)).astype(np.float64)
        )
        for first in range(0, resamples, size)
    ]
    drawn = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    flat = {name: drawn[name] for name in (*OF_SPLIT, "boundary_f1", "ece")}
    for kind, key in [*((kind, kind) for kind in OF_CLASS), ("boundary_f1", "boundary_f1/")]:
        flat |= {f"{kind}/{name}": drawn[key][:, at] for at, name in enumerate(classes)}
    return {name: _middle(value_R) for name, value_R in flat.items() if np.isfinite(value_R).mean() > 0.5}


def _middle(value_R: Counted) -> tuple[float, float]:
    tail = 50.0 * (1.0 - LEVEL)
    low, high = np.percentile(value_R[np.isfinite(value_R)], [tail, 100.0 - tail])
    return float(low), float(high)


def picture_scores(cell: NDArray[np.int64], pixels: NDArray[np.int64], classes: int) -> dict[str, float]:
    """accuracy, iou and f1 of one picture: means over the classes in its truth or its answer; NaN without pixels."""
    counts_KK = np.zeros((classes, classes))
    counts_KK.flat[cell] = pixels
    right, actual, answered = np.diagonal(counts_KK), counts_KK.sum(1), counts_KK.sum(0)
    held = actual + answered > 0
    if not held.any():
        return {"accuracy": float("nan"), "iou": float("nan"), "f1": float("nan")}
    right, actual, answered = right[held], actual[held], answered[held]
    return {
        "accuracy": float(right.sum() / actual.sum()),
        "iou": float((right / (actual + answered - right)).mean()),
        "f1": float((2 * right / (actual + answered)).mean()),
    }


def paired_pictures(first: PixelCounts, second: PixelCounts, metric: str, *, resamples: int, seed: int) -> Difference:
    """The paired bootstrap of the difference of two models that answered the same pictures.

    As `measure.compare.paired_images`: each draw takes the same pictures for both.

    Args:
        first: counts of the first model.
        second: of the second, of the same pictures in the same order.
        metric: one of `OF_SPLIT`, or boundary_f1.
        resamples: how many draws.
        seed: of the draws.
    """
    count, rng = len(first.right_NK), np.random.default_rng(seed)
    whole_1N, gaps, size = np.ones((1, count)), list[Counted](), max(1, CHUNK // count)
    for begun in range(0, resamples, size):
        weight_RN = rng.multinomial(count, np.full(count, 1 / count), size=min(size, resamples - begun)).astype(float)
        gaps.append(first.drawn(weight_RN)[metric] - second.drawn(weight_RN)[metric])
    gap_R = np.concatenate(gaps)
    low, high = _middle(gap_R) if np.isfinite(gap_R).any() else (np.nan, np.nan)
    gap = float(first.drawn(whole_1N)[metric][0] - second.drawn(whole_1N)[metric][0])
    return Difference(gap, low, high, "images")


def picture_spread(pictures: PixelCounts, metric: str, *, resamples: int, seed: int) -> Spread:
    """A score of one run with its percentile bootstrap interval over the pictures; NaN where draws are all equal."""
    score = float(pictures.drawn(np.ones((1, len(pictures.right_NK))))[metric][0])
    low, high = image_intervals(pictures, [], resamples=resamples, seed=seed).get(metric, (np.nan, np.nan))
    return Spread(1, score, np.nan, *((np.nan, np.nan) if low == high else (low, high)))
