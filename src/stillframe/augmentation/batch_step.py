"""What the batched transforms share: the form of a `BatchTransform`, random numbers, small tensor helpers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stillframe.augmentation import random_draws
from stillframe.augmentation.random_draws import GOLDEN, MULTIPLIER_1, MULTIPLIER_2, epoch_bits

Apply = Callable[[Tensor, Tensor], Tensor]  # image_BCHW, u_BD -> image_BCHW


@dataclass(frozen=True)
class BatchTransform:
    """One transform on a batch: `draws` columns of random numbers a sample, and what is done with them.

    `on_map` does the same to maps, as (B, 1, H, W): nearest neighbour, NO_VALUE where nothing was; None where pixels
    stay in their places.
    """

    draws: int
    apply: Apply
    on_map: Apply | None = None


# Random numbers: `draw.keys` and `draw.uniform` on the device, so that a GPU is not waited for.


def _signed(bits: int) -> int:
    bits &= (1 << 64) - 1
    return bits - (1 << 64) if bits >> 63 else bits


def _mix(state: Tensor) -> Tensor:
    """`draw.mix` on int64, whose products wrap and whose right shifts must be stripped of the sign."""
    for shift, multiplier in ((30, MULTIPLIER_1), (27, MULTIPLIER_2)):
        state = (state ^ ((state >> shift) & ((1 << (64 - shift)) - 1))) * _signed(multiplier)
    return state ^ ((state >> 31) & ((1 << 33) - 1))


def uniform(seed: int, epoch: int, index_B: Tensor, count: int) -> Tensor:
    """`draw.uniform(draw.keys(seed, epoch, index_B), 0, count)`, bit for bit, on the device of `index_B`."""
    if index_B.device.type == "cpu":  # less than half the time: numpy has unsigned numbers, torch makes do without
        return torch.from_numpy(random_draws.uniform(random_draws.keys(seed, epoch, index_B.numpy()), 0, count))
    return uniform_anywhere(seed, epoch, index_B, count)


def uniform_anywhere(seed: int, epoch: int, index_B: Tensor, count: int) -> Tensor:
    """The same by torch alone."""
    key_B = _mix((index_B ^ _signed(epoch_bits(seed, epoch))) + _signed(GOLDEN))
    number = torch.arange(1, count + 1, device=index_B.device, dtype=torch.int64)
    bits_BD = _mix(key_B[:, None] + number * _signed(GOLDEN))
    return ((bits_BD >> 11) & ((1 << 53) - 1)).double() * 2.0**-53


def between(u: Tensor, low: float | Tensor, high: float | Tensor) -> Tensor:
    """Map draws in [0, 1) to [low, high)."""
    return low + u * (high - low)


def integer(u: Tensor, low: int | Tensor, high: int | Tensor) -> Tensor:
    """Whole numbers in low..high, both included."""
    return torch.floor(u * (high - low + 1)).long() + low


def where(chosen_B: Tensor, yes_BCHW: Tensor, no_BCHW: Tensor) -> Tensor:
    """Take one batch or the other, sample by sample; uint8."""
    if yes_BCHW.device.type == "cpu":  # a quarter of the time: torch.where takes a broadcast choice value by value
        all_bits_B = chosen_B.to(torch.uint8).neg_()[:, None, None, None]
        return torch.bitwise_xor(yes_BCHW, no_BCHW).bitwise_and_(all_bits_B).bitwise_xor_(no_BCHW)
    return torch.where(chosen_B[:, None, None, None], yes_BCHW, no_BCHW)


def colour_of(fill: Any, image: Tensor) -> Tensor:
    """A fill value (a number, or one a channel) as (1, C, 1, 1) or (1, 1, 1, 1), of the image's type."""
    if isinstance(fill, (tuple, list)):
        return torch.tensor([float(value) for value in fill], device=image.device).to(image.dtype).view(1, -1, 1, 1)
    return torch.full((1, 1, 1, 1), float(fill), device=image.device).to(image.dtype)  # no copy, so no wait for a GPU
