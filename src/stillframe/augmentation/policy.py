"""Augmentation policies: from `[{TransformName: {argument: value}}]` to albumentations, checked first."""

from __future__ import annotations

import inspect
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib import metadata
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from stillframe.config import nearest
from stillframe.store.columns import NO_VALUE

Policy = Sequence[dict[str, dict[str, Any]]]
Images = NDArray[np.uint8]
CHOICES = ("OneOf", "SomeOf", "Sequential")  # composes that may stand in a policy; they hold `transforms: [...]`
# albumentations' names for what is transformed with an image, and for its arguments
MAP, FILL, INTERPOLATION = "mask", "fill_mask", "mask_interpolation"
NOT_OURS = ("Lambda", "ToTensorV2", "ToTensor3D")  # need code, or make something that is not an image


def albumentations() -> ModuleType:
    """The albumentations module, imported without its call home and without torch.

    albumentations imports torch when it finds it (about one second, 200 MB) for the sake of ToTensorV2, which
    no policy uses. While it is imported, torch is marked as absent (`sys.modules["torch"] = None`, the
    documented way to make an import fail); afterwards the mark is gone and torch can be imported as ever.
    """
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    block = "torch" not in sys.modules and "albumentations" not in sys.modules
    if block:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        import albumentations as module
    finally:
        if block:
            del sys.modules["torch"]
    return module  # type: ignore[no-any-return]


def version() -> str:
    """Version of albumentations."""
    return metadata.version("albumentations")


def transforms() -> dict[str, type]:
    """The transforms that a policy may name: albumentations' own public classes."""
    module = albumentations()
    by_name = {}
    for name, kind in vars(module).items():
        if not (inspect.isclass(kind) and issubclass(kind, module.BasicTransform)) or name in NOT_OURS:
            continue
        if kind.__module__.startswith("albumentations.augmentations") and not name.startswith("Base"):
            by_name[name] = kind
    return by_name


def check_policy(policy: Policy, origin: str, shape: tuple[int, int, int] | None = None, *, maps: bool = False) -> None:
    """Refuse a policy that albumentations would not run as it is written.

    Args:
        policy: list of {TransformName: {argument: value}}.
        origin: where it stands, for messages, e.g. "augment.online".
        shape: (height, width, channels) of the images, px; when given, each transform is tried on one.
        maps: whether each image has maps of values, one a pixel, which must move with it.

    Raises:
        ValueError: an unknown transform or argument (with the nearest right name), a value out of range or of
            the wrong type, or a transform that does not give an image of the same shape back.
    """
    built = build(policy, origin)
    if maps:
        _check_keeps_values(built, origin)
    if shape is not None:
        _try(built, origin, shape, maps)


def build(policy: Policy, origin: str) -> list[Any]:
    """The transforms of a policy, as albumentations objects (ValueError as in `check_policy`)."""
    by_name = transforms()
    return [_entry(entry, f"{origin}[{i}]", by_name) for i, entry in enumerate(policy)]


def _entry(entry: Any, origin: str, by_name: dict[str, type]) -> Any:
    if not isinstance(entry, dict) or len(entry) != 1:
        raise ValueError(f"{origin} = {entry!r}: write one transform an entry, as {{Name: {{argument: value}}}}")
    ((name, arguments),) = entry.items()
    if not isinstance(arguments, dict):
        raise ValueError(f"{origin}.{name} = {arguments!r}: write the arguments as {{argument: value}}")
    if name in CHOICES:
        return _choice(name, dict(arguments), origin, by_name)
    if name not in by_name:
        raise ValueError(f"{origin}: unknown transform {name!r}: {nearest(name, [*by_name, *CHOICES])}")
    return _build_one(by_name[name], name, arguments, origin)


def _choice(name: str, arguments: dict[str, Any], origin: str, by_name: dict[str, type]) -> Any:
    inner = arguments.pop("transforms", None)
    if not isinstance(inner, list) or not inner:
        raise ValueError(f"{origin}.{name}.transforms = {inner!r}: write a list of transforms")
    transforms = [_entry(entry, f"{origin}.{name}.transforms[{i}]", by_name) for i, entry in enumerate(inner)]
    return _build_one(getattr(albumentations(), name), name, arguments, origin, transforms=transforms)


def _build_one(kind: type, name: str, arguments: dict[str, Any], origin: str, **fixed: Any) -> Any:
    allowed = set(inspect.signature(kind).parameters) - {"self", "strict", "args", "kwargs"}
    for argument, value in arguments.items():
        if argument not in allowed:
            raise ValueError(f"{origin}.{name}: unknown argument {argument} = {value!r}: {nearest(argument, allowed)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # albumentations only warns and then runs on its defaults
            return kind(**fixed, **arguments)
    except (ValueError, TypeError, UserWarning) as error:
        raise ValueError(f"{origin}.{name}: {_explain(error, arguments)}") from None


def _explain(error: Exception, arguments: dict[str, Any]) -> str:
    """One line from what albumentations (through pydantic) says of a value."""
    cause = error.__cause__
    if isinstance(cause, ValidationError):
        first = cause.errors(include_url=False)[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        value = f"{name} = {arguments[name]!r}" if name in arguments else f"{name or arguments!r}"
        return f"{value}: {first['msg'].removeprefix('Value error, ')}"
    return " ".join(str(error).split())


def _check_keeps_values(transforms: Sequence[Any], origin: str) -> None:
    """Raise ValueError for a transform that would interpolate between the values of a map."""
    for transform in transforms:
        _check_keeps_values(getattr(transform, "transforms", ()), origin)
        if getattr(transform, INTERPOLATION, 0) != 0:
            name, value = type(transform).__name__, getattr(transform, INTERPOLATION)
            raise ValueError(
                f"{origin}: {name}.{INTERPOLATION} = {value} would make classes that are not there: leave it out (0)"
            )


def _fill_maps_with_no_value(transforms: Sequence[Any]) -> None:
    """Let transforms fill what they bring into a map with NO_VALUE: there is no image to learn from."""
    for transform in transforms:
        _fill_maps_with_no_value(getattr(transform, "transforms", ()))
        if getattr(transform, FILL, None) == 0:  # albumentations' default; None leaves the map as it is
            setattr(transform, FILL, float(NO_VALUE))


def _try(transforms: list[Any], origin: str, shape: tuple[int, int, int], maps: bool) -> None:
    """Run each transform once on a random image; together they must give the shape and uint8 back."""
    image: Any = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    map_HW: Any = np.zeros(shape[:2], dtype=np.uint8)
    names = [type(transform).__name__ for transform in transforms]
    for name, transform in zip(names, transforms, strict=True):
        before = image.shape
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)
                if maps:
                    sample = transform(**{"image": image, MAP: map_HW}, force_apply=True)
                    image, map_HW = sample["image"], sample[MAP]
                else:
                    image = transform(image=image, force_apply=True)["image"]
        except Exception as error:  # whatever a transform dies of on such an image, it is the policy that is at fault
            reason = " ".join(str(error).split())
            raise ValueError(f"{origin}: {name} does not work on images of {_px(shape)}: {reason}") from error
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != shape[2]:
            kind = f"{image.dtype} {image.shape}"
            raise ValueError(f"{origin}: {name} makes {kind} of a uint8 image of {_px(shape)}: leave it out")
        if maps and (map_HW.dtype != np.uint8 or map_HW.shape != image.shape[:2]):
            raise ValueError(f"{origin}: {name} does not move a mask with its image: leave it out")
        if image.shape != before and transform.p < 1:
            raise ValueError(f"{origin}: {name} changes the size, but only sometimes (p = {transform.p}): set p: 1.0")
    if image.shape != shape:
        raise ValueError(
            f"{origin}: {', '.join(names)} make {_px(image.shape)} of {_px(shape)}: "
            "a policy must keep the size (data.image_size), say by a crop of that size after a padding"
        )


def _px(shape: tuple[int, ...]) -> str:
    return f"{shape[0]} x {shape[1]} px, {shape[2]} channel{'s' if shape[2] > 1 else ''}"


def compose(policy: Policy, origin: str) -> Any:
    """A policy as one albumentations Compose (ValueError as in `check_policy`)."""
    built = build(policy, origin)
    _fill_maps_with_no_value(built)
    return albumentations().Compose(built, is_check_shapes=False)


def resolved(policy: Policy, origin: str) -> list[dict[str, Any]]:
    """The policy with the value of each argument, defaults included, as albumentations serialises them."""
    return [_resolved(transform) for transform in build(policy, origin)]


def _resolved(transform: Any) -> dict[str, Any]:
    values = {key: value for key, value in transform.to_dict_private().items() if not key.startswith("__")}
    if "transforms" in values:
        values["transforms"] = [_resolved(inner) for inner in transform.transforms]
    return {type(transform).__name__: _plain(values)}


def _plain(value: Any) -> Any:
    """The same value in what JSON knows."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, set, np.ndarray)):
        return [_plain(inner) for inner in value]
    if isinstance(value, np.generic):
        return value.item()
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


class ItemPolicy:
    """A policy that is applied to one image after another, each with its own draw.

    The draw of a sample is a function of its key: not of the samples before it, nor of the process.
    """

    def __init__(self, policy: Policy, origin: str) -> None:
        """Build the policy (ValueError as in `check_policy`)."""
        import cv2

        from stillframe.augmentation.item_pixels import quicken
        from stillframe.augmentation.random_draws import KeyedRandom

        cv2.setNumThreads(1)  # threads cost more than they give on images of this size, and loaders have processes
        self.random = KeyedRandom()
        self.compose = compose(policy, origin)
        quicken(self.compose)
        self.compose.set_random_state(self.random.generator, self.random)

    def __call__(self, images_BHWC: Images, key_B: NDArray[np.uint64]) -> Images:
        """uint8 (B, H, W, C) -> the same shape, a fresh array; image b is drawn by `key_B[b]`.

        Of clips (B, T, H, W, C) each frame gets the draw of its clip.
        """
        if images_BHWC.ndim == 5:
            frames = images_BHWC.shape[1]
            folded = self(images_BHWC.reshape(-1, *images_BHWC.shape[2:]), np.repeat(key_B, frames))
            return folded.reshape(images_BHWC.shape)
        return self.with_maps(images_BHWC, {}, key_B)[0]

    def with_maps(
        self, images_BHWC: Images, maps: Mapping[str, Images], key_B: NDArray[np.uint64]
    ) -> tuple[Images, dict[str, Images]]:
        """The same, and maps (B, H, W) moved as their images: nearest neighbour, NO_VALUE where nothing was."""
        from stillframe.augmentation.random_draws import draw_bits

        out, moved = np.empty_like(images_BHWC), {name: np.empty_like(map_BHW) for name, map_BHW in maps.items()}
        for i, (high, low) in enumerate(draw_bits(key_B, 0, 2).tolist()):
            self.random.rekey(high, low)
            # albumentations' "masks" are what moves with an image, whatever its values mean
            targets = {"masks": [map_BHW[i] for map_BHW in maps.values()]} if maps else {}
            sample = self.compose(image=images_BHWC[i], **targets)
            out[i] = sample["image"]
            for map_BHW, map_HW in zip(moved.values(), sample.get("masks", ()), strict=True):
                map_BHW[i] = map_HW
        return out, moved
