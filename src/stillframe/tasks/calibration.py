"""Probabilities that mean what they say, and the threshold that decides: tuned on validation only.

Suffixes: N samples (or pixels), K classes, B bins of confidence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from stillframe.config import ValidateConfig

TINY = 1e-15  # probabilities are kept this far from 0 in a logarithm
COLDEST, HOTTEST = 0.05, 20.0
FEWEST = 30  # validation samples below which one number is not worth fitting


class Tuned(NamedTuple):
    """A tuned number, and why it was left at its neutral value (empty when it was not)."""

    value: float
    note: str = ""


def softmax(logits_NK: ArrayLike, temperature: float = 1.0) -> NDArray[np.float64]:
    """Probabilities (N, K), rows summing to 1, of logits divided by the temperature (> 0)."""
    from scipy.special import softmax as scipy_softmax

    if not temperature > 0:
        raise ValueError(f"temperature = {temperature!r} must be above 0")
    return np.asarray(scipy_softmax(np.asarray(logits_NK, dtype=np.float64) / temperature, axis=1))


def log_loss(label_N: NDArray[Any], probabilities_NK: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each sample's -ln(probability of its own class), (N,)."""
    own_N = probabilities_NK[np.arange(len(label_N)), label_N]
    return np.asarray(-np.log(np.clip(own_N, TINY, 1.0)))


def fit_temperature(logits_NK: ArrayLike, label_N: ArrayLike) -> Tuned:
    """The temperature that makes the logits' probabilities most likely (Guo et al. 2017).

    It changes no decision by the most probable class. It stays 1.0, with a note, when the split cannot say:
    too few samples, one class only, or no wrong answer (any confidence would then look justified).

    Args:
        logits_NK: of the validation split, before softmax.
        label_N: class indices.
    """
    from scipy.optimize import minimize_scalar

    logits_NK, label_N = np.asarray(logits_NK, dtype=np.float64), np.asarray(label_N, dtype=np.int64)
    if len(label_N) < FEWEST:
        return Tuned(1.0, f"Not calibrated: {len(label_N)} validation images are too few (at least {FEWEST}).")
    if len(np.unique(label_N)) < 2:
        return Tuned(1.0, "Not calibrated: the validation images are of one class only.")
    if (logits_NK.argmax(1) == label_N).all():
        return Tuned(1.0, "Not calibrated: no wrong answer on the validation images, so overconfidence cannot be seen.")

    def loss(log_temperature: float) -> float:
        return float(log_loss(label_N, softmax(logits_NK, float(np.exp(log_temperature)))).mean())

    bounds = (float(np.log(COLDEST)), float(np.log(HOTTEST)))
    fit = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    temperature = float(np.exp(fit.x))
    if not fit.success or loss(fit.x) > loss(0.0):
        return Tuned(1.0, "Not calibrated: no temperature is better than 1.")
    if temperature > 0.99 * HOTTEST:
        return Tuned(
            temperature,
            f"The temperature is at its bound of {HOTTEST:g}: the model's answers are close to chance.",
        )
    return Tuned(temperature)


def best_threshold(label_N: ArrayLike, probability_N: ArrayLike) -> Tuned:
    """Binary: the probability of class 1 from which to answer class 1, such that macro F1 is highest.

    Between two neighbouring probabilities any threshold decides alike: the middle is taken. Of equally good
    ones the nearest to 0.5 wins. It stays 0.5, with a note, when the split is too small or of one class only.

    Args:
        label_N: 0 or 1.
        probability_N: calibrated, of class 1.
    """
    label_N, probability_N = np.asarray(label_N, dtype=np.int64), np.asarray(probability_N, dtype=np.float64)
    if len(label_N) < FEWEST or len(np.unique(label_N)) < 2:
        return Tuned(
            0.5,
            f"The threshold stays 0.5: {len(label_N)} validation images (of both classes) cannot tune it.",
        )
    # macro F1 at each cut between two neighbouring probabilities, from cumulative counts below the cut
    value, where, count = np.unique(probability_N, return_inverse=True, return_counts=True)
    if len(value) < 2:
        return Tuned(0.5, "The threshold stays 0.5: all validation images have the same probability.")
    ones = np.cumsum(np.bincount(where, weights=label_N))[:-1]  # of class 1 below each cut
    below = np.cumsum(count)[:-1]
    ones_all, total = label_N.sum(), len(label_N)
    f1_one = 2 * (ones_all - ones) / (total - below + ones_all)
    f1_zero = 2 * (below - ones) / (below + total - ones_all)
    cuts, f1 = (value[:-1] + value[1:]) / 2, (f1_one + f1_zero) / 2
    best = cuts[f1 >= f1.max() - 1e-12]
    return Tuned(float(best[np.argmin(np.abs(best - 0.5))]))


def tune_decisions(logits_NK: ArrayLike, label_N: ArrayLike, validate: ValidateConfig) -> dict[str, Any]:
    """Temperature and threshold for choices.json, with the reason where one was left neutral.

    Args:
        logits_NK: of the validation split, or of a sample of its pixels.
        label_N: class indices.
        validate: section `validate`.

    Raises:
        ValueError: a tuned threshold with other than two classes.
    """
    classes, notes = np.shape(logits_NK)[1], []
    temperature, threshold = 1.0, None
    if validate.calibrate:
        temperature, note = fit_temperature(logits_NK, label_N)
        notes.append(note)
    if validate.threshold == "f1" or (validate.threshold == "auto" and classes == 2):
        if classes != 2:
            raise ValueError(f"validate.threshold = 'f1' needs two classes, not {classes}: use argmax")
        threshold, note = best_threshold(label_N, softmax(logits_NK, temperature)[:, 1])
        notes.append(note)
    chosen = {"temperature": temperature, "threshold": threshold, "bins": validate.bins}
    return {**chosen, "notes": [note for note in notes if note]}


def decide(probabilities_NK: ArrayLike, threshold: float | None = None) -> NDArray[np.int32]:
    """The answers (N,): the most probable class, or for two classes class 1 from `threshold` on.

    Raises:
        ValueError: a threshold with other than two classes.
    """
    probabilities_NK = np.asarray(probabilities_NK)
    if threshold is None:
        return np.asarray(probabilities_NK.argmax(1), dtype=np.int32)
    if probabilities_NK.shape[1] != 2:
        raise ValueError(f"a decision threshold needs two classes, not {probabilities_NK.shape[1]}")
    return np.asarray(probabilities_NK[:, 1] >= threshold, dtype=np.int32)


def confidence_bins(confidence_N: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    """The equal-width bin 0..bins-1 of each confidence; a bin holds its lower edge, the last one also 1.0."""
    edges = np.linspace(0.0, 1.0, bins + 1)
    return np.clip(np.searchsorted(edges, confidence_N, side="right") - 1, 0, bins - 1)


def bin_sums(confidence_N: NDArray[Any], right_N: NDArray[np.bool_], bins: int) -> NDArray[np.float64]:
    """By confidence: samples, sum of confidences, samples predicted right; (3, B)."""
    bin_N = confidence_bins(confidence_N.astype(np.float64), bins)
    return np.stack([np.bincount(bin_N, weights=weight, minlength=bins) for weight in (None, confidence_N, right_N)])


def calibration_error(bins_3B: NDArray[np.float64]) -> NDArray[np.float64]:
    """The expected calibration error (Guo et al. 2017) of `bin_sums` (..., 3, B): (...), 0..1; NaN without samples."""
    count, confidence, right = np.moveaxis(bins_3B, -2, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.abs(confidence - right).sum(-1) / count.sum(-1))


def reliability(bins_by_stage: Mapping[str, NDArray[np.float64]]) -> pd.DataFrame:
    """The reliability curve of the top-label confidence (Guo et al. 2017); empty bins are left out.

    Args:
        bins_by_stage: "before" and "after" calibration -> `bin_sums` (3, B).

    Returns:
        Columns stage, bin, confidence, accuracy (means in the bin), count.
    """
    parts = []
    for stage, (count, confidence, right) in bins_by_stage.items():
        filled = np.flatnonzero(count)
        means = {"confidence": confidence[filled] / count[filled], "accuracy": right[filled] / count[filled]}
        parts.append(pd.DataFrame({"stage": stage, "bin": filled, **means, "count": count[filled].astype(np.int64)}))
    return pd.concat(parts, ignore_index=True)


def reliability_curve(table: pd.DataFrame) -> pd.DataFrame:
    """The table of `reliability` as lines of a plot: the share that is right by confidence, a line for each stage."""
    return table.rename(columns={"confidence": "x", "accuracy": "y", "stage": "series"})[["x", "y", "series"]]
