"""95 % intervals of scores: the percentile bootstrap, and Wilson's interval for a share.

`scipy.stats.bootstrap` resamples for one statistic at a time; here each resample is counted once and gives
all metrics.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stillframe.evaluation.class_scores import (
    FROM_CONFUSION,
    PER_CLASS,
    confidence_bins,
    own_brier,
    own_log_loss,
    rates,
)

LEVEL = 0.95
CHUNK = 2_000_000  # drawn indices at a time: bounds the memory to some 50 MB
MOST_RANKED = 5_000_000_000  # resamples x samples x classes up to which AUROC is resampled (about a minute)


def wilson(right: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share (Wilson 1927); good for few samples too, and for 0 or 100 %.

    Args:
        right: successes, 0..total.
        total: trials, at least 1.
    """
    from scipy.stats import binomtest

    interval = binomtest(right, total).proportion_ci(LEVEL, method="wilson")
    return float(interval.low), float(interval.high)


def bootstrap_intervals(
    label_N: ArrayLike,
    probabilities_NK: ArrayLike,
    classes: Sequence[str],
    bins: int,
    predicted_N: ArrayLike | None = None,
    *,
    resamples: int,
    seed: int,
) -> dict[str, tuple[float, float]]:
    """Percentile bootstrap (Efron 1979): samples drawn with replacement, the middle 95 % of each metric.

    Args:
        label_N: class indices.
        probabilities_NK: rows that sum to 1.
        classes: K names.
        bins: of the calibration error.
        predicted_N: the decisions; without it the most probable class.
        resamples: 0 gives no intervals.
        seed: of the draws; the same seed gives the same intervals.

    Returns:
        metric -> (low, high), by the names of `classification_scores`. A metric that is undefined in more
        than half of the resamples (a class with a sample or two) has no interval.
    """
    label_N, probabilities_NK = (
        np.asarray(label_N, dtype=np.int64),
        np.asarray(probabilities_NK, dtype=np.float64),
    )
    decided_N = probabilities_NK.argmax(1) if predicted_N is None else np.asarray(predicted_N, dtype=np.int64)
    if resamples < 1 or not len(label_N):
        return {}
    rng = np.random.default_rng(seed)
    resampled = _Resampled(label_N, probabilities_NK, decided_N, bins, resamples)
    size = max(1, CHUNK // len(label_N))
    parts = [
        resampled.scores(rng.integers(0, len(label_N), (min(size, resamples - first), len(label_N))))
        for first in range(0, resamples, size)
    ]
    drawn = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    flat = {name: value for name, value in drawn.items() if value.ndim == 1}
    flat |= {f"{kind}/{name}": drawn[kind][:, at] for kind in PER_CLASS for at, name in enumerate(classes)}
    return {name: _middle(value) for name, value in flat.items() if np.isfinite(value).mean() > 0.5}


def _middle(value_R: NDArray[np.float64]) -> tuple[float, float]:
    """The middle `LEVEL` of the defined values."""
    tail = 50.0 * (1.0 - LEVEL)
    low, high = np.percentile(value_R[np.isfinite(value_R)], [tail, 100.0 - tail])
    return float(low), float(high)


class _Resampled:
    """What each sample adds to each metric, so that a resample is a sum over its drawn indices."""

    def __init__(
        self,
        label_N: NDArray[np.int64],
        probabilities_NK: NDArray[np.float64],
        decided_N: NDArray[np.int64],
        bins: int,
        resamples: int,
    ) -> None:
        confidence_N, top_N = probabilities_NK.max(1), probabilities_NK.argmax(1)
        self.samples, self.classes = probabilities_NK.shape
        self.bins = bins
        self.label_N, self.decided_N = label_N, decided_N
        self.right_N = (label_N == decided_N).astype(np.float64)
        self.bin_N, self.gap_N = confidence_bins(confidence_N, bins), confidence_N - (top_N == label_N)
        self.log_loss_N, self.brier_N = (
            own_log_loss(label_N, probabilities_NK),
            own_brier(label_N, probabilities_NK),
        )
        ranked = [1] if self.classes == 2 else list(range(self.classes))
        if resamples * self.samples * len(ranked) > MOST_RANKED:
            ranked = []
        self.ranked = [_Ranked(label_N == at, probabilities_NK[:, at]) for at in ranked]

    def scores(self, drawn_RN: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
        """Metrics (R,) and per-class metrics (R, K) of resamples given by their drawn indices."""
        resamples, right_RN = len(drawn_RN), self.right_N[drawn_RN]
        label_RN, decided_RN = self.label_N[drawn_RN], self.decided_N[drawn_RN]
        values = rates(
            _counted(label_RN, self.classes, right_RN),
            _counted(label_RN, self.classes),
            _counted(decided_RN, self.classes),
        )
        out = {name: values[name] for name in (*FROM_CONFUSION, *PER_CLASS)}
        out["log_loss"] = self.log_loss_N[drawn_RN].mean(1)
        out["brier"] = self.brier_N[drawn_RN].mean(1)
        gap_RB = _counted(self.bin_N[drawn_RN], self.bins, self.gap_N[drawn_RN])
        out["ece"] = np.abs(gap_RB).sum(1) / self.samples
        if self.ranked:
            times_RN = _counted(drawn_RN, self.samples).astype(np.float32)
            area = np.stack([ranked.area(times_RN) for ranked in self.ranked])
            defined = np.isfinite(area)
            total = np.where(defined, area, 0.0).sum(0)
            out["auroc"] = np.divide(total, defined.sum(0), out=np.full(resamples, np.nan), where=defined.any(0))
        return out


def _counted(key_RN: NDArray[np.int64], keys: int, weight_RN: NDArray[Any] | None = None) -> NDArray[Any]:
    """Per row: how often (or with which summed weight) each key 0..keys-1 occurs, (R, keys)."""
    rows = len(key_RN)
    flat = (key_RN + np.arange(rows)[:, None] * keys).ravel()
    weights = None if weight_RN is None else weight_RN.ravel()
    return np.bincount(flat, weights=weights, minlength=rows * keys).reshape(rows, keys)


class _Ranked:
    """One class against the rest, sorted once, so that the AUROC of a resample needs no sorting."""

    def __init__(self, positive_N: NDArray[np.bool_], score_N: NDArray[np.float64]) -> None:
        self.order = np.argsort(score_N, kind="stable")
        self.positive = positive_N[self.order]
        score = score_N[self.order]
        self.starts = np.flatnonzero(np.r_[True, score[1:] != score[:-1]])  # ties share a step

    def area(self, times_RN: NDArray[np.float32]) -> NDArray[np.float64]:
        """AUROC (Mann-Whitney) of each resample, (R,); NaN where one side is not drawn."""
        times = times_RN[:, self.order]
        if len(self.starts) == times.shape[1]:
            positive, every = times * self.positive, times
        else:
            positive = np.add.reduceat(times * self.positive, self.starts, axis=1)
            every = np.add.reduceat(times, self.starts, axis=1)
        negative = every - positive
        below = np.cumsum(negative, axis=1, dtype=np.float64) - 0.5 * negative
        pairs = negative.sum(1, dtype=np.float64) * positive.sum(1, dtype=np.float64)
        wins = np.einsum("rn,rn->r", positive, below, dtype=np.float64)
        return np.asarray(np.divide(wins, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0))
