"""Online augmentation: drawn anew each epoch, per item in the loader or per batch on the device."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from stillframe.augmentation import batch_rules, policy
from stillframe.augmentation.policy import ItemPolicy
from stillframe.augmentation.random_draws import keys
from stillframe.config import AugmentConfig

if TYPE_CHECKING:
    from torch import Tensor

    from stillframe.augmentation.batch_augment import BatchPolicy

SMALL = 64 * 64  # values (height * width * channels): on a CPU the batched form is the faster one up to about here
ORIGIN = "augment.online"


@dataclass
class OnlineAugmentation:
    """The online policy of a run; travels to loader processes, builds what it needs at its first use.

    Attributes:
        where: "item" (call `items` in the loader) or "batch" (call `batch` on the device).
        policy: list of {TransformName: {argument: value}}, checked.
        seed: of the run.
    """

    where: Literal["item", "batch"]
    policy: list[dict[str, dict[str, Any]]]
    seed: int
    _built: Any = field(default=None, init=False, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_built": None}

    def items(self, images_BHWC: NDArray[np.uint8], epoch: int, index_B: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Augment image by image with albumentations.

        Args:
            images_BHWC: uint8, 0..255; left as it is. Of clips (B, T, H, W, C): one draw for all frames of each.
            epoch: 0-based.
            index_B: row of each image in the split.

        Returns:
            uint8 of the same shape; image b depends on (seed, epoch, index_B[b]) and its own pixels only.
        """
        return self._item_policy()(images_BHWC, keys(self.seed, epoch, index_B))

    def items_with_maps(
        self,
        images_BHWC: NDArray[np.uint8],
        maps: dict[str, NDArray[np.uint8]],
        epoch: int,
        index_B: NDArray[np.int64],
    ) -> tuple[NDArray[np.uint8], dict[str, NDArray[np.uint8]]]:
        """The same images as `items`, and their maps (uint8 (B, H, W) each, by name) moved with them."""
        return self._item_policy().with_maps(images_BHWC, maps, keys(self.seed, epoch, index_B))

    def _item_policy(self) -> ItemPolicy:
        if self._built is None:
            self._built = ItemPolicy(self.policy, ORIGIN)
        return cast(ItemPolicy, self._built)

    def batch(self, image_BCHW: Tensor, epoch: int, index_B: Tensor) -> Tensor:
        """Augment a whole batch with torch, on the device where it lies, with parameters per sample.

        Args:
            image_BCHW: uint8, 0..255; left as it is. Of clips (B, T, C, H, W): one draw for all frames of each.
            epoch: 0-based.
            index_B: int64, row of each image in the split, on any device.

        Returns:
            uint8 of the same shape on the same device; image b depends on (seed, epoch, index_B[b]) and its
            own pixels only.
        """
        return self._batch_policy()(image_BCHW, self.seed, epoch, index_B)

    def batch_with_maps(
        self, image_BCHW: Tensor, maps: dict[str, Tensor], epoch: int, index_B: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The same images as `batch`, and their maps (uint8 (B, H, W) each, by name) moved with them."""
        moved = {name: self._batch_policy().move(map_BHW, self.seed, epoch, index_B) for name, map_BHW in maps.items()}
        return self.batch(image_BCHW, epoch, index_B), moved

    def _batch_policy(self) -> BatchPolicy:
        if self._built is None:
            from stillframe.augmentation.batch_augment import BatchPolicy

            self._built = BatchPolicy(policy.build(self.policy, ORIGIN))
        return cast("BatchPolicy", self._built)


def choose_where(
    augment: AugmentConfig, *, image_size: int, channels: int, device_type: str
) -> Literal["item", "batch"]:
    """Where the online policy is applied: "batch" on a GPU and for small images, if every transform can.

    Raises:
        ValueError: `where: batch` and a transform or an argument without a batch form.
    """
    if augment.where == "item":
        return "item"
    problem = batch_rules.first_problem(policy.build(augment.online, ORIGIN))
    if augment.where == "batch" and problem:
        raise ValueError(f"augment.where = 'batch': {problem}; use where: auto or item, or leave it out")
    if augment.where == "batch":
        return "batch"
    return "batch" if not problem and (device_type == "cuda" or image_size**2 * channels <= SMALL) else "item"


def make_online(
    augment: AugmentConfig, *, image_size: int, channels: int, device_type: str, seed: int, maps: bool = False
) -> OnlineAugmentation | None:
    """The online augmentation of a run; None when its policy is empty.

    Args:
        augment: section `augment`.
        image_size: side of the square images, px.
        channels: 1 or 3.
        device_type: "cpu", "cuda", ...: where training runs.
        seed: of the run.
        maps: whether each image has maps of values, one a pixel, that move with it.

    Raises:
        ValueError: the policy has an unknown transform or argument, a bad value, does not keep the shape
            of the images, or is to run on the batch and cannot.
    """
    if not augment.online:
        return None
    policy.check_policy(augment.online, ORIGIN, (image_size, image_size, channels), maps=maps)
    where = choose_where(augment, image_size=image_size, channels=channels, device_type=device_type)
    return OnlineAugmentation(where=where, policy=[dict(entry) for entry in augment.online], seed=seed)
