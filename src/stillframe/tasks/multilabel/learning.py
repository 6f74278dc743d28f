"""Multi-label classification: one logit and one yes-or-no decision a label. Suffixes: B samples, K labels."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from stillframe.config import DistillConfig, OptimConfig, nearest
from stillframe.model_metadata import ModelMetadata
from stillframe.models.build import Network
from stillframe.models.tta import tta_views
from stillframe.tasks.base import MetricAccumulator
from stillframe.tasks.classification import learning as classification
from stillframe.tasks.classification.learning import MIXED, build_network, predict, step, undo_tta
from stillframe.tasks.multilabel.label_scores import label_scores
from stillframe.types import Batch, DatasetCard, Prediction

if TYPE_CHECKING:
    from stillframe.tasks.base import Loss

__all__ = ["build_network", "predict", "step", "tta_views", "undo_tta"]
LOSSES = ("bce", "cross_entropy", "focal")  # cross_entropy, the default of conf/optim: binary, the same as bce


def positive_weight_K(optim: OptimConfig, card: DatasetCard) -> Tensor:
    """Train samples without the label / those with it, as BCEWithLogitsLoss's pos_weight; 1 unless "balanced"."""
    if optim.class_weights == "none":
        return torch.ones(len(card.classes))
    count_K = np.array([card.counts["train"][name] for name in card.classes], dtype=np.float64)
    return torch.tensor((card.target["train_samples"] - count_K) / count_K, dtype=torch.float32).clamp_min(1e-3)


def make_loss(optim: OptimConfig, card: DatasetCard) -> Loss:
    """Binary cross-entropy or focal loss (Lin et al. 2017) with label smoothing: the mean over labels, then samples.

    Samples count by their weights.

    Raises:
        ValueError: a loss of another task.
    """
    if optim.loss not in LOSSES:
        raise ValueError(f"optim.loss = {optim.loss!r}: {nearest(optim.loss, LOSSES)} (labels: {', '.join(LOSSES)})")
    positive_K = positive_weight_K(optim, card)

    def loss(logits_BK: Tensor, batch: Batch) -> Tensor:
        logits_BK, target_BK = logits_BK.float(), batch.target.get(MIXED, batch.target["labels"]).float()
        target_BK = target_BK * (1 - optim.label_smoothing) + optim.label_smoothing / 2
        yes_BK = target_BK * functional.logsigmoid(logits_BK) * positive_K.to(logits_BK.device)
        no_BK = (1 - target_BK) * functional.logsigmoid(-logits_BK)
        if optim.loss == "focal":
            yes_BK = yes_BK * (-logits_BK).sigmoid() ** optim.focal_gamma
            no_BK = no_BK * logits_BK.sigmoid() ** optim.focal_gamma
        loss_B = -(yes_BK + no_BK).mean(1)
        return (loss_B * batch.weight_B).sum() / batch.weight_B.sum().clamp_min(1e-12)

    return loss


def distill_loss(loss: Loss, teacher: Network, distill: DistillConfig) -> Loss:
    """A part of the loss is T^2 * KL(teacher || student) of each label's Bernoulli distribution, both at temperature T.

    Args:
        loss: from the targets.
        teacher: a trained net for the same labels; moved to the batch's device, and left as it is otherwise.
        distill: temperature and weight.
    """
    temperature, share = distill.temperature, distill.weight
    teacher.eval().requires_grad_(False)
    cross_entropy = functional.binary_cross_entropy_with_logits

    def both(logits_BK: Tensor, batch: Batch) -> Tensor:
        with torch.no_grad():
            teacher_BK = teacher.to(logits_BK.device)(**batch.inputs) / temperature
            target_BK = teacher_BK.sigmoid()
        entropy_BK = cross_entropy(teacher_BK, target_BK, reduction="none")
        kl_BK = cross_entropy(logits_BK.float() / temperature, target_BK, reduction="none") - entropy_BK
        kl = (kl_BK.mean(1) * batch.weight_B).sum() / batch.weight_B.sum().clamp_min(1e-12)
        return (1 - share) * loss(logits_BK, batch) + share * temperature**2 * kl

    return both


def mix(optim: OptimConfig, card: DatasetCard, batch: Batch) -> Batch:
    """Mixup or CutMix as of classification: label vectors are mixed by the share, or by the area, of the images."""
    mixed = classification.mix(optim, card, replace(batch, target={"label": batch.target["labels"].float()}))
    if MIXED not in mixed.target:
        return batch
    return replace(mixed, target={**batch.target, MIXED: mixed.target[MIXED]})


class LabelAccumulator:
    """Counts over an epoch at probability 0.5, on the device: `counts` is float64 (3 * K + 3,)."""

    def __init__(self, classes: list[str]) -> None:
        self.classes = classes
        self.reset()

    def reset(self) -> None:
        """Start the next epoch."""
        self.total = torch.zeros(3 * len(self.classes) + 3, dtype=torch.float64)

    def restore(self, counts: Tensor) -> None:
        """Go on from the counts of a half-done epoch."""
        self.total = counts.clone()

    def update(self, prediction: Prediction, batch: Batch, loss: Tensor) -> None:
        """Count one batch: true positives, positives and predicted positives of each label; exact, n, sum of losses."""
        actual_BK, predicted_BK = batch.target["labels"], prediction.outputs["logits"].detach() >= 0
        exact = (actual_BK == predicted_BK).all(1).sum()
        counts = [(actual_BK & predicted_BK).sum(0), actual_BK.sum(0), predicted_BK.sum(0), exact[None]]
        sums = torch.stack([loss.new_tensor(float(len(batch))), loss.detach() * len(batch)])
        self.total = self.total.to(loss.device) + torch.cat([*counts, sums]).double()

    def counts(self) -> Tensor:
        """All counts as one vector."""
        return self.total

    def scores(self, counts: Tensor) -> dict[str, float]:
        """`loss`, and the defined ones of `label_scores`."""
        size, values = len(self.classes), counts.cpu().numpy()
        right, actual, predicted = values[: 3 * size].reshape(3, size)
        exact, n, loss = values[3 * size :]
        sums = {"right": right, "actual": actual, "predicted": predicted, "exact": exact, "n": max(n, 1.0)}
        scores = {"loss": loss / max(n, 1.0), **label_scores(sums, self.classes)}
        return {name: float(value) for name, value in scores.items() if np.isfinite(value)}


def make_accumulator(card: DatasetCard) -> MetricAccumulator:
    """A fresh accumulator."""
    return LabelAccumulator(card.classes)


def export_head(outputs: Tensor, metadata: ModelMetadata) -> dict[str, Tensor]:
    """Calibrated `probability` (N, K), and `decision` uint8 (N, K): 1 where it reaches the label's frozen threshold."""
    probability_NK = (outputs / metadata.temperature).sigmoid()
    threshold_K = torch.tensor(metadata.thresholds, dtype=outputs.dtype, device=outputs.device)
    return {"probability": probability_NK, "decision": (probability_NK >= threshold_K).to(torch.uint8)}
