"""Optimizers and schedules by name, from timm and torch."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer
from torch.optim import lr_scheduler as schedules

from stillframe.config import OptimConfig, ScheduleConfig, nearest
from stillframe.models.build import Network


def make_optimizer(net: Network, optim: OptimConfig) -> Optimizer:
    """The optimizer over all parameters that may learn; biases and norms are not decayed.

    With `optim.layer_decay` each layer learns at that share of the rate of the one above it (Clark et al. 2020).

    Raises:
        ValueError: an unknown optimizer (names the nearest), or layer decay for a net without layers known to timm.
    """
    from timm.optim import create_optimizer_v2, list_optimizers

    names = {name.lower(): name for name in list_optimizers()}
    if optim.name.lower() not in names:
        raise ValueError(f"optim.name = {optim.name!r}: {nearest(optim.name, names)}")
    if optim.layer_decay is not None and not hasattr(net.backbone, "group_matcher"):
        raise ValueError(
            f"optim.layer_decay needs a timm model; model.name = {net.spec.name!r} is not one: set it to null"
        )
    optimizer: Optimizer = create_optimizer_v2(
        net.backbone,
        opt=optim.name.lower(),
        lr=optim.lr,
        weight_decay=optim.weight_decay,
        momentum=optim.momentum,
        layer_decay=optim.layer_decay,
    )
    for group in optimizer.param_groups:  # timm leaves the layer's share to its own schedulers; torch's read the rate
        group["lr"] = optim.lr * group.pop("lr_scale", 1.0)
    return optimizer


def make_schedule(optimizer: Optimizer, schedule: ScheduleConfig, steps: int) -> schedules.LRScheduler:
    """The learning rate over `steps` optimizer steps; warm-up is linear (one_cycle has its own)."""
    rates = [group["lr"] for group in optimizer.param_groups]
    steps = max(steps, 2)
    if schedule.name == "one_cycle":  # Smith & Topin 2018
        return schedules.OneCycleLR(
            optimizer,
            max_lr=rates,
            total_steps=steps,
            pct_start=min(max(schedule.warmup_fraction, 1.5 / steps), 1 - 0.5 / steps),  # both parts need a step
            final_div_factor=1e4 if schedule.final_fraction == 0 else max(1 / (25 * schedule.final_fraction), 1e-4),
            cycle_momentum=False,
        )
    warmup = round(schedule.warmup_fraction * steps)
    main = _after_warmup(optimizer, schedule, max(steps - warmup, 1), rates)
    if warmup == 0:
        return main
    rise = schedules.LinearLR(optimizer, start_factor=1 / (warmup + 1), total_iters=warmup)
    return schedules.SequentialLR(optimizer, [rise, main], milestones=[warmup])


def _after_warmup(
    optimizer: Optimizer, schedule: ScheduleConfig, steps: int, rates: list[float]
) -> schedules.LRScheduler:
    if schedule.name == "cosine":
        return schedules.CosineAnnealingLR(optimizer, steps, eta_min=min(rates) * schedule.final_fraction)
    if schedule.name == "step":  # down to the final fraction in two equal falls, at 60 % and 85 % of the steps
        fall = max(schedule.final_fraction, 1e-2) ** 0.5
        return schedules.MultiStepLR(optimizer, [int(0.6 * steps), int(0.85 * steps)], gamma=fall)
    return schedules.LambdaLR(optimizer, _constant)


def _constant(_step: int) -> float:
    return 1.0


def lightning_config(optimizer: Optimizer, schedule: schedules.LRScheduler) -> Any:
    """What `configure_optimizers` returns."""
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
