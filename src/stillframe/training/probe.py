"""Precision, learning rate and batch size, where a short trial answers better than a flag."""

from __future__ import annotations

import copy
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytorch_lightning as pl
import torch

from stillframe.training.trainer import silence_lightning

if TYPE_CHECKING:
    from stillframe.training.loop import Training

PROBE_S = 1.0  # per precision
RANGE_STEPS = 100  # of the LR range test; its suggestion leaves out the first ten and the last


def decide(training: Training) -> dict[str, Any]:
    """`precision`, `lr` and `batch_size` for a training: as configured, or tried out where the configuration asks."""
    trainer = training.spec.trainer
    if training.world > 1 and (trainer.find_lr or trainer.find_batch_size):
        raise ValueError("trainer.find_lr and trainer.find_batch_size need trainer.devices = 1: find first, then scale")
    batch_size = find_batch_size(training) if trainer.find_batch_size else trainer.batch_size
    lr = find_lr(training, batch_size) if trainer.find_lr else training.spec.optim.lr
    precision = faster_precision(training, batch_size) if trainer.precision == "auto" else trainer.precision
    return {"precision": precision, "lr": lr, "batch_size": batch_size}


def _seconds_a_step(training: Training, batch_size: int, bf16: bool) -> float:
    """Forward and backward of one real batch, the median of what fits into a second."""
    net = copy.deepcopy(training.net).to(training.device)
    if training.spec.trainer.channels_last:
        net.channels_last()
    batch = training.data.train[(0, np.zeros(min(batch_size, len(training.data.train)), dtype=np.int64))].to(
        training.device
    )
    loss = training.task.learning.make_loss(training.spec.optim, training.spec.card)
    times: list[float] = []
    end = time.monotonic() + PROBE_S
    while time.monotonic() < end or len(times) < 4:
        started = time.perf_counter()
        with torch.autocast(training.device, torch.bfloat16, enabled=bf16):
            value, _ = training.task.learning.step(net, batch, loss)
        torch.autograd.backward(value)
        if training.device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return sorted(times[1:])[len(times[1:]) // 2]


def faster_precision(training: Training, batch_size: int) -> str:
    """bf16 where a step is a tenth faster with it than with fp32 (dense convolutions), else fp32 (depthwise ones)."""
    if training.device == "cuda" and not torch.cuda.is_bf16_supported():
        return "fp32"
    fp32, bf16 = (_seconds_a_step(training, batch_size, on) for on in (False, True))
    chosen = "bf16" if bf16 < 0.9 * fp32 else "fp32"
    print(f"precision: {chosen} (a step of {batch_size} images: fp32 {1e3 * fp32:.1f} ms, bf16 {1e3 * bf16:.1f} ms)")
    return chosen


def _tuner(training: Training) -> Any:
    """Lightning's Tuner."""
    from pytorch_lightning.tuner.tuning import Tuner

    silence_lightning()
    trainer = pl.Trainer(
        accelerator="gpu" if training.device == "cuda" else "cpu",
        devices=1,
        max_epochs=-1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=str(training.state.folder),
    )
    return Tuner(trainer)


def find_lr(training: Training, batch_size: int) -> float:
    """The LR range test (Smith 2017) of Lightning's Tuner; weights are put back afterwards."""
    before = copy.deepcopy(training.net.state_dict())
    module = training.module()
    module.batch_size = batch_size
    tuner = _tuner(training)
    result = tuner.lr_find(
        module, num_training=RANGE_STEPS, update_attr=False, attr_name="lr", early_stop_threshold=4.0
    )
    suggestion = result.suggestion() if result is not None else None
    training.net.load_state_dict(before)
    lr = float(suggestion) if suggestion else training.spec.optim.lr
    print(f"learning rate: {lr:.2e} (range test; optim.lr = {training.spec.optim.lr:.2e})")
    return lr


def find_batch_size(training: Training) -> int:
    """The largest power of two that fits into memory, at most the train split, by Lightning's Tuner."""
    before = copy.deepcopy(training.net.state_dict())
    module = training.module()
    tuner = _tuner(training)
    limit = max(1, len(training.data.train) // training.spec.trainer.batch_size).bit_length() - 1
    if limit < 1:
        return training.spec.trainer.batch_size
    size = tuner.scale_batch_size(
        module,
        mode="power",
        steps_per_trial=2,
        max_trials=min(limit, 8),
        init_val=training.spec.trainer.batch_size,
    )
    training.net.load_state_dict(before)
    chosen = int(size or training.spec.trainer.batch_size)
    print(f"batch size: {chosen} (trainer.batch_size = {training.spec.trainer.batch_size})")
    return chosen
