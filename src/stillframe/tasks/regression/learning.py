"""Image regression: the network gives numbers in their own units; the loss is of standardised ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from stillframe.config import DistillConfig, ModelConfig, OptimConfig, nearest
from stillframe.models import build
from stillframe.models.build import Network
from stillframe.models.tta import tta_views
from stillframe.tasks.base import MetricAccumulator
from stillframe.tasks.regression.number_scores import number_scores
from stillframe.types import Batch, DatasetCard, Prediction

if TYPE_CHECKING:
    from stillframe.model_metadata import ModelMetadata
    from stillframe.tasks.base import Loss

QUANTILE = "quantile_"  # of the loss's name, before the quantile: quantile_0.9


def build_network(model: ModelConfig, card: DatasetCard) -> Network:
    """A fresh net with one output a number, in its own unit: that of the backbone, scaled by train deviation and mean.

    Raises:
        ValueError: the data has no numbers, or are clips; or as `models.build.create`.
    """
    if not card.target.get("mean"):
        raise ValueError(f"{card.name} has no numbers: prepare it with task=regression (`dvc repro preprocess`)")
    if card.frames > 1:
        raise ValueError("data.clip: there is no regression of clips: set it to null")
    facts = card.target
    return build.for_card(model, card, outputs=len(facts["names"]), scale=(facts["mean"], facts["std"]))


def pointwise(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    """A loss (output, target) -> (B, D) by its name in `optim.loss`.

    "l1"; "mse"; "huber" (Huber 1964: squared up to a deviation of one, absolute beyond); "quantile_<q>" (Koenker and
    Bassett 1978, the pinball loss: its best constant is the q-quantile).

    Raises:
        ValueError: no such loss, or a quantile that is not between 0 and 1.
    """
    losses = {
        "l1": lambda output, target: (output - target).abs(),
        "mse": lambda output, target: (output - target).square(),
        "huber": lambda output, target: functional.smooth_l1_loss(output, target, reduction="none"),
    }
    if name in losses:
        return losses[name]
    try:
        share = float(name.removeprefix(QUANTILE)) if name.startswith(QUANTILE) else -1.0
    except ValueError:
        share = -1.0
    if not 0.0 < share < 1.0:
        hint = nearest(name, [*losses, f"{QUANTILE}0.5"])
        raise ValueError(f"optim.loss = {name!r}: {hint} (of numbers: {', '.join(losses)}, {QUANTILE}0.9 and its kin)")
    return lambda output, target: torch.maximum(share * (target - output), (share - 1.0) * (target - output))


def make_loss(optim: OptimConfig, card: DatasetCard) -> Loss:
    """The loss of `optim.loss` between standardised numbers: the mean over them, then over the weighted samples.

    Raises:
        ValueError: another task's loss, or an option that needs classes or class maps.
    """
    if optim.cutmix:
        raise ValueError(
            f"optim.cutmix = {optim.cutmix:g}: a part of an image has no number; use optim.mixup, or set it to 0"
        )
    if optim.class_weights != "none":
        raise ValueError(f"optim.class_weights = {optim.class_weights!r}: numbers have no classes: set it to none")
    measure, mean_D, std_D = pointwise(optim.loss), torch.tensor(card.target["mean"]), torch.tensor(card.target["std"])

    def loss(output_BD: Tensor, batch: Batch) -> Tensor:
        mean, std = mean_D.to(output_BD.device), std_D.to(output_BD.device)
        loss_B = measure((output_BD.float() - mean) / std, (batch.target["value"] - mean) / std).mean(1)
        return (loss_B * batch.weight_B).sum() / batch.weight_B.sum().clamp_min(1e-12)

    return loss


def distill_loss(loss: Loss, teacher: Network, distill: DistillConfig) -> Loss:
    """A part `distill.weight` of the loss is that to the teacher's numbers; `distill.temperature` has no meaning here.

    Args:
        loss: from the targets.
        teacher: a trained net for the same numbers; moved to the batch's device, and left as it is otherwise.
        distill: its weight.
    """
    teacher.eval().requires_grad_(False)

    def both(output_BD: Tensor, batch: Batch) -> Tensor:
        with torch.no_grad():
            value_BD = teacher.to(output_BD.device)(**batch.inputs)
        from_teacher = loss(output_BD, replace(batch, target={**batch.target, "value": value_BD}))
        return (1 - distill.weight) * loss(output_BD, batch) + distill.weight * from_teacher

    return both


def mix(optim: OptimConfig, card: DatasetCard, batch: Batch) -> Batch:
    """Mixup (Zhang et al. 2018) of images and of their numbers, drawn from torch's generator."""
    if not optim.mixup or len(batch) < 2:
        return batch
    alpha = torch.tensor(optim.mixup)
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    image, value_BD = batch.image.float(), batch.target["value"]
    inputs = {**batch.inputs, "image": share * image + (1 - share) * image.roll(1, 0)}
    target = {**batch.target, "value": share * value_BD + (1 - share) * value_BD.roll(1, 0)}
    return replace(batch, inputs=inputs, target=target)


def step(net: Network, batch: Batch, loss: Loss) -> tuple[Tensor, Prediction]:
    """Loss and prediction of a batch."""
    value_BD = net(**batch.inputs)
    return loss(value_BD, batch), Prediction({"predicted": value_BD}, batch.index_B)


@torch.no_grad()
def predict(net: Network, batch: Batch, tta: str = "none") -> Prediction:
    """Numbers (B, D), averaged over the views of `tta`."""
    return Prediction(
        {"predicted": torch.stack([net(view) for view in tta_views(batch.image, tta)]).mean(0)}, batch.index_B
    )


def undo_tta(value_VBD: Tensor, tta: str) -> Tensor:
    """The numbers of an image are the same whichever way it is turned: unchanged."""
    return value_VBD


def export_head(value_BD: Tensor, metadata: ModelMetadata) -> dict[str, Tensor]:
    """`value` (B, D), in its own units."""
    return {"value": value_BD}


class ErrorAccumulator:
    """Sums of errors and targets over an epoch, on the device, as float64: `counts` is (4 * D + 2,)."""

    def __init__(self, card: DatasetCard) -> None:
        self.center_D = torch.tensor(card.target["mean"], dtype=torch.float64)  # so that large numbers lose no digits
        self.reset()

    def reset(self) -> None:
        """Start the next epoch."""
        self.total = torch.zeros(4 * len(self.center_D) + 2, dtype=torch.float64)

    def restore(self, counts: Tensor) -> None:
        """Go on from the counts of a half-done epoch."""
        self.total = counts.clone()

    def update(self, prediction: Prediction, batch: Batch, loss: Tensor) -> None:
        """Count one batch."""
        self.total, self.center_D = self.total.to(loss.device), self.center_D.to(loss.device)
        target_BD = batch.target["value"].double()
        error_BD, target_BD = prediction.outputs["predicted"].detach().double() - target_BD, target_BD - self.center_D
        sums = [part.sum(0) for part in (error_BD.abs(), error_BD.square(), target_BD, target_BD.square())]
        count = self.total.new_tensor(float(len(batch)))
        self.total += torch.cat([*sums, (loss.detach().double() * count)[None], count[None]])

    def counts(self) -> Tensor:
        """All sums as one vector."""
        return self.total

    def scores(self, counts: Tensor) -> dict[str, float]:
        """`loss`, and the scores of `number_scores` over all numbers together."""
        parts, loss, count = counts[:-2].cpu().numpy().reshape(4, -1), float(counts[-2]), max(float(counts[-1]), 1.0)
        sums = dict(zip(("absolute", "square", "target", "target_square"), parts, strict=True))
        values = number_scores({"n": np.array(count), **sums}, [])
        return {"loss": loss / count, **{name: float(value) for name, value in values.items()}}


def make_accumulator(card: DatasetCard) -> MetricAccumulator:
    """A fresh accumulator."""
    return ErrorAccumulator(card)
