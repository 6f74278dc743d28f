"""Augmentation of a whole uint8 batch with torch, on the device where it lies, with parameters per sample.

Each function here is the batched form of the albumentations transform of that name, with its arguments and their
meaning; batch_rules.py says which arguments have one. Flips, quarter turns, shifts and crops move pixels exactly;
only Affine (beyond whole-pixel shifts) and RandomResizedCrop interpolate.

Images are uint8 (B, C, H, W); `u_BD` holds the draws of one transform, float64 in [0, 1); its first column decides
whether the transform is applied (`p`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from stillframe.data.batch_rules import CONSTANT, NEAREST, REFLECT, REFLECT_101, REPLICATE, WRAP, is_shift
from stillframe.data.draw import GOLDEN, MULTIPLIER_1, MULTIPLIER_2, epoch_word

Apply = Callable[[Tensor, Tensor], Tensor]  # image_BCHW, u_BD -> image_BCHW
PADDING = {CONSTANT: "zeros", REPLICATE: "border", REFLECT: "reflection"}  # as grid_sample calls them
TRIES = 10  # of RandomResizedCrop, as in albumentations


@dataclass(frozen=True)
class Step:
    """One transform on a batch: `draws` columns of random numbers a sample, and what is done with them."""

    draws: int
    apply: Apply


class BatchPolicy:
    """A policy on the batch; made from albumentations transforms that passed `batch_rules.first_problem`."""

    def __init__(self, transforms: Sequence[Any]) -> None:
        self.steps = [MAKERS[type(transform).__name__](transform) for transform in transforms]
        self.draws = sum(step.draws for step in self.steps)

    def __call__(self, image_BCHW: Tensor, seed: int, epoch: int, index_B: Tensor) -> Tensor:
        """uint8 (B, C, H, W) -> the same shape, device and memory format."""
        assert image_BCHW.dtype == torch.uint8
        channels_last = image_BCHW.is_contiguous(memory_format=torch.channels_last)
        u_BD = uniform(seed, epoch, index_B.to(image_BCHW.device), self.draws)
        out, first = image_BCHW, 0
        for step in self.steps:
            out = step.apply(out, u_BD[:, first : first + step.draws])
            first += step.draws
        return out.contiguous(memory_format=torch.channels_last) if channels_last else out.contiguous()


# Random numbers: `draw.keys` and `draw.uniform` on the device, so that a GPU is not waited for.


def _signed(word: int) -> int:
    word &= (1 << 64) - 1
    return word - (1 << 64) if word >> 63 else word


def _mix(state: Tensor) -> Tensor:
    """`draw.mix` on int64, whose products wrap and whose right shifts must be stripped of the sign."""
    for shift, multiplier in ((30, MULTIPLIER_1), (27, MULTIPLIER_2)):
        state = (state ^ ((state >> shift) & ((1 << (64 - shift)) - 1))) * _signed(multiplier)
    return state ^ ((state >> 31) & ((1 << 33) - 1))


def uniform(seed: int, epoch: int, index_B: Tensor, count: int) -> Tensor:
    """`draw.uniform(draw.keys(seed, epoch, index_B), 0, count)`, bit for bit, on the device of `index_B`."""
    key_B = _mix((index_B ^ _signed(epoch_word(seed, epoch))) + _signed(GOLDEN))
    number = torch.arange(1, count + 1, device=index_B.device, dtype=torch.int64)
    word_BD = _mix(key_B[:, None] + number * _signed(GOLDEN))
    return ((word_BD >> 11) & ((1 << 53) - 1)).double() * 2.0**-53


def _between(u: Tensor, low: float | Tensor, high: float | Tensor) -> Tensor:
    return low + u * (high - low)


def _integer(u: Tensor, low: int | Tensor, high: int | Tensor) -> Tensor:
    """Whole numbers in low..high, both included."""
    return torch.floor(u * (high - low + 1)).long() + low


# Pixels moved exactly


def _where(chosen_B: Tensor, yes_BCHW: Tensor, no_BCHW: Tensor) -> Tensor:
    return torch.where(chosen_B[:, None, None, None], yes_BCHW, no_BCHW)


def _flip(axis: int) -> Callable[[Any], Step]:
    def make(transform: Any) -> Step:
        p = float(transform.p)
        return Step(1, lambda image, u: _where(u[:, 0] < p, image.flip(axis), image))

    return make


def _transpose(transform: Any) -> Step:
    p = float(transform.p)
    return Step(1, lambda image, u: _where(u[:, 0] < p, image.transpose(2, 3), image))


def _d4(transform: Any) -> Step:
    """One of the eight symmetries of the square: an optional transposition and two optional flips."""
    p = float(transform.p)

    def apply(image: Tensor, u: Tensor) -> Tensor:
        element = torch.where(u[:, 0] < p, _integer(u[:, 1], 0, 7), 0)
        image = _where((element & 4) > 0, image.transpose(2, 3), image)
        image = _where((element & 2) > 0, image.flip(2), image)
        return _where((element & 1) > 0, image.flip(3), image)

    return Step(2, apply)


def _quarter_turns(transform: Any) -> Step:
    p = float(transform.p)

    def apply(image: Tensor, u: Tensor) -> Tensor:
        turns = torch.where(u[:, 0] < p, _integer(u[:, 1], 0, 3), 0)
        image = _where((turns & 1) > 0, image.transpose(2, 3).flip(2), image)
        return _where((turns & 2) > 0, image.flip((2, 3)), image)

    return Step(2, apply)


def _source(before: int, size: int, after: int, border: int, device: torch.device) -> Tensor:
    """For each place of an axis padded by `before` and `after`: the place it is copied from, 0..size - 1."""
    place = torch.arange(-before, size + after, device=device)
    if border == REPLICATE:
        return place.clamp(0, size - 1)
    if border == WRAP:
        return place % size
    period = 2 * size if border == REFLECT else max(1, 2 * size - 2)
    folded = place % period
    return torch.where(folded < size, folded, period - folded - (1 if border == REFLECT else 0))


def _colour(fill: Any, image: Tensor) -> Tensor:
    """A fill value (a number, or one a channel) as (1, C, 1, 1) or (1, 1, 1, 1), of the image's type."""
    values = [float(value) for value in fill] if isinstance(fill, (tuple, list)) else [float(fill)]
    return torch.tensor(values, device=image.device).to(image.dtype).view(1, -1, 1, 1)


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
    out = _colour(fill, image).repeat(len(image), 1, height + top + bottom, width + left + right)
    out[:, :, top : top + height, left : left + width] = image
    return out


def _windows(image: Tensor, top_B: Tensor, left_B: Tensor, height: int, width: int) -> Tensor:
    """The window of each sample whose first row and column are given: (B, C, height, width)."""
    views = image.unfold(2, height, 1).unfold(3, width, 1)  # no copy: all windows of all samples
    return views[torch.arange(len(image), device=image.device), :, top_B, left_B]


def _shift(affine: Any) -> Step:
    """An Affine that only shifts: whole pixels, exact."""
    p, border, fill = float(affine.p), int(affine.border_mode), affine.fill

    def apply(image: Tensor, u: Tensor) -> Tensor:
        height, width = image.shape[2:]
        dx, dy, (x0, x1, y0, y1) = _translation(affine, u[:, 1:3], height, width)
        applied = u[:, 0] < p
        dx = torch.where(applied, dx, 0).clamp(-width, width)
        dy = torch.where(applied, dy, 0).clamp(-height, height)
        left, right = max(0, min(x1, width)), max(0, min(-x0, width))
        top, bottom = max(0, min(y1, height)), max(0, min(-y0, height))
        padded = _pad(image, left, top, right, bottom, border, fill)
        return _windows(padded, top - dy, left - dx, height, width)

    return Step(3, apply)


def _translation(affine: Any, u_B2: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, tuple[int, int, int, int]]:
    """Shifts in px (int64, int64) and their bounds (x lowest, x highest, y lowest, y highest)."""
    if affine.translate_px is not None:
        (x0, x1), (y0, y1) = (tuple(int(end) for end in affine.translate_px[axis]) for axis in "xy")
        return _integer(u_B2[:, 0], x0, x1), _integer(u_B2[:, 1], y0, y1), (x0, x1, y0, y1)
    x, y = affine.translate_percent["x"], affine.translate_percent["y"]
    dx = torch.trunc(_between(u_B2[:, 0], *x) * width).long()
    dy = torch.trunc(_between(u_B2[:, 1], *y) * height).long()
    return dx, dy, (math.floor(x[0] * width), math.ceil(x[1] * width), math.floor(y[0] * height), math.ceil(y[1] * height))


def _pad_step(transform: Any) -> Step:
    padding = transform.padding
    sides = (padding,) * 4 if isinstance(padding, int) else tuple(padding) * (2 if len(padding) == 2 else 1)
    left, top, right, bottom = sides
    border, fill = int(transform.border_mode), transform.fill
    return Step(0, lambda image, u: _pad(image, left, top, right, bottom, border, fill))


def _random_crop(transform: Any) -> Step:
    """A crop at a random place; padded evenly first where `pad_if_needed` asks for it. (It is always applied: one
    that is applied only sometimes would give images of two sizes, which `check_policy` refuses.)
    """  # noqa: D205
    height, width = int(transform.height), int(transform.width)

    def apply(image: Tensor, u: Tensor) -> Tensor:
        if transform.pad_if_needed:
            rows, columns = max(0, height - image.shape[2]), max(0, width - image.shape[3])
            top, left = rows // 2, columns // 2
            border, fill = int(transform.border_mode), transform.fill
            image = _pad(image, left, top, columns - left, rows - top, border, fill)
        top_B = _integer(u[:, 0], 0, image.shape[2] - height)
        left_B = _integer(u[:, 1], 0, image.shape[3] - width)
        return _windows(image, top_B, left_B, height, width)

    return Step(2, apply)


# Pixels interpolated


def _sample(image: Tensor, grid_BHW2: Tensor, nearest: bool, border: int, fill: Any = 0) -> Tensor:
    """The image at the places of the grid (-1..1, pixel centres), rounded to uint8."""
    colour = _colour(fill, image).float()
    mode = "nearest" if nearest else "bilinear"
    moved = functional.grid_sample(image.float() - colour, grid_BHW2, mode, PADDING[border], align_corners=False)
    return (moved + colour).round_().clamp_(0, 255).to(torch.uint8)


def _affine(affine: Any) -> Step:
    """Scale, then rotate, shear and shift about the image's centre; or only shift, exactly."""
    if is_shift(affine):
        return _shift(affine)
    p = float(affine.p)

    def apply(image: Tensor, u: Tensor) -> Tensor:
        height, width = image.shape[2:]
        applied = u[:, 0] < p
        dx, dy, _ = _translation(affine, u[:, 1:3], height, width)
        inverse_B22 = torch.linalg.inv(_linear_part(affine, u[:, 3:8]))
        size = torch.tensor([width, height], device=image.device, dtype=torch.float64)
        shift_B2 = torch.stack([dx, dy], dim=1).double()
        theta = torch.empty(len(image), 2, 3, device=image.device, dtype=torch.float64)
        theta[:, :, :2] = inverse_B22 * size[None, None, :] / size[None, :, None]
        theta[:, :, 2] = -2.0 * (inverse_B22 @ shift_B2[:, :, None])[:, :, 0] / size
        grid = functional.affine_grid(theta.float(), list(image.shape), align_corners=False)
        moved = _sample(image, grid, affine.interpolation == NEAREST, int(affine.border_mode), affine.fill)
        return _where(applied, moved, image)

    return Step(8, apply)


def _linear_part(affine: Any, u_B5: Tensor) -> Tensor:
    """Shear @ rotation @ scale, (B, 2, 2), with the signs of albumentations (y points down)."""
    scale_x = _between(u_B5[:, 0], *affine.scale["x"])
    scale_y = scale_x if affine.keep_ratio else _between(u_B5[:, 1], *affine.scale["y"])
    turn = torch.deg2rad(_between(u_B5[:, 2], *affine.rotate))
    shear_x = torch.tan(torch.deg2rad(-_between(u_B5[:, 3], *affine.shear["x"])))
    shear_y = torch.tan(torch.deg2rad(-_between(u_B5[:, 4], *affine.shear["y"])))
    cos, sin, one = turn.cos(), turn.sin(), torch.ones_like(turn)
    shear = torch.stack([one, shear_x, shear_y, one], dim=1).view(-1, 2, 2)
    rotation = torch.stack([cos, sin, -sin, cos], dim=1).view(-1, 2, 2)
    scale = torch.stack([scale_x, scale_y], dim=1)
    return shear @ rotation * scale[:, None, :]


def _random_resized_crop(transform: Any) -> Step:
    """A crop of random area and aspect ratio, resized. The first of ten tries that fits is taken, as in Inception."""
    height, width = (int(side) for side in transform.size)
    nearest, p = transform.interpolation == NEAREST, float(transform.p)

    def apply(image: Tensor, u: Tensor) -> Tensor:
        box = _crop_boxes(transform, u, image.shape[2], image.shape[3])
        whole = box.new_tensor([0.0, 0.0, float(image.shape[3]), float(image.shape[2])])
        x, y, w, h = torch.where((u[:, 0] < p)[:, None], box, whole).unbind(dim=1)
        grids = []
        for start, length, size, out in ((x, w, image.shape[3], width), (y, h, image.shape[2], height)):
            centre = torch.arange(out, device=image.device, dtype=torch.float64) + 0.5
            place = start[:, None] + centre * length[:, None] / out  # in px from the image's edge
            inside = torch.minimum(torch.maximum(place, start[:, None] + 0.5), (start + length)[:, None] - 0.5)
            grids.append((inside * 2 / size - 1).float())
        grid_x = grids[0][:, None, :].expand(-1, height, -1)
        grid_y = grids[1][:, :, None].expand(-1, -1, width)
        return _sample(image, torch.stack([grid_x, grid_y], dim=3), nearest, REPLICATE)

    return Step(3 + 2 * TRIES, apply)


def _crop_boxes(transform: Any, u: Tensor, height: int, width: int) -> Tensor:
    """Boxes (x, y, width, height) in px: float64 (B, 4), whole numbers."""
    area = _between(u[:, 3 : 3 + TRIES], *transform.scale) * (height * width)
    low, high = (math.log(end) for end in transform.ratio)
    ratio = torch.exp(_between(u[:, 3 + TRIES :], low, high))
    w, h = torch.round(torch.sqrt(area * ratio)), torch.round(torch.sqrt(area / ratio))
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first = fits.int().argmax(dim=1, keepdim=True)  # the first that fits; 0 when none does
    w, h, any_fits = w.gather(1, first)[:, 0], h.gather(1, first)[:, 0], fits.any(dim=1)
    x = torch.floor(u[:, 1] * (width - w + 1))
    y = torch.floor(u[:, 2] * (height - h + 1))
    bounded = min(max(width / height, transform.ratio[0]), transform.ratio[1])  # the nearest allowed aspect ratio
    whole_w = min(width, round(height * bounded))
    whole_h = min(height, round(width / bounded))
    middle = u.new_tensor([(width - whole_w) // 2, (height - whole_h) // 2, whole_w, whole_h])
    return torch.where(any_fits[:, None], torch.stack([x, y, w, h], dim=1), middle)


# Pixel values


def _brightness_contrast(transform: Any) -> Step:
    """value * contrast + brightness, cut to 0..255 and truncated, as albumentations does on uint8."""
    p = float(transform.p)

    def apply(image: Tensor, u: Tensor) -> Tensor:
        applied = u[:, 0] < p
        alpha = torch.where(applied, 1.0 + _between(u[:, 1], *transform.contrast_limit), 1.0)
        beta = torch.where(applied, _between(u[:, 2], *transform.brightness_limit), 0.0)
        pixels = image.float()
        reach = 255.0 if transform.brightness_by_max else pixels.mean(dim=(1, 2, 3)).double()
        alpha, beta = alpha.float()[:, None, None, None], (beta * reach).float()[:, None, None, None]
        return pixels.mul_(alpha).add_(beta).clamp_(0, 255).to(torch.uint8)

    return Step(3, apply)


def _fill_boxes(image: Tensor, boxes: list[tuple[Tensor, Tensor, Tensor, Tensor]], fill: Any) -> Tensor:
    """Fill boxes (first row, first column, rows, columns), each (B,), in px; no rows: no box."""
    row = torch.arange(image.shape[2], device=image.device)
    column = torch.arange(image.shape[3], device=image.device)
    hole = torch.zeros(len(image), image.shape[2], image.shape[3], dtype=torch.bool, device=image.device)
    for top, left, rows, columns in boxes:
        inside_y = (row >= top[:, None]) & (row < (top + rows)[:, None])
        inside_x = (column >= left[:, None]) & (column < (left + columns)[:, None])
        hole |= inside_y[:, :, None] & inside_x[:, None, :]
    return torch.where(hole[:, None], _colour(fill, image), image)


def _coarse_dropout(transform: Any) -> Step:
    p, (fewest, most) = float(transform.p), (int(end) for end in transform.num_holes_range)

    def apply(image: Tensor, u: Tensor) -> Tensor:
        height, width = image.shape[2:]
        number = torch.where(u[:, 0] < p, _integer(u[:, 1], fewest, most), 0)
        in_px = transform.hole_height_range[1] >= 1
        boxes = []
        for hole in range(most):
            v = u[:, 2 + 4 * hole : 6 + 4 * hole]
            rows = _hole_size(v[:, 0], transform.hole_height_range, height, in_px)
            columns = _hole_size(v[:, 1], transform.hole_width_range, width, in_px)
            top, left = _integer(v[:, 2], 0, height - rows), _integer(v[:, 3], 0, width - columns)
            boxes.append((top, left, torch.where(hole < number, rows, 0), columns))
        return _fill_boxes(image, boxes, transform.fill)

    return Step(2 + 4 * most, apply)


def _hole_size(u: Tensor, range_: Sequence[float], size: int, in_px: bool) -> Tensor:
    if in_px:
        return _integer(u, int(range_[0]), int(min(range_[1], size)))
    return (_between(u, *range_) * size).long()


def _erasing(transform: Any) -> Step:
    """Random erasing: one box of random area and aspect ratio (width / height)."""
    p, (low, high) = float(transform.p), transform.ratio

    def apply(image: Tensor, u: Tensor) -> Tensor:
        height, width = image.shape[2:]
        least = transform.scale[0] * height * width
        most = min(transform.scale[1] * height * width, low * height**2, width**2 / high)
        if most < least:
            return image
        area = _between(u[:, 1], least, most)
        ratio = _between(u[:, 2], (area / height**2).clamp(min=low), (width**2 / area).clamp(max=high))
        rows, columns = torch.round(torch.sqrt(area / ratio)).long(), torch.round(torch.sqrt(area * ratio)).long()
        rows, columns = rows.clamp(max=height), columns.clamp(max=width)
        top, left = _integer(u[:, 3], 0, height - rows), _integer(u[:, 4], 0, width - columns)
        return _fill_boxes(image, [(top, left, torch.where(u[:, 0] < p, rows, 0), columns)], transform.fill)

    return Step(5, apply)


MAKERS: dict[str, Callable[[Any], Step]] = {
    "HorizontalFlip": _flip(3),
    "VerticalFlip": _flip(2),
    "Transpose": _transpose,
    "D4": _d4,
    "SquareSymmetry": _d4,
    "RandomRotate90": _quarter_turns,
    "Affine": _affine,
    "Pad": _pad_step,
    "RandomCrop": _random_crop,
    "RandomResizedCrop": _random_resized_crop,
    "RandomBrightnessContrast": _brightness_contrast,
    "CoarseDropout": _coarse_dropout,
    "Erasing": _erasing,
}
