"""Inference over a split in plain torch; every sample is predicted exactly once, on any number of processes."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from stillframe.config import TrainerConfig
from stillframe.models.trained import load_net
from stillframe.store.loader import SplitDataset
from stillframe.store.split import Split
from stillframe.tasks import find_task
from stillframe.tasks.base_evaluation import Collector
from stillframe.training.launch import die_with_parent, keep_memory, processes
from stillframe.types import Batch, Prediction


def device_of(trainer: TrainerConfig, rank: int = 0) -> torch.device:
    """The device of a process."""
    if trainer.accelerator != "cpu" and torch.cuda.is_available():
        return torch.device("cuda", rank % torch.cuda.device_count())
    return torch.device("cpu")


@dataclass(frozen=True)
class SplitPredictor:
    """Predicts a split with a trained network.

    Attributes:
        trained: artifacts/train.
        split: a prepared split.
        trainer: decides the device and the number of processes.
        tta: kind of test-time views.
        batch_size: rows at a time; a collector may ask for fewer.
    """

    trained: Path
    split: Path
    trainer: TrainerConfig
    tta: str
    batch_size: int

    def __call__(self, collector: Collector) -> pd.DataFrame:
        """Predict the whole split, in its order, as a collector keeps the outputs.

        With several devices each process predicts its own rows, and no sample is padded or left out.

        Raises:
            ValueError: the trained network has another number of classes than the labels need.
        """
        split = Split(self.split)
        world = min(processes(self.trainer), max(1, len(split)))
        if world == 1:
            return collector.merge([_predict_rows(self, collector, 0, 1)], split)
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(world, spawn, initializer=die_with_parent, initargs=(os.getpid(),)) as pool:
            jobs = [pool.submit(_predict_rows, self, collector, rank, world) for rank in range(world)]
            results = [job.result() for job in jobs]
        return collector.merge(results, split)


def _predict_rows(predictor: SplitPredictor, collector: Collector, rank: int, world: int) -> Any:
    """The result of one process's rows."""
    trainer = predictor.trainer
    keep_memory()
    torch.set_num_threads(trainer.threads or max(1, len(os.sched_getaffinity(0)) // world))
    net, task_name = load_net(predictor.trained)
    device, predict = device_of(trainer, rank), find_task(task_name).learning.predict
    net = net.to(device)
    if trainer.channels_last:
        net.channels_last()
    dataset = SplitDataset([predictor.split])
    split = dataset.splits[0]
    state, rows = collector.start(split), collector.rows(split, rank, world)
    batch_size = collector.batch_size(split, predictor.batch_size)
    for first in _progress(range(0, len(rows), batch_size), rank):
        batch = dataset[0, rows[first : first + batch_size]].to(device)
        state.add(*collected(predict(net, batch, predictor.tta), batch))
    return state.result()


def collected(prediction: Prediction, batch: Batch) -> tuple[dict[str, Any], dict[str, Any], Any]:
    """What a collector gets of a batch, in numpy: outputs and targets by name, and the rows of the split."""
    return _numpy(prediction.outputs), _numpy(batch.target), prediction.index_B.cpu().numpy()


def _numpy(tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Arrays on the host; floating point numbers of less precision as float32."""
    return {
        name: (tensor.float() if tensor.is_floating_point() else tensor).cpu().numpy()
        for name, tensor in tensors.items()
    }


def _progress(batches: range, rank: int) -> Any:
    """A progress bar on the first process."""
    from rich.console import Console
    from rich.progress import track

    return track(batches, description="predicting", console=Console(stderr=True), disable=rank != 0, transient=True)
