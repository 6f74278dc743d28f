"""Batches for training and validation. What a batch holds depends on (seed, epoch, position) and nothing else."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from stillframe.augmentation.online import OnlineAugmentation
from stillframe.store.frame_sampling import FrameSampler
from stillframe.store.split import Split
from stillframe.types import Batch

BatchKey = tuple[int, NDArray[np.int64]]  # epoch, rows


class EpochBatchSampler(Sampler[BatchKey]):
    """The rows of each batch of an epoch, as a function of (seed, epoch); every rank gets its own part.

    An epoch is cut into batches of nearly equal size, so that each row is seen once and no rank waits for another.
    `position()` gives (epoch, batches already done): a resumed epoch goes on where it stopped.
    """

    def __init__(
        self,
        rows: int,
        batch_size: int,
        *,
        seed: int,
        rank: int = 0,
        world: int = 1,
        limit: int = 0,
        draw_weight_N: NDArray[np.float64] | None = None,
        position: Callable[[], tuple[int, int]] = lambda: (0, 0),
    ) -> None:
        """`draw_weight_N` draws rows with replacement by these weights (balanced sampling); `limit` 0 means all."""
        self.rows, self.seed, self.rank, self.world = rows, seed, rank, world
        self.steps = max(1, -(-rows // (batch_size * world)))
        self.length = min(self.steps, limit) if limit else self.steps
        self.draw_weight_N = draw_weight_N
        self.position = position

    def __len__(self) -> int:
        return self.length

    def order(self, epoch: int) -> NDArray[np.int64]:
        """The rows of an epoch, in their order, over all ranks.

        A row that is drawn again in the same epoch counts on by `rows` (row, row + rows, ...): a draw of its own for
        the augmentation, the same row after `% rows`.
        """
        random = np.random.Generator(np.random.Philox(key=[self.seed, epoch]))
        if self.draw_weight_N is None:
            return random.permutation(self.rows).astype(np.int64)
        drawn = random.choice(self.rows, size=self.rows, p=self.draw_weight_N / self.draw_weight_N.sum())
        by_row = np.argsort(drawn, kind="stable")
        first_of = np.searchsorted(drawn[by_row], drawn[by_row])  # where in the sorted draws a row begins
        again = np.empty(self.rows, dtype=np.int64)
        again[by_row] = np.arange(self.rows) - first_of
        return drawn.astype(np.int64) + again * self.rows

    def __iter__(self) -> Iterator[BatchKey]:
        epoch, done = self.position()
        parts = np.array_split(self.order(epoch), self.steps * self.world)
        for step in range(done, self.length):
            yield epoch, parts[step * self.world + self.rank]


class SequentialBatchSampler(Sampler[BatchKey]):
    """Rows rank, rank + world, ...: each row once over all ranks, none padded."""

    def __init__(self, rows: int, batch_size: int, *, rank: int = 0, world: int = 1) -> None:
        mine = np.arange(rank, rows, world, dtype=np.int64)
        self.parts = [mine[first : first + batch_size] for first in range(0, len(mine), batch_size)]

    def __len__(self) -> int:
        return len(self.parts)

    def __iter__(self) -> Iterator[BatchKey]:
        for part in self.parts:
            yield 0, part


class SplitDataset(Dataset[Batch]):
    """Rows of one split, or of the train split followed by its augmented copies, as whole batches of uint8.

    Attributes:
        targets: the declared columns, by name; a batch has them all.
        values: of each scalar or vector column the values of all rows.
        weight_N: float32, sample weights.
    """

    def __init__(
        self,
        folders: list[Path],
        online: OnlineAugmentation | None = None,
        *,
        sampler: FrameSampler | None = None,
        views: int = 1,
    ) -> None:
        """Open the splits.

        Args:
            folders: of the splits, in the order in which their rows are counted.
            online: applied per item here unless it works on the batch.
            sampler: of clips, which of the stored frames a batch holds; None: all of them.
            views: of clips, rows a video; of more than one the middle one is used.
        """
        self.folders, self.sampler, self.views = folders, sampler, views
        self.online = online if online is not None and online.where == "item" else None
        self._open()

    def _open(self) -> None:
        self.splits = [Split(folder) for folder in self.folders]
        self.first = np.cumsum([0] + [len(split) for split in self.splits])
        self.targets = self.splits[0].targets
        used = slice(self.views // 2, None, self.views)
        self.values = {
            name: np.concatenate([split.values[name] for split in self.splits])[used]
            for name, column in self.targets.items()
            if not column.is_map
        }
        weights = [split.table["weight"].to_numpy(dtype=np.float32) for split in self.splits]
        self.weight_N: NDArray[np.float32] = np.concatenate(weights)[used]

    def __getstate__(self) -> dict[str, object]:
        # workers map the files themselves
        return {name: getattr(self, name) for name in ("folders", "online", "sampler", "views")}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._open()

    def __len__(self) -> int:
        return len(self.weight_N)

    @property
    def class_N(self) -> NDArray[np.int64] | None:
        """The class index of each row by which rows can be balanced: the first "int" target; None without one."""
        names = [name for name, column in self.targets.items() if column.kind == "int"]
        return self.values[names[0]] if names else None

    def images(self, index_B: NDArray[np.int64], frames_BT: NDArray[np.int64] | None = None) -> NDArray[np.uint8]:
        """uint8 (B, H, W, C) of rows over all splits; of clips (B, T, H, W, C), all their frames or `frames_BT`."""
        if frames_BT is None:
            return self._gathered(Split.images, index_B)
        return self._gathered(Split.images, index_B, frames_BT)

    def maps(self, name: str, index_B: NDArray[np.int64]) -> NDArray[np.uint8]:
        """uint8 (B, H, W) of rows over all splits: the map `name` among the targets."""
        return self._gathered(lambda split, rows: split.target(name, rows), index_B)

    def _gathered(
        self, read: Callable[..., NDArray[np.uint8]], index_B: NDArray[np.int64], *more: NDArray[np.int64]
    ) -> NDArray[np.uint8]:
        """What `read` gives of a split, its rows, and the rows of `more`, put together."""
        if len(self.splits) == 1 or len(self.splits[-1]) == 0 or len(index_B) == 0:
            return read(self.splits[0], index_B, *more)
        of = np.searchsorted(self.first, index_B, side="right") - 1
        parts = {
            n: read(self.splits[n], index_B[of == n] - self.first[n], *(each[of == n] for each in more))
            for n in np.unique(of).tolist()
        }
        out = np.empty((len(index_B), *next(iter(parts.values())).shape[1:]), dtype=np.uint8)
        for number, part in parts.items():
            out[of == number] = part
        return out

    def __getitem__(self, key: BatchKey) -> Batch:
        epoch, index_B = key
        row_B = index_B % len(self)  # a row that is drawn twice in an epoch has two indices, so two random draws
        stored_B = row_B * self.views + self.views // 2
        image_BHWC = self.images(stored_B, self.sampler(epoch, index_B) if self.sampler is not None else None)
        maps = {name: self.maps(name, stored_B) for name, column in self.targets.items() if column.is_map}
        if self.online is not None and maps:
            image_BHWC, maps = self.online.items_with_maps(image_BHWC, maps, epoch, index_B)
        elif self.online is not None:
            image_BHWC = self.online.items(image_BHWC, epoch, index_B)
        target: dict[str, NDArray[Any]] = {name: values[row_B] for name, values in self.values.items()} | maps
        return Batch(
            inputs={"image": torch.from_numpy(image_BHWC).movedim(-1, -3)},  # channels last in memory, as stored
            target={name: torch.from_numpy(values) for name, values in target.items()},
            weight_B=torch.from_numpy(self.weight_N[row_B]),
            index_B=torch.from_numpy(index_B),
            epoch=epoch,
        )


def _same(batch: Any) -> Any:
    return batch


def _end_with_the_training(worker: int) -> None:
    """End this worker when the training is killed. Torch's own watch is on the fork server, which waits for us."""
    training = multiprocessing.parent_process()
    assert training is not None

    def watch() -> None:
        training.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def make_loader(rows: SplitDataset, order: Sampler[BatchKey], workers: int) -> DataLoader[Batch]:
    """A loader with a generator of its own, so that it draws nothing from the global one.

    Raises:
        ValueError: /dev/shm is too small for the batches of so many workers.
    """
    if workers:
        check_shared_memory(rows, order, workers)
    return DataLoader(
        rows,
        batch_size=None,
        sampler=order,
        collate_fn=_same,  # the rows make whole batches
        num_workers=workers,
        persistent_workers=workers > 0,
        generator=torch.Generator().manual_seed(0),
        timeout=300 if workers else 0,  # s; a worker that hangs is an error, not an endless wait
        multiprocessing_context="forkserver" if workers else None,
        worker_init_fn=_end_with_the_training if workers else None,
    )


def check_shared_memory(rows: SplitDataset, order: Sampler[BatchKey], workers: int, folder: str = "/dev/shm") -> None:
    """Find out before training that batches would not fit into shared memory (a container's default is 64 MB)."""
    if not Path(folder).is_dir():
        return
    split = rows.splits[0]
    batch = max(len(part) for _, part in [next(iter(order))])
    needed = (
        batch * split.height * split.width * split.channels * split.frames * workers * 3
    )  # two prefetched and one in use
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(
            f"trainer.workers = {workers} needs {needed >> 20} MiB in {folder}, {free >> 20} MiB are free: "
            "set trainer.workers to 0, or give the container more (docker run --shm-size=2g)"
        )
