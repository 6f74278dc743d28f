"""Is one setting better than another? Repeats by Student's t, single runs by a paired bootstrap over samples.

Repeats whose train images overlap (folds, or a split drawn anew with each seed) are not independent: their mean varies
more than the usual formula says. The variance is then that of Nadeau and Bengio.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from stillframe.evaluation.bootstrap import LEVEL, make_scorer, percentiles, resampled
from stillframe.tasks.base import Task

if TYPE_CHECKING:
    from stillframe.tasks.base_evaluation import Scorer

SAME_SCORE = 1e-12  # two scores of a sample that are no further apart are equal
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


def sample_spread(scorer: Scorer, count: int, metric: str, *, resamples: int, seed: int) -> Spread:
    """A score of one run with its percentile bootstrap interval over the samples.

    Args:
        scorer: of `bootstrap.make_scorer`.
        count: samples.
        metric: one of the scorer's.
        resamples: how many draws.
        seed: of the draws.

    Returns:
        NaN for the bounds where all draws give the same score: drawing samples that are all right shows no other one.
    """
    drawn = resampled(scorer, count, resamples=resamples, seed=seed)
    low, high = percentiles(drawn[metric]) if drawn else (math.nan, math.nan)
    mean = float(scorer(np.ones((1, count)))[metric][0])
    return Spread(1, mean, math.nan, *((math.nan, math.nan) if low == high else (low, high)))


def paired_difference(
    first: Scorer, second: Scorer, count: int, metric: str, *, resamples: int, seed: int
) -> Difference:
    """The paired bootstrap of the difference of two models on the same samples (Efron and Tibshirani 1993, chapter 8).

    Each draw takes the same samples for both, so what is hard for both cancels. It says how the difference would vary
    with other samples; not how it would vary with another seed.

    Args:
        first: of `bootstrap.make_scorer`.
        second: of the other model's predictions of the same samples in the same order.
        count: samples.
        metric: one that both scorers have.
        resamples: how many draws.
        seed: of the draws.
    """

    def gap(weight_RN: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        return {metric: first(weight_RN)[metric] - second(weight_RN)[metric]}

    drawn = resampled(gap, count, resamples=resamples, seed=seed)
    low, high = percentiles(drawn[metric]) if drawn else (math.nan, math.nan)
    return Difference(float(gap(np.ones((1, count)))[metric][0]), low, high, "images")


@dataclass(frozen=True)
class Discordant:
    """Samples on which one of two models is better.

    Attributes:
        first: on which the first model is.
        second: on which the second model is.
        p: two-sided p-value of "both are better equally often"; 1 where they agree everywhere.
    """

    first: int
    second: int
    p: float


def mcnemar(first_N: ArrayLike, second_N: ArrayLike) -> Discordant:
    """The exact sign test of two models on the same samples; of right (1) and wrong (0) it is McNemar's test (1947).

    Args:
        first_N: `tasks.base_evaluation.Evaluation.sample_scores` of the first model.
        second_N: of the second model, on the same samples in the same order.
    """
    from scipy.stats import binomtest

    gap_N = np.asarray(first_N, dtype=np.float64) - np.asarray(second_N, dtype=np.float64)
    first, second = int((gap_N > SAME_SCORE).sum()), int((gap_N < -SAME_SCORE).sum())
    return Discordant(first, second, float(binomtest(first, first + second).pvalue) if first + second else 1.0)


def comparable_metrics(task: Task, predictions: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """The metrics by which two models can be compared, sample by sample, with these columns of predictions."""
    values = make_scorer(task, predictions, names)(np.ones((1, len(predictions))))
    return [metric.name for metric in task.metrics if not metric.per_class and metric.name in values]


def count_target_mismatches(task: Task, first: pd.DataFrame, second: pd.DataFrame, names: Sequence[str]) -> int:
    """Number of samples whose target differs between two tables of predictions, as far as their statistics show."""
    differs_N = np.zeros(len(first), dtype=bool)
    ours, theirs = (task.evaluation.statistics(table, names, {}) for table in (first, second))
    for name in task.evaluation.TARGET:
        gap = abs(ours[name] - theirs[name])
        differs_N |= np.asarray(gap.sum(axis=tuple(range(1, gap.ndim)))).reshape(-1) > 0
    return int(differs_N.sum())


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
