"""Probabilities that mean what they say, and the threshold that decides: tuned on validation only."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stillframe.evaluation.class_scores import own_log_loss

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
        return float(own_log_loss(label_N, softmax(logits_NK, float(np.exp(log_temperature)))).mean())

    bounds = (float(np.log(COLDEST)), float(np.log(HOTTEST)))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    temperature = float(np.exp(found.x))
    if not found.success or loss(found.x) > loss(0.0):
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
