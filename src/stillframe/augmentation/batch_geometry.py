"""Batched transforms that move pixels: flips, turns, shifts, crops (exact), and affine maps (interpolated).

Each function makes the batched form of the albumentations transform of that name. Images are uint8
(B, C, H, W); `u` holds the draws of one transform, float64 (B, D) in [0, 1); its first column decides whether
the transform is applied (`p`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from stillframe.augmentation.batch_rules import CONSTANT, NEAREST, REFLECT, REPLICATE, WRAP, is_shift
from stillframe.augmentation.batch_step import Apply, BatchTransform, between, colour_of, integer, where
from stillframe.store.columns import NO_VALUE

PADDING = {CONSTANT: "zeros", REPLICATE: "border", REFLECT: "reflection"}  # as grid_sample calls them
TRIES = 10  # of RandomResizedCrop, as in albumentations


def _exact(draws: int, apply: Apply) -> BatchTransform:
    """A step that only puts pixels elsewhere: the same for images and masks."""
    return BatchTransform(draws, apply, apply)


def flip(axis: int) -> Callable[[Any], BatchTransform]:
    """Mirrored along an axis (2: upside down, 3: left to right)."""

    def make(transform: Any) -> BatchTransform:
        p = float(transform.p)
        return _exact(1, lambda image, u: where(u[:, 0] < p, image.flip(axis), image))

    return make


def transpose(transform: Any) -> BatchTransform:
    """Rows and columns exchanged."""
    p = float(transform.p)
    return _exact(1, lambda image, u: where(u[:, 0] < p, image.transpose(2, 3), image))


def d4(transform: Any) -> BatchTransform:
    """One of the eight symmetries of the square: an optional transposition and two optional flips."""
    p = float(transform.p)

    def apply(image: Tensor, u: Tensor) -> Tensor:
        element = torch.where(u[:, 0] < p, integer(u[:, 1], 0, 7), 0)
        image = where((element & 4) > 0, image.transpose(2, 3), image)
        image = where((element & 2) > 0, image.flip(2), image)
        return where((element & 1) > 0, image.flip(3), image)

    return _exact(2, apply)


def quarter_turns(transform: Any) -> BatchTransform:
    """None, one, two or three quarter turns."""
    p = float(transform.p)

    def apply(image: Tensor, u: Tensor) -> Tensor:
        turns = torch.where(u[:, 0] < p, integer(u[:, 1], 0, 3), 0)
        image = where((turns & 1) > 0, image.transpose(2, 3).flip(2), image)
        return where((turns & 2) > 0, image.flip((2, 3)), image)

    return _exact(2, apply)


def _source(before: int, size: int, after: int, border: int, device: torch.device) -> Tensor:
    """For each position of an axis padded by `before` and `after`: the position it is copied from, 0..size - 1."""
    position = torch.arange(-before, size + after, device=device)
    if border == REPLICATE:
        return position.clamp(0, size - 1)
    if border == WRAP:
        return position % size
    period = 2 * size if border == REFLECT else max(1, 2 * size - 2)
    folded = position % period
    return torch.where(folded < size, folded, period - folded - (1 if border == REFLECT else 0))


def _pad(image: Tensor, left: int, top: int, right: int, bottom: int, border: int, fill: Any) -> Tensor:
    """Pad by px on each side, as cv2 does with this border mode."""
    if not (left or top or right or bottom):
        return image
    height, width = image.shape[2:]
    if border != CONSTANT:
        rows = _source(top, height, bottom, border, image.device)
        return image[:, :, rows][:, :, :, _source(left, width, right, border, image.device)]
    if not isinstance(fill, (tuple, list)):
        return functional.pad(image, (left, right, top, bottom), value=float(fill))
    out = colour_of(fill, image).repeat(len(image), 1, height + top + bottom, width + left + right)
    out[:, :, top : top + height, left : left + width] = image
    return out


def _windows(image: Tensor, top_B: Tensor, left_B: Tensor, height: int, width: int) -> Tensor:
    """The window of each sample whose first row and column are given: (B, C, height, width)."""
    views = image.unfold(2, height, 1).unfold(3, width, 1)  # no copy: all windows of all samples
    return views[torch.arange(len(image), device=image.device), :, top_B, left_B]


def _shift(affine: Any) -> BatchTransform:
    """An Affine that only shifts: whole pixels, exact."""
    p, border = float(affine.p), int(affine.border_mode)

    def apply(image: Tensor, u: Tensor, fill: Any = affine.fill) -> Tensor:
        height, width = image.shape[2:]
        dx, dy, (x0, x1, y0, y1) = _translation(affine, u[:, 1:3], height, width)
        applied = u[:, 0] < p
        dx = torch.where(applied, dx, 0).clamp(-width, width)
        dy = torch.where(applied, dy, 0).clamp(-height, height)
        left, right = max(0, min(x1, width)), max(0, min(-x0, width))
        top, bottom = max(0, min(y1, height)), max(0, min(-y0, height))
        padded = _pad(image, left, top, right, bottom, border, fill)
        return _windows(padded, top - dy, left - dx, height, width)

    return BatchTransform(3, apply, partial(apply, fill=NO_VALUE))


def _translation(
    affine: Any, u_B2: Tensor, height: int, width: int
) -> tuple[Tensor, Tensor, tuple[int, int, int, int]]:
    """Shifts in px (int64, int64) and their bounds (x lowest, x highest, y lowest, y highest)."""
    if affine.translate_px is not None:
        (x0, x1), (y0, y1) = (tuple(int(end) for end in affine.translate_px[axis]) for axis in "xy")
        return integer(u_B2[:, 0], x0, x1), integer(u_B2[:, 1], y0, y1), (x0, x1, y0, y1)
    x, y = affine.translate_percent["x"], affine.translate_percent["y"]
    dx = torch.trunc(between(u_B2[:, 0], *x) * width).long()
    dy = torch.trunc(between(u_B2[:, 1], *y) * height).long()
    x_bounds = math.floor(x[0] * width), math.ceil(x[1] * width)
    y_bounds = math.floor(y[0] * height), math.ceil(y[1] * height)
    return dx, dy, (*x_bounds, *y_bounds)


def pad(transform: Any) -> BatchTransform:
    """A fixed number of px added on each side."""
    padding = transform.padding
    sides = (padding,) * 4 if isinstance(padding, int) else tuple(padding) * (2 if len(padding) == 2 else 1)
    left, top, right, bottom = sides
    border = int(transform.border_mode)

    def apply(image: Tensor, u: Tensor, fill: Any = transform.fill) -> Tensor:
        return _pad(image, left, top, right, bottom, border, fill)

    return BatchTransform(0, apply, partial(apply, fill=NO_VALUE))


def random_crop(transform: Any) -> BatchTransform:
    """A crop at a random position, padded evenly first where `pad_if_needed` asks for it.

    It is always applied: one that is applied only sometimes would give images of two sizes, which `check_policy`
    refuses.
    """
    height, width = int(transform.height), int(transform.width)

    def apply(image: Tensor, u: Tensor, fill: Any = transform.fill) -> Tensor:
        if transform.pad_if_needed:
            rows, columns = max(0, height - image.shape[2]), max(0, width - image.shape[3])
            top, left = rows // 2, columns // 2
            image = _pad(image, left, top, columns - left, rows - top, int(transform.border_mode), fill)
        top_B = integer(u[:, 0], 0, image.shape[2] - height)
        left_B = integer(u[:, 1], 0, image.shape[3] - width)
        return _windows(image, top_B, left_B, height, width)

    return BatchTransform(2, apply, partial(apply, fill=NO_VALUE))


# Pixels interpolated


def _sample(image: Tensor, grid_BHW2: Tensor, nearest: bool, border: int, fill: Any = 0) -> Tensor:
    """The image at the places of the grid (-1..1, pixel centres), rounded to uint8."""
    colour = colour_of(fill, image).float()
    mode = "nearest" if nearest else "bilinear"
    moved = functional.grid_sample(image.float() - colour, grid_BHW2, mode, PADDING[border], align_corners=False)
    return (moved + colour).round_().clamp_(0, 255).to(torch.uint8)


def affine(affine: Any) -> BatchTransform:
    """Scale, then rotate, shear and shift about the image's centre; or only shift, exactly."""
    if is_shift(affine):
        return _shift(affine)
    p, rough = float(affine.p), affine.interpolation == NEAREST

    def apply(image: Tensor, u: Tensor, nearest: bool = rough, fill: Any = affine.fill) -> Tensor:
        height, width = image.shape[2:]
        applied = u[:, 0] < p
        dx, dy, _ = _translation(affine, u[:, 1:3], height, width)
        a, b, c, d = _linear_part(affine, u[:, 3:8])
        det = a * d - b * c
        across, down = (d * dx - b * dy) / det, (a * dy - c * dx) / det
        first = torch.stack([d / det, -b / det * (height / width), across * (-2.0 / width)], dim=1)
        second = torch.stack([-c / det * (width / height), a / det, down * (-2.0 / height)], dim=1)
        theta = torch.stack([first, second], dim=1)  # output position -> input position, both in -1..1
        grid = functional.affine_grid(theta.float(), list(image.shape), align_corners=False)
        moved = _sample(image, grid, nearest, int(affine.border_mode), fill)
        return where(applied, moved, image)

    return BatchTransform(8, apply, partial(apply, nearest=True, fill=NO_VALUE))


def _linear_part(affine: Any, u_B5: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Shear @ rotation @ scale as (a, b, c, d) of [[a, b], [c, d]], with albumentations' signs (y points down)."""
    scale_x = between(u_B5[:, 0], *affine.scale["x"])
    scale_y = scale_x if affine.keep_ratio else between(u_B5[:, 1], *affine.scale["y"])
    turn = torch.deg2rad(between(u_B5[:, 2], *affine.rotate))
    shear_x = torch.tan(torch.deg2rad(-between(u_B5[:, 3], *affine.shear["x"])))
    shear_y = torch.tan(torch.deg2rad(-between(u_B5[:, 4], *affine.shear["y"])))
    cos, sin = turn.cos(), turn.sin()
    a, b = (cos - shear_x * sin) * scale_x, (sin + shear_x * cos) * scale_y
    c, d = (shear_y * cos - sin) * scale_x, (shear_y * sin + cos) * scale_y
    return a, b, c, d


def random_resized_crop(transform: Any) -> BatchTransform:
    """A crop of random area and aspect ratio, resized; the first of ten tries that fits (as in Inception)."""
    height, width = (int(side) for side in transform.size)
    p = float(transform.p)

    def apply(image: Tensor, u: Tensor, nearest: bool = transform.interpolation == NEAREST) -> Tensor:
        rows, columns = image.shape[2:]
        applied, (x, y, w, h) = u[:, 0] < p, _crops(transform, u, rows, columns)
        x, y = torch.where(applied, x, 0.0), torch.where(applied, y, 0.0)
        w, h = torch.where(applied, w, float(columns)), torch.where(applied, h, float(rows))
        grids = []
        for start, length, size, out in ((x, w, columns, width), (y, h, rows, height)):
            centre = torch.arange(out, device=image.device, dtype=torch.float64) + 0.5
            position = start[:, None] + centre * length[:, None] / out  # in px from the image's edge
            first, last = start[:, None] + 0.5, (start + length)[:, None] - 0.5  # pixel centres of the crop
            inside = torch.minimum(torch.maximum(position, first), last)
            grids.append((inside * 2 / size - 1).float())
        grid_x = grids[0][:, None, :].expand(-1, height, -1)
        grid_y = grids[1][:, :, None].expand(-1, -1, width)
        return _sample(image, torch.stack([grid_x, grid_y], dim=3), nearest, REPLICATE)

    return BatchTransform(3 + 2 * TRIES, apply, partial(apply, nearest=True))


def _crops(transform: Any, u: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """First column, first row, width and height in px: each float64 (B,), whole numbers."""
    area = between(u[:, 3 : 3 + TRIES], *transform.scale) * (height * width)
    low, high = (math.log(end) for end in transform.ratio)
    ratio = torch.exp(between(u[:, 3 + TRIES :], low, high))
    w, h = torch.round(torch.sqrt(area * ratio)), torch.round(torch.sqrt(area / ratio))
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first = fits.int().argmax(dim=1, keepdim=True)  # the first that fits; 0 when none does
    w, h, any_fits = w.gather(1, first)[:, 0], h.gather(1, first)[:, 0], fits.any(dim=1)
    x = torch.floor(u[:, 1] * (width - w + 1))
    y = torch.floor(u[:, 2] * (height - h + 1))
    bounded = min(max(width / height, transform.ratio[0]), transform.ratio[1])  # nearest allowed ratio
    whole_w = min(width, round(height * bounded))
    whole_h = min(height, round(width / bounded))
    x = torch.where(any_fits, x, float((width - whole_w) // 2))
    y = torch.where(any_fits, y, float((height - whole_h) // 2))
    return x, y, torch.where(any_fits, w, float(whole_w)), torch.where(any_fits, h, float(whole_h))
