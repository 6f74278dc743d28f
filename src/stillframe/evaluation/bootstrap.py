"""Scores of a split and of resamples of its samples; 95 % intervals by the percentile bootstrap (Efron 1979).

A split is scored from additive statistics of its samples (`Evaluation.statistics` of a task). A resample is a vector of
weights: how often each sample is drawn. The sums that give its scores are one sparse product for many resamples, so
that every metric, slice and comparison of two models comes from the same few lines, whatever the task.

Suffixes: N samples, R resamples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stillframe.tasks.base import Task

if TYPE_CHECKING:
    from stillframe.tasks.base_evaluation import Choices, Scorer, Statistics

LEVEL = 0.95
CHUNK = 2_000_000  # drawn indices at a time: bounds the memory to some 50 MB
MOST_RANKED = 5_000_000_000  # resamples x samples x names up to which rank scores are resampled (about a minute)


def make_scorer(
    task: Task, predictions: pd.DataFrame, names: Sequence[str], choices: Choices | None = None, *, ranked: bool = False
) -> Scorer:
    """A function from weights (R, N) of the samples to the task's scores (R,), NaN where undefined.

    Args:
        task: whose scores.
        predictions: of N samples; columns may be missing, and then the scores that need them are, too.
        names: see `tasks.base_evaluation.Evaluation`.
        choices: of choices.json, where they are at hand.
        ranked: rank scores (AUROC, mAP) as well, which cost more.
    """
    sums = weighted_sums(task.evaluation.statistics(predictions, names, choices or {}))
    rank = task.evaluation.rank_scores(predictions, names) if ranked else None

    def scores(weight_RN: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        values = task.evaluation.scores(sums(weight_RN), names)
        return values if rank is None else {**values, **rank(weight_RN)}

    return scores


def weighted_sums(statistics: Statistics) -> Any:
    """A function from weights (R, N) to the weighted sums of statistics (N, ...) by name: (R, ...) each."""
    from scipy import sparse

    # All columns in one sparse matrix. A sparse product adds in the order of the samples, so that a sum does not depend
    # on how many resamples are computed together, as it would in a dense one.
    shape = {name: value.shape[1:] for name, value in statistics.items()}
    columns = [v if sparse.issparse(v) else np.reshape(v, (len(v), -1)) for v in statistics.values()]
    matrix = sparse.hstack([sparse.csr_array(column, dtype=np.float64) for column in columns], format="csr").T.tocsr()
    ends = np.cumsum([column.shape[1] for column in columns])[:-1]

    def sums(weight_RN: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        parts = np.split((matrix @ weight_RN.T).T, ends, axis=1)
        return {name: part.reshape(-1, *shape[name]) for name, part in zip(shape, parts, strict=True)}

    return sums


def scores_of(
    task: Task, predictions: pd.DataFrame, names: Sequence[str], choices: Choices | None = None
) -> dict[str, float]:
    """All scores that the columns of predictions allow; undefined ones are left out.

    Raises:
        ValueError: no samples, or predictions that cannot be scored.
    """
    if predictions.empty:
        raise ValueError("there are no samples to score: the split is empty")
    values = make_scorer(task, predictions, names, choices, ranked=True)(np.ones((1, len(predictions))))
    scores = {name: float(value[0]) for name, value in values.items()}
    scores |= task.evaluation.point_scores(predictions, names, choices or {})
    return {name: value for name, value in scores.items() if np.isfinite(value)}


def draws(count: int, resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Weights (R, N) of resamples, a chunk at a time: how often each of N samples is drawn, with replacement."""
    rng, size = np.random.default_rng(seed), max(1, CHUNK // count)
    for first in range(0, resamples, size):
        index_RN = rng.integers(0, count, (min(size, resamples - first), count))
        cell_RN = index_RN + np.arange(len(index_RN))[:, None] * count
        yield np.bincount(cell_RN.ravel(), minlength=index_RN.size).reshape(index_RN.shape).astype(np.float64)


def resampled(scorer: Scorer, count: int, *, resamples: int, seed: int) -> dict[str, NDArray[np.float64]]:
    """Each score in each resample (R,); {} without resamples or samples."""
    if resamples < 1 or not count:
        return {}
    parts = [scorer(weight_RN) for weight_RN in draws(count, resamples, seed)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def intervals(scorer: Scorer, count: int, *, resamples: int, seed: int) -> dict[str, tuple[float, float]]:
    """The middle 95 % of each score over resamples of N = `count` samples.

    `scipy.stats.bootstrap` resamples for one score at a time; here each resample gives all of them.

    Args:
        scorer: of `make_scorer`.
        count: samples.
        resamples: 0 gives no intervals.
        seed: of the draws; the same seed gives the same intervals.

    Returns:
        Score -> (low, high). One that is undefined in more than half of the resamples (a class with a sample or two)
        has no interval.
    """
    drawn = resampled(scorer, count, resamples=resamples, seed=seed)
    return {name: percentiles(value_R) for name, value_R in drawn.items() if np.isfinite(value_R).mean() > 0.5}


def percentiles(value_R: NDArray[np.float64]) -> tuple[float, float]:
    """The middle `LEVEL` of the defined values; NaN where there are none."""
    defined = value_R[np.isfinite(value_R)]
    if not len(defined):
        return float("nan"), float("nan")
    tail = 50.0 * (1.0 - LEVEL)
    low, high = np.percentile(defined, [tail, 100.0 - tail])
    return float(low), float(high)


def wilson(right: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share (Wilson 1927); good for few samples too, and for 0 or 100 %.

    Args:
        right: successes, 0..total.
        total: trials, at least 1.
    """
    from scipy.stats import binomtest

    interval = binomtest(right, total).proportion_ci(LEVEL, method="wilson")
    return float(interval.low), float(interval.high)
