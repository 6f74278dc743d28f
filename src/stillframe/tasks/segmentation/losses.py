"""Losses over the pixels of masks; pixels of IGNORE count nowhere, whatever the loss.

Logits are (B, K, H, W) float32, masks (B, H, W) class indices, weights of samples (B,). Each loss gives a scalar.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from stillframe.config import OptimConfig, nearest
from stillframe.tasks.segmentation import IGNORE

DenseLoss = Callable[[Tensor, Tensor, Tensor], Tensor]  # logits_BKHW, mask_BHW, weight_B


def summed(optim: OptimConfig, weight_K: Tensor | None) -> DenseLoss:
    """The sum of the losses that `optim.loss` names, e.g. "cross_entropy+dice".

    Args:
        optim: section `optim`.
        weight_K: of the classes; None: all alike. Lovász has none: each class counts alike in it by its nature.

    Raises:
        ValueError: no such loss.
    """
    names = optim.loss.split("+")
    for name in names:
        if name not in MAKERS:
            raise ValueError(f"optim.loss = {optim.loss!r}: {nearest(name, MAKERS)} (masks; + sums them)")
    parts = [MAKERS[name](optim, weight_K) for name in names]

    def loss(logits_BKHW: Tensor, mask_BHW: Tensor, weight_B: Tensor) -> Tensor:
        values = [part(logits_BKHW, mask_BHW, weight_B) for part in parts]
        return torch.stack(values).sum()

    return loss


def _mean(loss_BHW: Tensor, mask_BHW: Tensor, weight_B: Tensor) -> Tensor:
    """Over the pixels that count, each with the weight of its sample."""
    counted = (mask_BHW != IGNORE) * weight_B[:, None, None]
    return (loss_BHW * counted).sum() / counted.sum().clamp_min(1e-12)


def _cross_entropy(optim: OptimConfig, weight_K: Tensor | None) -> DenseLoss:
    def loss(logits_BKHW: Tensor, mask_BHW: Tensor, weight_B: Tensor) -> Tensor:
        each_BHW = functional.cross_entropy(
            logits_BKHW,
            mask_BHW.long(),
            weight=None if weight_K is None else weight_K.to(logits_BKHW.device),
            ignore_index=IGNORE,
            reduction="none",
            label_smoothing=optim.label_smoothing,
        )
        return _mean(each_BHW, mask_BHW, weight_B)

    return loss


def _focal(optim: OptimConfig, weight_K: Tensor | None) -> DenseLoss:
    """Lin et al. 2017, over the softmax: (1 - p)^gamma * -log p of the true class; no label smoothing."""

    def loss(logits_BKHW: Tensor, mask_BHW: Tensor, weight_B: Tensor) -> Tensor:
        plain_BHW = functional.cross_entropy(logits_BKHW, mask_BHW.long(), ignore_index=IGNORE, reduction="none")
        each_BHW = (1 - (-plain_BHW).exp()) ** optim.focal_gamma * plain_BHW
        if weight_K is not None:
            true_BHW = mask_BHW.long() * (mask_BHW != IGNORE)
            each_BHW = each_BHW * weight_K.to(each_BHW.device)[true_BHW]
        return _mean(each_BHW, mask_BHW, weight_B)

    return loss


def _dice(optim: OptimConfig, weight_K: Tensor | None) -> DenseLoss:
    """1 - Dice of the probabilities, over the batch (Milletari, Navab and Ahmadi 2016), the mean over the classes."""
    from segmentation_models_pytorch.losses import DiceLoss

    weights: Any = None if weight_K is None else weight_K.tolist()
    inner = DiceLoss("multiclass", ignore_index=IGNORE, class_weights=weights)
    return _over_batch(inner)


def _lovasz(optim: OptimConfig, weight_K: Tensor | None) -> DenseLoss:
    """The Lovász extension of the Jaccard loss (Berman, Rannen Triki and Blaschko 2018), over the present classes."""
    from segmentation_models_pytorch.losses import LovaszLoss

    return _over_batch(LovaszLoss("multiclass", ignore_index=IGNORE))


def _over_batch(inner: Any) -> DenseLoss:
    """A loss of all pixels of a batch at once; samples of weight 0 are ignored, other weights do not matter to it."""

    def loss(logits_BKHW: Tensor, mask_BHW: Tensor, weight_B: Tensor) -> Tensor:
        loss_value: Tensor = inner(logits_BKHW, torch.where(weight_B[:, None, None] > 0, mask_BHW.long(), IGNORE))
        return loss_value if loss_value.ndim == 0 else logits_BKHW.sum() * 0.0  # Lovász of no pixels is no number

    return loss


MAKERS: dict[str, Callable[[OptimConfig, Tensor | None], DenseLoss]] = {
    "cross_entropy": _cross_entropy,
    "focal": _focal,
    "dice": _dice,
    "lovasz": _lovasz,
}
