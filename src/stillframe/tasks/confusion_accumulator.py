"""Counts over an epoch for tasks whose answers are classes: of samples, or of pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from stillframe.types import Batch, Prediction

Count = Callable[
    [Prediction, Batch, int], Tensor
]  # (prediction, batch, K) -> cells true class * K + predicted: (K * K,)


class ConfusionAccumulator:
    """Confusion matrix and sum of losses, on the device; few calls a batch: a small net's step is short.

    Rows of the matrix are true classes, columns predicted ones.
    """

    def __init__(self, classes: list[str], count: Count, scores: Callable[[Any, list[str]], dict[str, float]]) -> None:
        """`count` gives the cells of one batch, `scores` the metrics of a matrix (K, K) of integers."""
        self.classes, self.count, self.scores_of = classes, count, scores
        self.reset()

    def reset(self) -> None:
        """Start the next epoch."""
        self.total: Tensor | None = None
        self.samples = 0

    def restore(self, counts: Tensor) -> None:
        """Go on from the counts of a half-done epoch."""
        self.total, self.samples = counts[:-1].clone(), int(counts[-1])

    def update(self, prediction: Prediction, batch: Batch, loss: Tensor) -> None:
        """Count one batch."""
        size, samples = len(self.classes), len(batch)
        cells = self.count(prediction, batch, size)
        if self.total is None or self.total.device != cells.device:
            start = torch.zeros(size * size + 1, dtype=torch.float64) if self.total is None else self.total
            self.total = start.to(cells.device)
        self.total[:-1] += cells
        self.total[-1:].add_(loss.detach(), alpha=samples)
        self.samples += samples

    def counts(self) -> Tensor:
        """The matrix, the sum of losses, the number of samples: one float64 vector."""
        if self.total is None:  # a rank without samples
            return torch.zeros(len(self.classes) ** 2 + 2, dtype=torch.float64)
        return torch.cat([self.total, self.total.new_tensor([float(self.samples)])])

    def scores(self, counts: Tensor) -> dict[str, float]:
        """`loss` and every score that the matrix gives."""
        matrix = counts[:-2].reshape(len(self.classes), -1).round().long().cpu().numpy()
        samples = max(float(counts[-1]), 1.0)
        return {"loss": float(counts[-2]) / samples, **self.scores_of(matrix, self.classes)}
