"""What a task is: one frozen bundle of functions. Stages, training and the report know tasks only through it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from stillframe.config import Distill, Model, Optim
from stillframe.nets.build import Net
from stillframe.sample import Batch, Card, Prediction

Loss = Callable[[Tensor, Batch], Tensor]  # (logits_BK, batch) -> mean loss, a scalar


class Tally(Protocol):
    """Counts over an epoch, on the device; sums of the ranks' counts give the scores of all samples."""

    def update(self, prediction: Prediction, batch: Batch, loss: Tensor) -> None:
        """Count one batch; no synchronisation with the host."""

    def counts(self) -> Tensor:
        """All counts as one float64 vector, to be summed over ranks."""

    def scores(self, counts: Tensor) -> dict[str, float]:
        """Metrics by name ("loss", "accuracy", "f1_macro", ...) from summed counts."""

    def reset(self) -> None:
        """Start the next epoch."""

    def restore(self, counts: Tensor) -> None:
        """Go on from the counts of a half-done epoch."""


@dataclass(frozen=True)
class Task:
    """The functions that make a task.

    Attributes:
        answer: what an answer is, by a name of `review.kinds.REVIEWS`: "label", one class a sample, "mask", one class a
            pixel; stages after training and exported files treat answers of one kind alike.
        build_net: a fresh net for the data of a card.
        make_loss: the loss of `optim` for the data of a card.
        distilled: that loss with a trained net's answers beside the labels.
        mix: mixup and cutmix on a batch, or the batch unchanged.
        step: one training or validation step -> (loss, prediction).
        predict: the same function wherever a trained net answers.
        views: the pictures that `predict` asks the net about, by the kind of test-time views; logits are averaged.
        back: the logits of these pictures (V, B, K, ...), in their order, such that they may be averaged: maps turned.
        tally: a fresh tally for the data of a card.
        check_metric: raises ValueError for a metric name that the task does not have.
    """

    answer: str
    build_net: Callable[[Model, Card], Net]
    make_loss: Callable[[Optim, Card], Loss]
    distilled: Callable[[Loss, Net, Distill], Loss]
    mix: Callable[[Optim, Card, Batch], Batch]
    step: Callable[[Net, Batch, Loss], tuple[Tensor, Prediction]]
    predict: Callable[[Net, Batch, str], Prediction]
    views: Callable[[Tensor, str], list[Tensor]]
    back: Callable[[Tensor, str], Tensor]
    tally: Callable[[Card], Tally]
    check_metric: Callable[[str, Card], None]
