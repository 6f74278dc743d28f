"""Our training epoch and another's, turn by turn inside one training: A B A B, in one process, on the same cores."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.profilers import SimpleProfiler
from torch.nn import functional

from stillframe.training import loop
from stillframe.training.optim import make_optimizer, make_schedule
from stillframe.training.outputs import open_record


@dataclass
class Epochs:
    """Seconds, one entry an epoch; the first epoch of both sides is thrown away.

    Attributes:
        ours: a whole epoch of ours: training, validation, checkpoint, history, and the record sent.
        ours_cpu: the same in CPU-seconds.
        steps: our training steps alone, from before the first batch is fetched to after the last.
        waited: of these, for batches.
        theirs: the other side's epoch, as it measured it.
        their_steps: its training steps alone (empty when it does not say).
    """

    ours: list[float] = field(default_factory=list)
    ours_cpu: list[float] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)
    their_steps: list[float] = field(default_factory=list)
    batches: int = 0
    precision: str = ""

    def forget_first(self) -> Epochs:
        """Without the warm-up."""
        for name in ("ours", "ours_cpu", "steps", "waited", "theirs", "their_steps"):
            del getattr(self, name)[:1]
        return self


Other = Callable[[], tuple[float, float | None]]  # one epoch: its seconds, and those of its steps
WAIT = "[_TrainingEpochLoop].train_dataloader_next"


class Turns(pl.Callback):
    """Stops our clock between epochs, and lets the other side train one."""

    def __init__(self, other: Other, record: Any) -> None:
        self.other, self.record, self.seen = other, record, Epochs()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stop(trainer)
        with torch.enable_grad():
            theirs, steps = self.other()
        self.seen.theirs.append(theirs)
        if steps is not None:
            self.seen.their_steps.append(steps)
        self.before = self._waited(trainer)
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.seen.steps.append(time.perf_counter() - self.wall)
        self.seen.waited.append(self._waited(trainer) - self.before)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stop(trainer)
        self.seen.batches = int(trainer.num_training_batches)

    def _stop(self, trainer: pl.Trainer) -> None:
        """The epoch counts as over when the record has arrived: it is sent by a thread, on these same cores."""
        if not hasattr(self, "wall"):
            self.record.idle.wait(timeout=60)
            return
        while self.record.journal.unsent():
            time.sleep(0.002)
        self.seen.ours.append(time.perf_counter() - self.wall)
        self.seen.ours_cpu.append(time.process_time() - self.cpu)

    @staticmethod
    def _waited(trainer: pl.Trainer) -> float:
        durations = getattr(trainer.profiler, "recorded_durations", {})  # type: ignore[attr-defined]
        return float(sum(durations.get(WAIT, [])))


def plain_epoch(training: loop.Training) -> Other:
    """A tight PyTorch loop: the same net, batches, optimizer, schedule and validation; no metrics, nothing is kept."""
    spec, size = training.spec, training.spec.trainer.batch_size
    net = copy.deepcopy(training.net)
    if spec.trainer.channels_last:
        net.backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = make_optimizer(net, spec.optim)
    rows, val, random = training.data.train, training.data.val, np.random.default_rng(0)
    steps = -(-len(rows) // size)
    schedule = make_schedule(optimizer, spec.optim.schedule, steps * spec.trainer.max_epochs)
    labels, val_labels = torch.from_numpy(rows.values["label"]), torch.from_numpy(val.values["label"])

    def images(of: Any, index_B: Any) -> torch.Tensor:
        return torch.from_numpy(of.images(index_B)).permute(0, 3, 1, 2)

    def epoch() -> tuple[float, float]:
        started = time.perf_counter()
        net.train()
        for index_B in np.array_split(random.permutation(len(rows)), steps):
            optimizer.zero_grad()
            logits = net(images(rows, index_B))
            functional.cross_entropy(logits, labels[index_B], label_smoothing=spec.optim.label_smoothing).backward()
            optimizer.step()
            schedule.step()
        trained = time.perf_counter()
        net.eval()
        with torch.no_grad():
            for index_B in np.array_split(np.arange(len(val)), -(-len(val) // (4 * size))):
                functional.cross_entropy(net(images(val, index_B)), val_labels[index_B])
        return time.perf_counter() - started, trained - started

    return epoch


@dataclass(frozen=True)
class Waiting:
    """How much of our epochs waits for data."""

    share: float  # of the steps' time
    sample_us: float  # waited for one sample, us
    step_us: float  # of a step, waiting in it, for one sample, us

    @property
    def shown(self) -> str:
        """In per cent."""
        return f"{100 * self.share:.2f} %"


def waiting_for_data(plan: Any, samples: int) -> Waiting:
    """Train on `samples` an epoch and see what waits."""
    seen = take_turns(plan, lambda training: lambda: (0.0, None), profile=True)
    waited, steps = sum(seen.waited), sum(seen.steps)
    return Waiting(
        waited / steps, 1e6 * waited / (samples * len(seen.waited)), 1e6 * steps / (samples * len(seen.steps))
    )


def take_turns(plan: Any, other: Callable[[loop.Training], Other], *, profile: bool = False) -> Epochs:
    """Train by fit.loop with its callbacks and the MLflow record on sqlite, the other side between our epochs.

    `profile`: see what waits for data; Lightning's profiler costs some 50 us a step, so only where that is asked.
    """
    training = loop.Training(*plan)
    with redirect_stdout(StringIO()):
        decided = training.decide()
    record = open_record(training)
    assert record is not None
    turns = Turns(other(training), record)
    callbacks, _ = loop._callbacks(training, record)
    trainer = loop.make_trainer(training.spec, training.device, [turns, *callbacks])
    if profile:
        trainer.profiler = SimpleProfiler()  # type: ignore[attr-defined]
    module = training.module()
    if training.spec.trainer.channels_last:
        module.net.backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    trainer.fit(module)
    record.status("FINISHED")
    record.close()
    turns.seen.precision = decided["precision"]
    return turns.seen.forget_first()
