"""Which transforms have a batched form (batch_augment.py), with which arguments; knows nothing of torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

NEAREST, LINEAR = 0, 1  # cv2.INTER_*
CONSTANT, REPLICATE, REFLECT, WRAP, REFLECT_101 = 0, 1, 2, 3, 4  # cv2.BORDER_*


def _any(transform: Any) -> str:
    return ""


def _affine(transform: Any) -> str:
    if transform.fit_output or transform.balanced_scale:
        return "Affine has no batched form with fit_output or balanced_scale"
    if is_shift(transform):
        return ""
    if transform.interpolation not in (NEAREST, LINEAR):
        return f"Affine has no batched form with interpolation = {transform.interpolation} (only 0 and 1)"
    if transform.border_mode not in (CONSTANT, REPLICATE, REFLECT):
        return f"Affine has no batched form with border_mode = {transform.border_mode} (only 0, 1 and 2)"
    return ""


def is_shift(affine: Any) -> bool:
    """Whether an Affine only shifts by whole pixels, so that it needs no interpolation."""
    unscaled = all(tuple(affine.scale[axis]) == (1.0, 1.0) for axis in "xy")
    unsheared = all(tuple(affine.shear[axis]) == (0.0, 0.0) for axis in "xy")
    return unscaled and unsheared and tuple(affine.rotate) == (0.0, 0.0)


def _holes(transform: Any) -> str:
    if isinstance(transform.fill, str):
        return f"{type(transform).__name__} has no batched form with fill = {transform.fill!r} (only numbers)"
    return ""


def _brightness(transform: Any) -> str:
    if transform.ensure_safe_range:
        return "RandomBrightnessContrast has no batched form with ensure_safe_range"
    return ""


def _crop(transform: Any) -> str:
    if transform.pad_if_needed and transform.pad_position != "center":
        return f"RandomCrop has no batched form with pad_position = {transform.pad_position!r} (only center)"
    return ""


def _resized(transform: Any) -> str:
    if transform.interpolation not in (NEAREST, LINEAR) or transform.area_for_downscale is not None:
        return "RandomResizedCrop's batched form needs interpolation 0 or 1 and no area_for_downscale"
    return ""


BATCHED: dict[str, Callable[[Any], str]] = {  # name -> why not with these arguments, or ""
    "HorizontalFlip": _any,
    "VerticalFlip": _any,
    "Transpose": _any,
    "D4": _any,
    "SquareSymmetry": _any,
    "RandomRotate90": _any,
    "Affine": _affine,
    "Pad": _any,
    "RandomCrop": _crop,
    "RandomResizedCrop": _resized,
    "RandomBrightnessContrast": _brightness,
    "CoarseDropout": _holes,
    "Erasing": _holes,
}


def first_problem(transforms: Sequence[Any]) -> str:
    """Why albumentations transforms cannot run on the batch, naming the first that cannot; "" if they can."""
    for transform in transforms:
        name = type(transform).__name__
        if name not in BATCHED:
            return f"{name} has no batched form (those that have: {', '.join(BATCHED)})"
        if problem := BATCHED[name](transform):
            return problem
    return ""
