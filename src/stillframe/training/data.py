"""The data of a training: which rows, augmented how, in which batches. Training and fine-tuning both get it here."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from stillframe.augmentation.online import make_online
from stillframe.store.frame_sampling import make_frame_sampler
from stillframe.store.loader import EpochBatchSampler, SequentialBatchSampler, SplitDataset, make_loader
from stillframe.training.spec import TrainingSpec
from stillframe.types import Batch

OVERFIT_ROWS = 4096  # of the train split, on which `trainer.overfit_batches` validates


class TrainingData:
    """The train and validation rows of a spec, and their loaders.

    Attributes:
        train: train rows followed by their offline copies.
        val: validation rows; of several views of a video the middle one.
        online: the online augmentation, None without one.
        maps: names of the targets that are moved with the images.
    """

    def __init__(self, spec: TrainingSpec, device_type: str, *, rank: int = 0, world: int = 1) -> None:
        """Open the splits.

        Args:
            spec: sections and folders.
            device_type: "cpu" or "cuda"; decides where online augmentation works.
            rank: of this process.
            world: number of processes, among which each epoch is divided.

        Raises:
            ValueError: a split is damaged, or the augmentation does not fit the data.
        """
        self.spec, self.rank, self.world = spec, rank, world
        card, augment = spec.card, spec.augment
        # clips are stored longer than they are shown, and a validation video has several views
        sampler = make_frame_sampler(card, augment.temporal, seed=spec.seed)
        self.val = SplitDataset([spec.val], views=sampler.clip.views if sampler is not None else 1)
        self.maps = [column.name for column in self.val.targets.values() if column.is_map]
        size = {"image_size": card.height, "channels": card.channels}
        self.online = make_online(augment, **size, device_type=device_type, seed=spec.seed, maps=bool(self.maps))
        self.train = SplitDataset(spec.train_folders, self.online, sampler=sampler)
        if spec.trainer.overfit_batches:
            self.val = self.train

    def _draw_weights(self) -> NDArray[np.float64] | None:
        """Of each train row, for `optim.sampler` balanced: the same chance for each class."""
        sampler = self.spec.optim.sampler
        if sampler == "shuffle":
            return None
        if (class_N := self.train.class_N) is None:
            raise ValueError(f"optim.sampler = {sampler!r} needs data with classes: set it to shuffle")
        return np.asarray(1.0 / np.bincount(class_N)[class_N], dtype=np.float64)

    def batches(self, batch_size: int, position: Callable[[], tuple[int, int]] = lambda: (0, 0)) -> EpochBatchSampler:
        """The train batches of this rank; `position` gives (epoch, batches done), from which an epoch goes on."""
        trainer = self.spec.trainer
        return EpochBatchSampler(
            len(self.train),
            batch_size,
            seed=self.spec.seed,
            rank=self.rank,
            world=self.world,
            limit=trainer.overfit_batches or trainer.limit_batches,
            draw_weight_N=self._draw_weights(),
            position=position,
        )

    def train_loader(self, batch_size: int, position: Callable[[], tuple[int, int]]) -> DataLoader[Batch]:
        """Train batches of this rank."""
        return make_loader(self.train, self.batches(batch_size, position), self.spec.trainer.workers)

    def val_loader(self) -> DataLoader[Batch]:
        """Validation batches of this rank: each row once over all ranks."""
        trainer = self.spec.trainer
        rows = min(len(self.val), OVERFIT_ROWS) if trainer.overfit_batches else len(self.val)
        order = SequentialBatchSampler(rows, 4 * trainer.batch_size, rank=self.rank, world=self.world)
        return make_loader(self.val, order, 0)
