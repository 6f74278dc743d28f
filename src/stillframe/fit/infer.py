"""What a trained net says of a split: plain torch, each sample asked once, on any number of processes."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from stillframe.config import Trainer
from stillframe.data.loader import InOrder, Rows
from stillframe.data.store import Split
from stillframe.fit.launch import die_with_parent, keep_memory, processes
from stillframe.nets import weights
from stillframe.nets.build import Net, NetSpec, rebuild
from stillframe.paths import read_json
from stillframe.tasks import find


def load_net(trained: Path) -> tuple[Net, str]:
    """The trained net, in evaluation mode on the CPU, and its task's name.

    Raises:
        FileNotFoundError: nothing was trained. ValueError: a file is damaged or does not fit.
    """
    facts = read_json(trained / "model.json")
    task = str(facts.pop("task"))
    net = rebuild(NetSpec(**facts))
    weights.load(net, trained / "model.safetensors")
    return net.eval(), task


def device_of(trainer: Trainer, rank: int = 0) -> torch.device:
    """The device of a process."""
    if trainer.accelerator != "cpu" and torch.cuda.is_available():
        return torch.device("cuda", rank % torch.cuda.device_count())
    return torch.device("cpu")


def _part(
    trained: Path, split: Path, trainer: Trainer, tta: str, batch_size: int, rank: int, world: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Rows rank, rank + world, ... and their logits."""
    keep_memory()
    torch.set_num_threads(trainer.threads or max(1, len(os.sched_getaffinity(0)) // world))
    net, task_name = load_net(trained)
    device, predict = device_of(trainer, rank), find(task_name).predict
    net = net.to(device)
    if trainer.channels_last:
        net.backbone.to(memory_format=torch.channels_last)
    rows = Rows([split])
    index, logits = [np.empty(0, np.int64)], [np.empty((0, net.spec.classes), np.float32)]
    for key in _shown(InOrder(len(rows), batch_size, rank=rank, world=world), rank):
        prediction = predict(net, rows[key].to(device), tta)
        index.append(prediction.index_B.cpu().numpy())
        logits.append(prediction.logits_BK.float().cpu().numpy())
    return np.concatenate(index), np.concatenate(logits)


def _shown(batches: InOrder, rank: int) -> Any:
    """A progress bar on the first process."""
    from rich.console import Console
    from rich.progress import track

    return track(batches, description="predicting", console=Console(stderr=True), disable=rank != 0, transient=True)


def predict_split(trained: Path, split: Path, trainer: Trainer, *, tta: str, batch_size: int) -> pd.DataFrame:
    """One row a sample, in the split's order: index, id, label, logits (list of K), source size and mode, slices.

    With several devices each process asks its own part, and no sample is padded or left out.

    Raises:
        ValueError: the trained net has another number of classes than the labels need.
    """
    world = min(processes(trainer), max(1, len(Split(split))))
    if world == 1:
        parts = [_part(trained, split, trainer, tta, batch_size, 0, 1)]
    else:
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(world, spawn, initializer=die_with_parent, initargs=(os.getpid(),)) as pool:
            asked = [pool.submit(_part, trained, split, trainer, tta, batch_size, rank, world) for rank in range(world)]
            parts = [one.result() for one in asked]
    index_N = np.concatenate([index for index, _ in parts])
    logits_NK = np.concatenate([logits for _, logits in parts])
    order = np.argsort(index_N, kind="stable")
    table = Split(split).table.reset_index(drop=True)
    assert np.array_equal(index_N[order], np.arange(len(table))), "each sample is counted once"
    keep = ["id", "label", "source_width", "source_height", "source_mode", "slices"]
    out = table[keep].copy()
    out.insert(0, "index", np.arange(len(table), dtype=np.int64))
    out["logits"] = list(logits_NK[order])
    return out
