"""Is one setting better than another? Repeats by Student's t, single runs by a paired bootstrap over images.

Repeats whose train images overlap (folds, or a split drawn anew with each seed) are not independent: their mean varies
more than the usual formula says. The variance is then that of Nadeau and Bengio.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stillframe.evaluation.class_scores import FROM_CONFUSION, rates
from stillframe.evaluation.intervals import LEVEL

BETTER, WORSE, SAME, UNKNOWN = "better", "worse", "no difference shown", "not comparable"


@dataclass(frozen=True)
class Spread:
    """A score over repeats or resamples.

    Attributes:
        count: repeats; 1 when the interval is over the images of one run.
        deviation: standard deviation over the repeats (n - 1 below); NaN for one.
        low: of the 95 % interval; NaN where there is none.
        high: of the 95 % interval; NaN where there is none.
    """

    count: int
    mean: float
    deviation: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """First less second, on the same repeats or the same images.

    Attributes:
        how: "repeats", "images" or, when nothing can be said, why.
    """

    mean: float
    low: float
    high: float
    how: str

    def verdict(self, more_is_better: bool) -> str:
        """What the interval says of the first: `BETTER` or `WORSE` only where it excludes 0."""
        if math.isnan(self.mean):
            return UNKNOWN
        if math.isnan(self.low) or self.low <= 0 <= self.high:
            return SAME
        return BETTER if (self.low > 0) == more_is_better else WORSE


def overlap_of_folds(folds: int) -> float:
    """Validation over train images of K folds, as `spread_of` and `paired_repeats` want it."""
    assert folds >= 2
    return 1.0 / (folds - 1)


def spread_of(value_R: ArrayLike, overlap: float = 0.0) -> Spread:
    """Mean, standard deviation and 95 % interval (Student's t) of a score over repeats.

    With `overlap` above 0 the variance of the mean is s^2 (1/R + overlap) instead of s^2/R: Nadeau and Bengio,
    "Inference for the generalization error", Machine Learning 52 (2003), section 4.1; for repeated folds so used by
    Bouckaert and Frank (PAKDD 2004).

    Args:
        value_R: the score in each of R repeats, R of 1 or more; finite.
        overlap: validation images over train images where repeats share train images, else 0.

    Returns:
        NaN for the deviation and the bounds of a single value, and for the bounds of equal values: repeats that
        agree to the last digit say nothing about the next one.
    """
    value_R = np.asarray(value_R, dtype=np.float64)
    count, mean = len(value_R), float(value_R.mean())
    if count < 2:
        return Spread(count, mean, math.nan, math.nan, math.nan)
    deviation = float(value_R.std(ddof=1))
    if deviation <= 1e-12 * max(1.0, abs(mean)):
        return Spread(count, mean, 0.0, math.nan, math.nan)
    from scipy.stats import t

    half = float(t.ppf(0.5 + LEVEL / 2, count - 1)) * deviation * math.sqrt(1.0 / count + overlap)
    return Spread(count, mean, deviation, mean - half, mean + half)


def paired_repeats(first_R: ArrayLike, second_R: ArrayLike, overlap: float = 0.0) -> Difference:
    """The paired t interval of the difference of two settings over the same seeds and folds.

    Args:
        first_R: the score of the first setting in each repeat, R of 2 or more.
        second_R: of the second, in the same order.
        overlap: as in `spread_of`; 1/R + overlap gives the corrected resampled t test.
    """
    gap_R = np.asarray(first_R, dtype=np.float64) - np.asarray(second_R, dtype=np.float64)
    assert len(gap_R) >= 2
    spread = spread_of(gap_R, overlap)
    return Difference(spread.mean, spread.low, spread.high, "repeats")


def image_spread(
    label_N: ArrayLike, predicted_N: ArrayLike, classes: int, metric: str, *, resamples: int, seed: int
) -> Spread:
    """A score of one run with its percentile bootstrap interval over the images.

    Drawing N images with replacement is drawing the counts of the pairs (label, answer) from a multinomial: the same
    distribution as `measure.intervals.bootstrap_intervals`, at a cost that does not grow with N.

    Args:
        label_N: class indices.
        predicted_N: class indices.
        classes: K.
        metric: one of `FROM_CONFUSION`.
        resamples: how many draws.
        seed: of the draws.

    Returns:
        NaN for the bounds where all draws give the same score.
    """
    score, drawn_R = _resampled(label_N, [predicted_N], classes, metric, resamples, seed)
    low, high = _middle(drawn_R[0])
    if low == high:  # all answers right, say: drawing them again shows no other one
        low = high = math.nan
    return Spread(1, float(score[0]), math.nan, low, high)


def paired_images(
    label_N: ArrayLike,
    first_N: ArrayLike,
    second_N: ArrayLike,
    classes: int,
    metric: str,
    *,
    resamples: int,
    seed: int,
) -> Difference:
    """The paired bootstrap of the difference of two models on the same images (Efron and Tibshirani 1993, chapter 8).

    Each draw takes the same images for both, so what is hard for both cancels. It says how the difference would vary
    with other images; not how it would vary with another seed.

    Args:
        label_N: class indices.
        first_N: answers of the first model.
        second_N: answers of the second model, to the same images in the same order.
        classes: K.
        metric: one of `FROM_CONFUSION`.
        resamples: how many draws.
        seed: of the draws.
    """
    score, drawn_R = _resampled(label_N, [first_N, second_N], classes, metric, resamples, seed)
    low, high = _middle(drawn_R[0] - drawn_R[1])
    return Difference(float(score[0] - score[1]), low, high, "images")


@dataclass(frozen=True)
class Discordant:
    """Images that only one of two models answers right.

    Attributes:
        first: right by the first model only.
        second: right by the second model only.
        p: two-sided p-value of "both are right equally often"; 1 where they agree everywhere.
    """

    first: int
    second: int
    p: float


def mcnemar(label_N: ArrayLike, first_N: ArrayLike, second_N: ArrayLike) -> Discordant:
    """McNemar's test of two accuracies on the same images, exact (McNemar 1947; the binomial form holds for few, too).

    Args:
        label_N: class indices.
        first_N: answers of the first model.
        second_N: answers of the second model, to the same images in the same order.
    """
    from scipy.stats import binomtest

    right_2N = np.stack([np.asarray(first_N), np.asarray(second_N)]) == np.asarray(label_N)
    first, second = int((right_2N[0] & ~right_2N[1]).sum()), int((~right_2N[0] & right_2N[1]).sum())
    return Discordant(first, second, float(binomtest(first, first + second).pvalue) if first + second else 1.0)


def _resampled(
    label_N: ArrayLike, answers: Sequence[ArrayLike], classes: int, metric: str, resamples: int, seed: int
) -> tuple[list[float], list[NDArray[np.float64]]]:
    """For each model its score, and its score in each resample (R,)."""
    assert metric in FROM_CONFUSION, metric
    kinds = np.stack([np.asarray(column, dtype=np.int64) for column in (label_N, *answers)], axis=1)
    cell_C, count_C = np.unique(kinds, axis=0, return_counts=True)
    total = int(count_C.sum())
    drawn_RC = np.random.default_rng(seed).multinomial(total, count_C / total, size=resamples).astype(np.float64)
    counts = np.concatenate([count_C[None].astype(np.float64), drawn_RC])
    actual = counts @ np.eye(classes)[cell_C[:, 0]]
    scores, drawn = [], []
    for at in range(1, cell_C.shape[1]):
        answer_CK = np.eye(classes)[cell_C[:, at]]
        right_CK = answer_CK * (cell_C[:, 0] == cell_C[:, at])[:, None]
        value = rates(counts @ right_CK, actual, counts @ answer_CK)[metric]
        scores.append(float(value[0]))
        drawn.append(value[1:])
    return scores, drawn


def _middle(value_R: NDArray[np.float64]) -> tuple[float, float]:
    tail = 50.0 * (1.0 - LEVEL)
    low, high = np.percentile(value_R, [tail, 100.0 - tail])
    return float(low), float(high)


def pareto(value_NM: ArrayLike, more_is_better: Sequence[bool]) -> NDArray[np.bool_]:
    """Which of N settings no other one beats: none is as good in all M values and better in one.

    Args:
        value_NM: finite.
        more_is_better: one an M.
    """
    sign = np.where(np.asarray(more_is_better), 1.0, -1.0)
    value_NM = np.asarray(value_NM, dtype=np.float64).reshape(-1, len(sign)) * sign
    as_good = (value_NM[:, None] >= value_NM[None]).all(-1)
    better = (value_NM[:, None] > value_NM[None]).any(-1)
    return np.asarray(~(as_good & better).any(0))
