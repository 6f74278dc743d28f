"""Augmentation of a whole uint8 batch with torch, on the device where it lies, with parameters per sample.

Each step is the batched form of the albumentations transform of that name, with its arguments and their
meaning; batch_rules.py says which arguments have one. Flips, quarter turns, shifts and crops move pixels
exactly; only Affine (beyond whole-pixel shifts) and RandomResizedCrop interpolate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from stillframe.augmentation import batch_geometry as geometry
from stillframe.augmentation.batch_step import BatchTransform, between, colour_of, integer, uniform


class BatchPolicy:
    """A policy on the batch; made from albumentations transforms that passed `batch_rules.first_problem`."""

    def __init__(self, transforms: Sequence[Any]) -> None:
        self.steps = [MAKERS[type(transform).__name__](transform) for transform in transforms]
        self.draws = sum(step.draws for step in self.steps)

    def move(self, map_BHW: Tensor, seed: int, epoch: int, index_B: Tensor) -> Tensor:
        """A map (uint8) moved as the images of the same draws are: nearest neighbour, NO_VALUE where nothing was."""
        u_BD = uniform(seed, epoch, index_B.to(map_BHW.device), self.draws)
        moved, first = map_BHW[:, None], 0
        for step in self.steps:
            if step.on_map is not None:
                moved = step.on_map(moved, u_BD[:, first : first + step.draws])
            first += step.draws
        return moved[:, 0].contiguous()

    def __call__(self, image_BCHW: Tensor, seed: int, epoch: int, index_B: Tensor) -> Tensor:
        """uint8 (B, C, H, W) -> the same shape, device and memory format; of clips (B, T, C, H, W) one draw each."""
        if image_BCHW.ndim == 5:
            batch, frames = image_BCHW.shape[:2]
            folded = self(image_BCHW.flatten(0, 1), seed, epoch, index_B.repeat_interleave(frames))
            return folded.view(batch, frames, *folded.shape[1:])
        assert image_BCHW.dtype == torch.uint8
        channels_last = image_BCHW.is_contiguous(memory_format=torch.channels_last)
        u_BD = uniform(seed, epoch, index_B.to(image_BCHW.device), self.draws)
        out, first = image_BCHW, 0
        for step in self.steps:
            out = step.apply(out, u_BD[:, first : first + step.draws])
            first += step.draws
        return out.contiguous(memory_format=torch.channels_last) if channels_last else out.contiguous()


def _brightness_contrast(transform: Any) -> BatchTransform:
    """Give value * contrast + brightness, cut to 0..255 and truncated, as albumentations does on uint8."""
    p = float(transform.p)

    def apply(image: Tensor, u: Tensor) -> Tensor:
        applied = u[:, 0] < p
        alpha = torch.where(applied, 1.0 + between(u[:, 1], *transform.contrast_limit), 1.0)
        beta = torch.where(applied, between(u[:, 2], *transform.brightness_limit), 0.0)
        pixels = image.float()
        reach = 255.0 if transform.brightness_by_max else pixels.mean(dim=(1, 2, 3)).double()
        alpha, beta = alpha.float()[:, None, None, None], (beta * reach).float()[:, None, None, None]
        return pixels.mul_(alpha).add_(beta).clamp_(0, 255).to(torch.uint8)

    return BatchTransform(3, apply)


def _fill_holes(image: Tensor, holes: list[tuple[Tensor, Tensor, Tensor, Tensor]], fill: Any) -> Tensor:
    """Fill holes (first row, first column, rows, columns), each (B,), in px; no rows: no hole."""
    row = torch.arange(image.shape[2], device=image.device)
    column = torch.arange(image.shape[3], device=image.device)
    hole = torch.zeros(len(image), image.shape[2], image.shape[3], dtype=torch.bool, device=image.device)
    for top, left, rows, columns in holes:
        inside_y = (row >= top[:, None]) & (row < (top + rows)[:, None])
        inside_x = (column >= left[:, None]) & (column < (left + columns)[:, None])
        hole |= inside_y[:, :, None] & inside_x[:, None, :]
    return torch.where(hole[:, None], colour_of(fill, image), image)


def _coarse_dropout(transform: Any) -> BatchTransform:
    p, (fewest, most) = float(transform.p), (int(end) for end in transform.num_holes_range)

    def apply(image: Tensor, u: Tensor) -> Tensor:
        height, width = image.shape[2:]
        number = torch.where(u[:, 0] < p, integer(u[:, 1], fewest, most), 0)
        in_px = transform.hole_height_range[1] >= 1
        holes = []
        for hole in range(most):
            v = u[:, 2 + 4 * hole : 6 + 4 * hole]
            rows = _hole_size(v[:, 0], transform.hole_height_range, height, in_px)
            columns = _hole_size(v[:, 1], transform.hole_width_range, width, in_px)
            top, left = integer(v[:, 2], 0, height - rows), integer(v[:, 3], 0, width - columns)
            holes.append((top, left, torch.where(hole < number, rows, 0), columns))
        return _fill_holes(image, holes, transform.fill)

    return BatchTransform(2 + 4 * most, apply)


def _hole_size(u: Tensor, range_: Sequence[float], size: int, in_px: bool) -> Tensor:
    if in_px:
        return integer(u, int(range_[0]), int(min(range_[1], size)))
    return (between(u, *range_) * size).long()


def _erasing(transform: Any) -> BatchTransform:
    """Random erasing: one box of random area and aspect ratio (width / height)."""
    p, (low, high) = float(transform.p), transform.ratio

    def apply(image: Tensor, u: Tensor) -> Tensor:
        height, width = image.shape[2:]
        least = transform.scale[0] * height * width
        most = min(transform.scale[1] * height * width, low * height**2, width**2 / high)
        if most < least:
            return image
        area = between(u[:, 1], least, most)
        ratio = between(u[:, 2], (area / height**2).clamp(min=low), (width**2 / area).clamp(max=high))
        rows = torch.round(torch.sqrt(area / ratio)).long().clamp(max=height)
        columns = torch.round(torch.sqrt(area * ratio)).long().clamp(max=width)
        top, left = integer(u[:, 3], 0, height - rows), integer(u[:, 4], 0, width - columns)
        return _fill_holes(image, [(top, left, torch.where(u[:, 0] < p, rows, 0), columns)], transform.fill)

    return BatchTransform(5, apply)


MAKERS: dict[str, Callable[[Any], BatchTransform]] = {
    "HorizontalFlip": geometry.flip(3),
    "VerticalFlip": geometry.flip(2),
    "Transpose": geometry.transpose,
    "D4": geometry.d4,
    "SquareSymmetry": geometry.d4,
    "RandomRotate90": geometry.quarter_turns,
    "Affine": geometry.affine,
    "Pad": geometry.pad,
    "RandomCrop": geometry.random_crop,
    "RandomResizedCrop": geometry.random_resized_crop,
    "RandomBrightnessContrast": _brightness_contrast,
    "CoarseDropout": _coarse_dropout,
    "Erasing": _erasing,
}
