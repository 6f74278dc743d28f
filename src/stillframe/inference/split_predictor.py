"""What a trained net says of a split: plain torch, each sample asked once, on any number of processes."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from stillframe.config import TrainerConfig
from stillframe.models.trained import load_net
from stillframe.store.loader import SplitDataset
from stillframe.store.split import Split
from stillframe.tasks import find_task
from stillframe.training.launch import die_with_parent, keep_memory, processes
from stillframe.types import Batch, Prediction


def device_of(trainer: TrainerConfig, rank: int = 0) -> torch.device:
    """The device of a process."""
    if trainer.accelerator != "cpu" and torch.cuda.is_available():
        return torch.device("cuda", rank % torch.cuda.device_count())
    return torch.device("cpu")


class CollectorState(Protocol):
    """What one process keeps of a net's answers."""

    def add(self, prediction: Prediction, batch: Batch) -> None:
        """Take the answer to a batch; both may lie on a device."""

    def handed(self) -> Any:
        """What is handed to the process that gathers the parts; can be pickled."""


class Collector(Protocol):
    """What is kept of a net's answers about a split; travels to each process that asks."""

    def rows(self, split: Split, rank: int, world: int) -> NDArray[np.int64]:
        """The rows that a process asks about, in its order; no row twice over all processes."""

    def begin(self, split: Split) -> CollectorState:
        """A fresh part, for one process."""

    def whole(self, parts: list[Any], split: Split) -> pd.DataFrame:
        """What the processes handed over, as one table in the split's order."""


class LogitCollector:
    """Keeps the logits of each row: index, id, label, source size and mode, slices, logits (list of K).

    Rows that are views of one video become one row: `logits` is their mean, `view_logits` has them all.
    """

    def rows(self, split: Split, rank: int, world: int) -> NDArray[np.int64]:
        """Rows rank, rank + world, ..."""
        return np.arange(rank, len(split), world, dtype=np.int64)

    def begin(self, split: Split) -> _LogitState:
        """No answers yet."""
        return _LogitState()

    def whole(self, parts: list[tuple[NDArray[np.int64], NDArray[np.float32]]], split: Split) -> pd.DataFrame:
        """One row a sample (a video, however many views it has), each counted once."""
        parts = [part for part in parts if len(part[0])]
        index_N = np.concatenate([np.empty(0, np.int64), *(index for index, _ in parts)])
        logits = [logits_K for _, logits_NK in parts for logits_K in logits_NK]
        order = np.argsort(index_N, kind="stable")
        table = split.table.reset_index(drop=True)
        assert np.array_equal(index_N[order], np.arange(len(table))), "each sample is counted once"
        keep = ["id", "label", "source_width", "source_height", "source_mode", "slices"]
        out = table[keep].copy()
        out.insert(0, "index", np.arange(len(table), dtype=np.int64))
        out["logits"] = [logits[at] for at in order]
        return together(out, table["source_id"].to_numpy())


def together(rows: pd.DataFrame, video_N: NDArray[np.object_]) -> pd.DataFrame:
    """One row for all views of a video; unchanged where no two rows are of one.

    The row is that of the view in the middle, which is the one to be shown, under the id of the video; `logits` is the
    mean over the views, and `view_logits` (V lists of K, in order) is added.

    Args:
        rows: columns id and logits, in the split's order.
        video_N: the id of each row's video.
    """
    places = [np.asarray(at) for at in pd.Series(np.arange(len(rows))).groupby(video_N, sort=False).agg(list)]
    if len(places) == len(rows):
        return rows
    out = rows.iloc[[at[len(at) // 2] for at in places]].reset_index(drop=True)
    views = [np.stack([rows["logits"].iloc[row] for row in at]) for at in places]
    out["id"] = [str(video_N[at[0]]) for at in places]
    out["logits"] = [logits_VK.mean(0) for logits_VK in views]
    out["view_logits"] = [list(logits_VK) for logits_VK in views]
    return out


class _LogitState:
    """Rows and their logits, as they come."""

    def __init__(self) -> None:
        self.index: list[NDArray[np.int64]] = []
        self.logits: list[NDArray[np.float32]] = []

    def add(self, prediction: Prediction, batch: Batch) -> None:
        self.index.append(prediction.index_B.cpu().numpy())
        self.logits.append(prediction.outputs["logits"].float().cpu().numpy())

    def handed(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        if not self.index:
            return np.empty(0, np.int64), np.empty((0, 0), np.float32)
        return np.concatenate(self.index), np.concatenate(self.logits)


@dataclass(frozen=True)
class SplitPredictor:
    """How a trained net is asked about a split.

    Attributes:
        trained: artifacts/train.
        split: a prepared split.
        trainer: says which device, and how many processes.
        tta: kind of test-time views.
        batch_size: rows at a time.
    """

    trained: Path
    split: Path
    trainer: TrainerConfig
    tta: str
    batch_size: int

    def __call__(self, keep: Collector | None = None) -> pd.DataFrame:
        """Predict the whole split, in its order, as `keep` collects the outputs (default: `LogitCollector`).

        With several devices each process asks its own part, and no sample is padded or left out.

        Raises:
            ValueError: the trained net has another number of classes than the labels need.
        """
        kept, opened = keep or LogitCollector(), Split(self.split)
        world = min(processes(self.trainer), max(1, len(opened)))
        if world == 1:
            return kept.whole([_part(self, kept, 0, 1)], opened)
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(world, spawn, initializer=die_with_parent, initargs=(os.getpid(),)) as pool:
            asked = [pool.submit(_part, self, kept, rank, world) for rank in range(world)]
            parts = [one.result() for one in asked]
        return kept.whole(parts, opened)


def _part(asking: SplitPredictor, keep: Collector, rank: int, world: int) -> Any:
    """What is kept of the answers to this process's rows."""
    trainer = asking.trainer
    keep_memory()
    torch.set_num_threads(trainer.threads or max(1, len(os.sched_getaffinity(0)) // world))
    net, task_name = load_net(asking.trained)
    device, predict = device_of(trainer, rank), find_task(task_name).learning.predict
    net = net.to(device)
    if trainer.channels_last:
        net.channels_last()
    rows = SplitDataset([asking.split])
    split = rows.splits[0]
    kept, mine = keep.begin(split), keep.rows(split, rank, world)
    for first in _shown(range(0, len(mine), asking.batch_size), rank):
        batch = rows[0, mine[first : first + asking.batch_size]].to(device)
        kept.add(predict(net, batch, asking.tta), batch)
    return kept.handed()


def _shown(batches: range, rank: int) -> Any:
    """A progress bar on the first process."""
    from rich.console import Console
    from rich.progress import track

    return track(batches, description="predicting", console=Console(stderr=True), disable=rank != 0, transient=True)
