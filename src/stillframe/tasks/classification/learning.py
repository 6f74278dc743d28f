"""Image classification: one label an image."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from stillframe.config import DistillConfig, ModelConfig, OptimConfig
from stillframe.model_metadata import ModelMetadata
from stillframe.models import build
from stillframe.models.build import Network
from stillframe.models.tta import tta_views
from stillframe.tasks.base import MetricAccumulator
from stillframe.tasks.class_scores import confusion_scores
from stillframe.tasks.classification import METRICS
from stillframe.tasks.confusion_accumulator import ConfusionAccumulator
from stillframe.types import Batch, DatasetCard, Prediction

if TYPE_CHECKING:
    from stillframe.tasks.base import Loss

LOSSES = ("cross_entropy", "focal")
MIXED = "label_distribution"  # in `Batch.target` after mixup or cutmix: float32 (B, K), rows sum to 1


def build_network(model: ModelConfig, card: DatasetCard) -> Network:
    """A fresh net with one logit a class (ValueError: unknown model, weights that do not fit, clips)."""
    if card.frames > 1:
        raise ValueError(f"the data are clips of {card.frames} frames (data.clip): set task = video_classification")
    return build.for_card(model, card)


def class_weight_K(optim: OptimConfig, card: DatasetCard) -> Tensor | None:
    """Samples / (K * samples of the class), as scikit-learn's "balanced"; None when optim.class_weights is none."""
    if optim.class_weights == "none":
        return None
    count_K = np.array([card.counts["train"][name] for name in card.classes], dtype=np.float64)
    return torch.tensor(count_K.sum() / (len(count_K) * count_K), dtype=torch.float32)


def make_loss(optim: OptimConfig, card: DatasetCard) -> Loss:
    """Cross-entropy or focal loss (Lin et al. 2017) with label smoothing, class weights and sample weights.

    The result is the mean over the batch, weighted by the samples' weights.

    Raises:
        ValueError: a loss of another task.
    """
    if optim.loss not in LOSSES:
        raise ValueError(f"optim.loss = {optim.loss!r} is for masks or numbers: labels have {' and '.join(LOSSES)}")
    weight_K = class_weight_K(optim, card)
    smoothing, classes = optim.label_smoothing, len(card.classes)

    def loss(logits_BK: Tensor, batch: Batch) -> Tensor:
        target_BK = (
            batch.target[MIXED] if MIXED in batch.target else functional.one_hot(batch.target["label"], classes).float()
        )
        target_BK = target_BK * (1 - smoothing) + smoothing / classes
        log_BK = functional.log_softmax(logits_BK.float(), dim=1)
        if optim.loss == "focal":
            log_BK = log_BK * (1 - log_BK.exp()) ** optim.focal_gamma
        if weight_K is not None:
            log_BK = log_BK * weight_K.to(log_BK.device)
        loss_B = -(target_BK * log_BK).sum(1)
        return (loss_B * batch.weight_B).sum() / batch.weight_B.sum().clamp_min(1e-12)

    return loss


def distill_loss(loss: Loss, teacher: Network, distill: DistillConfig) -> Loss:
    """A part of the loss is the distance from a teacher's probabilities (Hinton, Vinyals and Dean 2015).

    (1 - weight) * loss + weight * T^2 * KL(teacher || student), both at temperature T, on the very pictures that the
    student is shown, mixed and augmented ones too; the mean over the batch, weighted by the samples' weights.

    Args:
        loss: from the labels.
        teacher: a trained net for the same classes; moved to the batch's device, and left as it is otherwise.
        distill: temperature and weight.
    """
    temperature, share = distill.temperature, distill.weight
    teacher.eval().requires_grad_(False)

    def both(logits_BK: Tensor, batch: Batch) -> Tensor:
        with torch.no_grad():
            teacher_BK = functional.log_softmax(teacher.to(logits_BK.device)(**batch.inputs) / temperature, dim=1)
        student_BK = functional.log_softmax(logits_BK.float() / temperature, dim=1)
        divergence_B = functional.kl_div(student_BK, teacher_BK, reduction="none", log_target=True).sum(1)
        divergence = (divergence_B * batch.weight_B).sum() / batch.weight_B.sum().clamp_min(1e-12)
        return (1 - share) * loss(logits_BK, batch) + share * temperature**2 * divergence

    return both


def mix(optim: OptimConfig, card: DatasetCard, batch: Batch) -> Batch:
    """Mixup (Zhang et al. 2018) or CutMix (Yun et al. 2019), one of them a batch, drawn from torch's generator."""
    if not (optim.mixup or optim.cutmix) or len(batch) < 2:
        return batch
    from torchvision.transforms import v2

    cut = optim.cutmix > 0 and (optim.mixup == 0 or bool(torch.rand(()) < 0.5))
    blend = v2.CutMix if cut else v2.MixUp
    transform = blend(alpha=optim.cutmix if cut else optim.mixup, num_classes=len(card.classes))
    folded_BCHW = batch.image.float().flatten(1, -3)  # the frames of a clip as channels: one box for all
    image_BCHW, mixed_BK = transform(folded_BCHW, batch.target["label"])
    inputs = {**batch.inputs, "image": image_BCHW.view(batch.image.shape)}
    return replace(batch, inputs=inputs, target={**batch.target, MIXED: mixed_BK})


def step(net: Network, batch: Batch, loss: Loss) -> tuple[Tensor, Prediction]:
    """Loss and prediction of a batch."""
    logits_BK = net(**batch.inputs)
    return loss(logits_BK, batch), Prediction({"logits": logits_BK}, batch.index_B)


@torch.no_grad()
def predict(net: Network, batch: Batch, tta: str = "none") -> Prediction:
    """Logits (B, K) of a batch, averaged over the views of `tta`."""
    logits_BK = torch.stack([net(view) for view in tta_views(batch.image, tta)]).mean(0)
    return Prediction({"logits": logits_BK}, batch.index_B)


def undo_tta(logits_VBK: Tensor, tta: str) -> Tensor:
    """Logits of an image are the same whichever way it is turned: unchanged."""
    return logits_VBK


def cells(prediction: Prediction, batch: Batch, classes: int) -> Tensor:
    """How many samples of each true class are predicted as each: int64 (K * K,)."""
    cell_B = torch.add(prediction.outputs["logits"].detach().argmax(1), batch.target["label"], alpha=classes)
    return torch.bincount(cell_B, minlength=classes * classes)


def make_accumulator(card: DatasetCard) -> MetricAccumulator:
    """A fresh accumulator."""
    return ConfusionAccumulator(card.classes, cells, partial(confusion_scores, metrics=METRICS))


def export_head(outputs: Tensor, metadata: ModelMetadata) -> dict[str, Tensor]:
    """Calibrated probabilities (N, K) and decisions int64 (N,) by the frozen temperature and threshold."""
    probability_NK = (outputs / metadata.temperature).softmax(1)
    if metadata.threshold is None:
        return {"probabilities": probability_NK, "decisions": probability_NK.argmax(1)}
    return {"probabilities": probability_NK, "decisions": (probability_NK[:, 1] >= metadata.threshold).long()}
