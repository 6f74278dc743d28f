"""Scores of class predictions from counts per class; a class map is scored as its pixels, each of them a sample.

Suffixes: N samples, K classes; leading axes (resamples, say) are kept. An undefined score is NaN in arrays and left out
of flat dicts; macro averages run over the classes that have samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from stillframe.tasks.base import Metric


def confusion(label_N: ArrayLike, predicted_N: ArrayLike, classes: int) -> NDArray[np.int64]:
    """Counts (K, K): rows are the actual classes, columns the predicted ones."""
    pair_N = np.asarray(label_N, dtype=np.int64) * classes + np.asarray(predicted_N, dtype=np.int64)
    return np.bincount(pair_N, minlength=classes * classes).reshape(classes, classes)


def rates(right: Any, actual: Any, predicted: Any) -> dict[str, NDArray[np.float64]]:
    """Scores from counts per class, arrays (..., K).

    Args:
        right: samples of the class that were predicted as it.
        actual: samples of the class.
        predicted: samples predicted as the class.

    Returns:
        precision, recall, f1 (the Dice coefficient) and iou (Jaccard index) with shape (..., K); accuracy, and macro
        and weighted averages, with shape (...); NaN where undefined. A class with samples that is never predicted has
        precision 0.
    """
    right, actual, predicted = (np.asarray(count, dtype=np.float64) for count in (right, actual, predicted))
    present = actual > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        of_class = {
            "precision": np.where(predicted > 0, right / predicted, np.where(present, 0.0, np.nan)),
            "recall": right / actual,
            "f1": 2 * right / (actual + predicted),
            "iou": right / (actual + predicted - right),
        }
        # averages leave out classes without samples: their weight is 0, and so is what they would add
        macro = np.where(present, 1.0, 0.0) / present.sum(-1, keepdims=True)
        weighted = actual / actual.sum(-1, keepdims=True)
        accuracy = np.asarray(right.sum(-1) / actual.sum(-1))
        averages = {}
        for name, value in of_class.items():
            value = np.where(present, value, 0.0)
            averages[f"{name}_macro"] = np.asarray((value * macro).sum(-1))
            averages[f"{name}_weighted"] = np.asarray((value * weighted).sum(-1))
    return {"accuracy": accuracy, "balanced_accuracy": averages["recall_macro"], **averages, **of_class}


def class_scores(
    right: Any, actual: Any, predicted: Any, classes: Sequence[str], metrics: Iterable[Metric]
) -> dict[str, NDArray[np.float64]]:
    """Those of a task's metrics that follow from counts per class (as `rates` has them), by the names of metrics.json.

    Args:
        right: see `rates`; arrays (..., K).
        actual: see `rates`.
        predicted: see `rates`.
        classes: K names.
        metrics: of the task.
    """
    values, scores = rates(right, actual, predicted), {}
    usable = [metric for metric in metrics if metric.monitored and metric.name in values]
    for metric in usable:
        if not metric.per_class:
            scores[metric.name] = values[metric.name]
    for metric in usable:
        if metric.per_class:
            scores |= {f"{metric.name}/{name}": values[metric.name][..., k] for k, name in enumerate(classes)}
    return scores


def confusion_scores(confusion_KK: ArrayLike, classes: Sequence[str], metrics: Iterable[Metric]) -> dict[str, float]:
    """`class_scores` of a confusion matrix, defined ones only; fast enough for the end of each epoch.

    Args:
        confusion_KK: counts (or sums of weights) over a whole split; rows are the actual classes.
        classes: names, in the order of the rows.
        metrics: of the task.
    """
    counts_KK = np.asarray(confusion_KK)
    assert counts_KK.shape == (len(classes), len(classes)), f"{counts_KK.shape} for {len(classes)} classes"
    scores = class_scores(np.diagonal(counts_KK), counts_KK.sum(1), counts_KK.sum(0), classes, metrics)
    return {name: float(value) for name, value in scores.items() if np.isfinite(value)}


def per_class_table(
    classes: Sequence[str],
    counts: Mapping[str, Sequence[int]],
    kinds: Iterable[str],
    scores: Mapping[str, float],
    intervals: Mapping[str, tuple[float, float]],
) -> pd.DataFrame:
    """One row a class: its counts, and each score of a class with `<name>_low` and `<name>_high`.

    A score that is not defined, and an interval that is not there, is an empty cell.

    Args:
        classes: names.
        counts: columns of numbers, one of each class.
        kinds: names of the scores, e.g. "recall".
        scores: of metrics.json.
        intervals: of intervals.json.
    """
    rows = []
    for k, name in enumerate(classes):
        row: dict[str, object] = {"class": name, **{column: int(count[k]) for column, count in counts.items()}}
        for kind in kinds:
            low, high = intervals.get(f"{kind}/{name}", (None, None))
            row |= {kind: scores.get(f"{kind}/{name}"), f"{kind}_low": low, f"{kind}_high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def class_notes(confusion_KK: NDArray[np.int64], classes: Sequence[str], noun: str, never: str) -> list[str]:
    """Which classes are not in a split, and which are never predicted.

    Args:
        confusion_KK: counts; rows are the actual classes.
        classes: names.
        noun: what is counted, e.g. "sample".
        never: what follows for a class that is never predicted, e.g. "precision there counts as 0".
    """
    actual, predicted = confusion_KK.sum(1), confusion_KK.sum(0)
    notes = []
    absent = [name for name, count in zip(classes, actual, strict=True) if not count]
    unused = [name for name, here, there in zip(classes, actual, predicted, strict=True) if here and not there]
    if absent:
        notes.append(
            f"No {noun} of {_listed(absent)} in this split: recall is not defined there, "
            "and macro averages are over the other classes."
        )
    if unused:
        notes.append(f"The model never answers {_listed(unused)}: {never}.")
    return notes


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(map(repr, names[:10])) + more
