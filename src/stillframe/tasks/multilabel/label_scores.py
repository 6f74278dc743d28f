"""Scores of decisions about K labels from sums over samples. Suffixes: N samples, K labels, R resamples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stillframe.tasks.class_scores import class_scores
from stillframe.tasks.multilabel import METRICS


def label_scores(sums: Mapping[str, Any], classes: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """The scores that follow from counts, as scikit-learn has them; macro averages are over labels that are present.

    Args:
        sums: right (true positives), actual, predicted (positives): (R, K); n and exact (samples, and those without a
            wrong label): (R,).
        classes: names of the labels.
    """
    right, actual, predicted = sums["right"], sums["actual"], sums["predicted"]
    positives, answers, hits = actual.sum(-1), predicted.sum(-1), right.sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        overall = {
            "f1_micro": 2 * hits / (positives + answers),
            "precision_micro": np.where(answers > 0, hits / answers, np.where(positives > 0, 0.0, np.nan)),
            "recall_micro": hits / positives,
            "subset_accuracy": sums["exact"] / sums["n"],
            "hamming_loss": (positives + answers - 2 * hits) / (sums["n"] * len(classes)),
        }
        return overall | class_scores(right, actual, predicted, classes, METRICS)
