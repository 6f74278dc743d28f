"""Scores of a classifier: from a confusion matrix alone, or from labels and probabilities.

Suffixes: N samples, K classes. An undefined score is left out, never NaN: macro averages run over the
classes that have samples in the split, and `classification_scores` says in its notes what was left out, and
why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

FROM_CONFUSION = (
    "accuracy",
    "balanced_accuracy",
    "precision_macro",
    "recall_macro",
    "f1_macro",
    "f1_weighted",
)
FROM_PROBABILITIES = ("auroc", "log_loss", "brier", "ece")
PER_CLASS = ("precision", "recall", "f1")
METRICS = ("loss", *FROM_CONFUSION)  # what training can monitor, besides the per-class ones
LOWER_IS_BETTER = frozenset({"loss", "log_loss", "brier", "ece", "ece_uncalibrated", "log_loss_uncalibrated"})
TINY = 1e-15  # probabilities are kept this far from 0 in a logarithm


def higher_is_better(name: str) -> bool:
    """Whether a larger value of the metric is the better one; the split before the name is ignored."""
    return name.removeprefix("train/").removeprefix("val/").removeprefix("test/") not in LOWER_IS_BETTER


def metric_names(classes: Sequence[str], base: Sequence[str] = METRICS) -> list[str]:
    """`base` and the per-class metrics of these classes, e.g. `recall/cat`."""
    return [*base, *(f"{kind}/{name}" for kind in PER_CLASS for name in classes)]


def check_metric(name: str, classes: Sequence[str], *, base: Sequence[str] = METRICS, key: str = "metric") -> None:
    """Refuse a metric that does not exist, before any work.

    Args:
        name: the metric, without the split.
        classes: the class names of the data set.
        base: the metrics that exist besides the per-class ones.
        key: the parameter that names the metric, for the message.

    Raises:
        ValueError: with the nearest right name.
    """
    from stillframe.config import nearest  # pydantic: not at the start of those who only count

    names = metric_names(classes, base)
    if name not in names:
        raise ValueError(f"{key} = {name!r} is not a metric: {nearest(name, names)}")


def confusion(label_N: ArrayLike, predicted_N: ArrayLike, classes: int) -> NDArray[np.int64]:
    """Counts (K, K): rows are the actual classes, columns the predicted ones."""
    pair_N = np.asarray(label_N, dtype=np.int64) * classes + np.asarray(predicted_N, dtype=np.int64)
    return np.bincount(pair_N, minlength=classes * classes).reshape(classes, classes)


def rates(right: Any, actual: Any, predicted: Any) -> dict[str, NDArray[np.float64]]:
    """Scores from counts per class, arrays (..., K); the leading axes (resamples, say) are kept.

    Args:
        right: samples of the class that were predicted as it.
        actual: samples of the class.
        predicted: samples predicted as the class.

    Returns:
        `FROM_CONFUSION` with shape (...), `PER_CLASS` with shape (..., K); NaN where undefined. A class with
        samples that is never predicted has precision 0.
    """
    right, actual, predicted = (np.asarray(count, dtype=np.float64) for count in (right, actual, predicted))
    total, present = actual.sum(-1), actual > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        recall = right / actual
        precision = np.where(predicted > 0, right / predicted, np.where(present, 0.0, np.nan))
        f1 = 2 * right / (actual + predicted)
        share = np.where(present, 1.0, 0.0) / present.sum(-1, keepdims=True)

        def average(value: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.asarray((np.where(present, value, 0.0) * weight).sum(-1))

        return {
            "accuracy": np.asarray(right.sum(-1) / total),
            "balanced_accuracy": average(recall, share),
            "precision_macro": average(precision, share),
            "recall_macro": average(recall, share),
            "f1_macro": average(f1, share),
            "f1_weighted": average(f1, actual / total[..., None]),
            "precision": precision,
            "recall": recall,
            "f1": f1,
        }


def flat_scores(
    confusion_KK: ArrayLike,
    classes: Sequence[str],
    rated: Callable[..., dict[str, Any]],
    of_split: Sequence[str],
    of_class: Sequence[str],
) -> dict[str, float]:
    """`of_split`, and `<kind>/<class>` of `of_class`, as `rated` computes them; undefined ones are left out.

    Args:
        confusion_KK: counts; rows are the actual classes.
        classes: names, in the order of the rows.
        rated: (right answers, actual, predicted), each (K,) -> scores by name, those of the classes (K,).
        of_split: names of single scores.
        of_class: names of scores of each class.
    """
    counts_KK = np.asarray(confusion_KK)
    assert counts_KK.shape == (len(classes), len(classes)), f"{counts_KK.shape} for {len(classes)} classes"
    values = rated(np.diagonal(counts_KK), counts_KK.sum(1), counts_KK.sum(0))
    flat = {name: float(values[name]) for name in of_split}
    flat |= {f"{kind}/{name}": float(values[kind][at]) for kind in of_class for at, name in enumerate(classes)}
    return {name: value for name, value in flat.items() if np.isfinite(value)}


def confusion_scores(confusion_KK: ArrayLike, classes: Sequence[str]) -> dict[str, float]:
    """Scores from a confusion matrix alone; fast enough for each epoch's end.

    Macro averages are scikit-learn's, over the classes that have samples.

    Args:
        confusion_KK: counts (or sums of weights); rows are the actual classes.
        classes: names, in the order of the rows.

    Returns:
        `FROM_CONFUSION` and `precision/<class>`, `recall/<class>`, `f1/<class>`; undefined ones are left out.
    """
    return flat_scores(confusion_KK, classes, rates, FROM_CONFUSION, PER_CLASS)


def own_log_loss(label_N: NDArray[Any], probabilities_NK: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each sample's -ln(probability of its own class), (N,)."""
    own_N = probabilities_NK[np.arange(len(label_N)), label_N]
    return np.asarray(-np.log(np.clip(own_N, TINY, 1.0)))


def own_brier(label_N: NDArray[Any], probabilities_NK: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each sample's squared distance from the certain right answer, (N,); halved for two classes."""
    wrong_NK = probabilities_NK.copy()
    wrong_NK[np.arange(len(label_N)), label_N] -= 1.0
    return np.asarray(np.square(wrong_NK).sum(1) / (2 if probabilities_NK.shape[1] == 2 else 1))


def confidence_bins(confidence_N: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    """The equal-width bin 0..bins-1 of each confidence; a bin holds its lower edge, the last one also 1.0."""
    edges = np.linspace(0.0, 1.0, bins + 1)
    return np.clip(np.searchsorted(edges, confidence_N, side="right") - 1, 0, bins - 1)


def expected_calibration_error(label_N: ArrayLike, probabilities_NK: ArrayLike, bins: int) -> float:
    """How far confidence and accuracy lie apart, 0..1 (Guo et al. 2017; equal-width bins)."""
    label_N, probabilities_NK = np.asarray(label_N), np.asarray(probabilities_NK, dtype=np.float64)
    confidence_N, right_N = probabilities_NK.max(1), probabilities_NK.argmax(1) == label_N
    gap = np.bincount(confidence_bins(confidence_N, bins), weights=confidence_N - right_N, minlength=bins)
    return float(np.abs(gap).sum() / len(label_N))


def auroc(label_N: NDArray[Any], probabilities_NK: NDArray[np.float64]) -> float | None:
    """Area under the ROC curve, 0..1: of class 1 for two classes, else the mean of one-versus-rest.

    Classes without samples are left out of the mean; None when fewer than two classes have samples.
    """
    from sklearn.metrics import roc_auc_score

    present = np.unique(label_N)
    if len(present) < 2:
        return None
    if probabilities_NK.shape[1] == 2:
        present = np.array([1])
    return float(np.mean([roc_auc_score(label_N == at, probabilities_NK[:, at]) for at in present]))


def classification_scores(
    label_N: ArrayLike,
    probabilities_NK: ArrayLike,
    classes: Sequence[str],
    bins: int,
    predicted_N: ArrayLike | None = None,
) -> tuple[dict[str, float], list[str]]:
    """All scores of one split, and notes about those that are not defined on it.

    Args:
        label_N: class indices.
        probabilities_NK: rows that sum to 1.
        classes: K names.
        bins: of the calibration error.
        predicted_N: the decisions; without it the most probable class (a tuned threshold may decide
            otherwise).

    Returns:
        Flat scores (`FROM_CONFUSION`, `FROM_PROBABILITIES`, `precision/<class>`, ...), none of them NaN; and
        one sentence for each score that was left out.

    Raises:
        ValueError: no samples, or arrays that do not fit together.
    """
    label_N, probabilities_NK = (
        np.asarray(label_N, dtype=np.int64),
        np.asarray(probabilities_NK, dtype=np.float64),
    )
    if not len(label_N):
        raise ValueError("there are no samples to score: the split is empty")
    if probabilities_NK.shape != (len(label_N), len(classes)):
        raise ValueError(f"probabilities have shape {probabilities_NK.shape}, not ({len(label_N)}, {len(classes)})")
    if not np.isfinite(probabilities_NK).all():
        raise ValueError("probabilities hold NaN or infinity: the model is broken (did training diverge?)")
    decided_N = probabilities_NK.argmax(1) if predicted_N is None else np.asarray(predicted_N, dtype=np.int64)
    counts_KK = confusion(label_N, decided_N, len(classes))
    scores = confusion_scores(counts_KK, classes)
    scores["log_loss"] = float(own_log_loss(label_N, probabilities_NK).mean())
    scores["brier"] = float(own_brier(label_N, probabilities_NK).mean())
    scores["ece"] = expected_calibration_error(label_N, probabilities_NK, bins)
    area = auroc(label_N, probabilities_NK)
    if area is not None:
        scores["auroc"] = area
    return scores, _notes(counts_KK, classes, area)


def _notes(counts_KK: NDArray[np.int64], classes: Sequence[str], area: float | None) -> list[str]:
    """What a reader must know about the scores of this split."""
    notes = []
    absent = [name for name, count in zip(classes, counts_KK.sum(1), strict=True) if not count]
    never = [name for at, name in enumerate(classes) if counts_KK[at].sum() and not counts_KK[:, at].sum()]
    if absent:
        notes.append(
            f"No sample of {_listed(absent)} in this split: recall is not defined there, "
            "and macro averages are over the other classes."
        )
    if never:
        notes.append(f"The model never answers {_listed(never)}: precision there counts as 0.")
    if area is None:
        notes.append("AUROC is left out: this split has samples of one class only.")
    return notes


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:10])
    return shown + (f" and {len(names) - 10} more" if len(names) > 10 else "")
