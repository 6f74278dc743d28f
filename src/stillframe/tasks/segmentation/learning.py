"""Semantic segmentation: one class a pixel."""

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
from stillframe.models.tta import tta_views, undo_tta
from stillframe.tasks.base import MetricAccumulator
from stillframe.tasks.class_scores import confusion_scores
from stillframe.tasks.confusion_accumulator import ConfusionAccumulator
from stillframe.tasks.segmentation import IGNORE, METRICS, losses
from stillframe.types import Batch, DatasetCard, Prediction

if TYPE_CHECKING:
    from stillframe.tasks.base import Loss


def build_network(model: ModelConfig, card: DatasetCard) -> Network:
    """A fresh net with one logit a class and pixel (ValueError: no net for masks, weights that do not fit).

    Raises:
        ValueError: the data has no masks; or as `models.build.create`.
    """
    if not card.pixels:
        raise ValueError(f"{card.name} has no masks, which segmentation learns from: prepare it with data.masks")
    return build.for_card(model, card, dense=True)


def class_weight_K(optim: OptimConfig, card: DatasetCard) -> Tensor | None:
    """Pixels / (K * pixels of the class) of the train split, "balanced"; None when optim.class_weights is none."""
    if optim.class_weights == "none":
        return None
    count_K = np.array([card.pixels["train"][name] for name in card.classes], dtype=np.float64)
    return torch.tensor(count_K.sum() / (len(count_K) * np.maximum(count_K, 1.0)), dtype=torch.float32)


def make_loss(optim: OptimConfig, card: DatasetCard) -> Loss:
    """The losses of `optim.loss`, summed: see `losses`.

    Raises:
        ValueError: mixup, which would make pixels of two classes.
    """
    if optim.mixup:
        raise ValueError(f"optim.mixup = {optim.mixup:g}: a pixel has one class; use optim.cutmix, or set it to 0")
    whole = losses.summed(optim, class_weight_K(optim, card))

    def loss(logits_BKHW: Tensor, batch: Batch) -> Tensor:
        return whole(logits_BKHW.float(), batch.target["mask"], batch.weight_B)

    return loss


def distill_loss(loss: Loss, teacher: Network, distill: DistillConfig) -> Loss:
    """A part of the loss is a pixel's distance from a teacher's probabilities (Hinton, Vinyals and Dean 2015).

    (1 - weight) * loss + weight * T^2 * KL(teacher || student), both at temperature T, over the pixels that count.

    Args:
        loss: from the masks.
        teacher: a trained net for the same classes; moved to the batch's device, and left as it is otherwise.
        distill: temperature and weight.
    """
    temperature, share = distill.temperature, distill.weight
    teacher.eval().requires_grad_(False)

    def both(logits_BKHW: Tensor, batch: Batch) -> Tensor:
        with torch.no_grad():
            teacher_BKHW = functional.log_softmax(teacher.to(logits_BKHW.device)(**batch.inputs) / temperature, dim=1)
        student = functional.log_softmax(logits_BKHW.float() / temperature, dim=1)
        divergence_BHW = functional.kl_div(student, teacher_BKHW, reduction="none", log_target=True).sum(1)
        counted = (batch.target["mask"] != IGNORE) * batch.weight_B[:, None, None]
        divergence = (divergence_BHW * counted).sum() / counted.sum().clamp_min(1e-12)
        return (1 - share) * loss(logits_BKHW, batch) + share * temperature**2 * divergence

    return both


def mix(optim: OptimConfig, card: DatasetCard, batch: Batch) -> Batch:
    """CutMix (Yun et al. 2019) on images and masks: a box of each sample comes from the one before it in the batch.

    The box takes a share 1 - lambda of the picture, lambda drawn from Beta(cutmix, cutmix), by torch's generator.
    """
    if not optim.cutmix or len(batch) < 2:
        return batch
    height, width = batch.image.shape[-2:]
    alpha = torch.tensor(optim.cutmix)
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    half_y, half_x = (int(0.5 * (1 - share) ** 0.5 * side) for side in (height, width))
    y, x = int(torch.randint(height, ())), int(torch.randint(width, ()))
    rows, columns = slice(max(0, y - half_y), y + half_y), slice(max(0, x - half_x), x + half_x)
    image_BCHW, mask_BHW = batch.image.clone(), batch.target["mask"].clone()
    image_BCHW[..., rows, columns] = batch.image.roll(1, 0)[..., rows, columns]
    mask_BHW[:, rows, columns] = batch.target["mask"].roll(1, 0)[:, rows, columns]
    return replace(batch, inputs={**batch.inputs, "image": image_BCHW}, target={**batch.target, "mask": mask_BHW})


def step(net: Network, batch: Batch, loss: Loss) -> tuple[Tensor, Prediction]:
    """Loss and prediction of a batch."""
    logits_BKHW = net(**batch.inputs)
    return loss(logits_BKHW, batch), Prediction({"logits": logits_BKHW}, batch.index_B)


@torch.no_grad()
def predict(net: Network, batch: Batch, tta: str = "none") -> Prediction:
    """Logits of each pixel, (B, K, H, W), averaged over the views of `tta` after undoing each view's transform."""
    logits_VBKHW = torch.stack([net(view) for view in tta_views(batch.image, tta)])
    return Prediction({"logits": undo_tta(logits_VBKHW, tta).mean(0)}, batch.index_B)


def cells(prediction: Prediction, batch: Batch, classes: int) -> Tensor:
    """How many pixels of each true class are predicted as each: int64 (K * K,); those of IGNORE count nowhere."""
    mask_BHW = batch.target["mask"].long()
    cell_BHW = torch.add(prediction.outputs["logits"].detach().argmax(1), mask_BHW, alpha=classes)
    cell_BHW = torch.where(mask_BHW == IGNORE, classes * classes, cell_BHW)  # one cell more, for what is not counted
    return torch.bincount(cell_BHW.flatten(), minlength=classes * classes + 1)[:-1]


def make_accumulator(card: DatasetCard) -> MetricAccumulator:
    """A fresh accumulator."""
    return ConfusionAccumulator(card.classes, cells, partial(confusion_scores, metrics=METRICS))


def export_head(outputs: Tensor, metadata: ModelMetadata) -> dict[str, Tensor]:
    """Calibrated probabilities (N, K, H, W) and decisions int64 (N, H, W) by the frozen temperature and threshold."""
    probability_NKHW = (outputs / metadata.temperature).softmax(1)
    if metadata.threshold is None:
        return {"probabilities": probability_NKHW, "decisions": probability_NKHW.argmax(1)}
    return {"probabilities": probability_NKHW, "decisions": (probability_NKHW[:, 1] >= metadata.threshold).long()}
