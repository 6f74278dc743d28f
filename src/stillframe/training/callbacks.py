"""Callbacks of the training loop: checkpoints that a crash cannot spoil, a stop on request, the live line."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint, EMAWeightAveraging
from torch import nn

from stillframe.config import nearest
from stillframe.models import weights
from stillframe.paths import replacing
from stillframe.tasks.base import Metric
from stillframe.tracking.record import RunRecord
from stillframe.training import trial_pruning
from stillframe.training.resume import ResumeState


class StoppedBySignal(BaseException):
    """A signal asked the training to stop; the state was saved at the next step."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum

    @property
    def exit_code(self) -> int:
        """128 + signal, as shells count: 143 for SIGTERM, 130 for SIGINT. DVC records nothing then."""
        return 128 + self.signum


class TrialPruned(BaseException):
    """The search's pruner ended the training; the message says why."""


class ResumeCheckpoint(Checkpoint):
    """Saves the whole state every so many seconds, at each epoch's end, and when a signal asks to stop.

    A `Checkpoint`, so that Lightning calls it after the module's and the other callbacks' hooks.
    """

    def __init__(self, state: ResumeState, every_s: float) -> None:
        self.state, self.every_s = state, every_s
        self.saved_at = time.monotonic()
        self.signum = 0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Take the signals; Lightning's own handler would end with exit code 0 and no checkpoint."""
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(signum, self._note)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning has registered its handlers by now (after `on_fit_start`); take the signals again."""
        self.setup(trainer, pl_module, "fit")

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Save when it is time; stop when asked to, on all ranks at the same step."""
        due = time.monotonic() - self.saved_at >= self.every_s
        request = self._any(trainer, pl_module, 2 * self.signum + int(due))
        stop, due = request // 2, bool(request % 2) or request > 1
        if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            return  # the epoch's end is next, and that is where a whole epoch is kept
        if stop or due:
            self._save(trainer, pl_module)
        if stop:
            raise StoppedBySignal(stop)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """An epoch's end is always kept."""
        self._save(trainer, pl_module)
        stop = self._any(trainer, pl_module, self.signum)
        if stop and trainer.current_epoch + 1 < (trainer.max_epochs or 0):
            raise StoppedBySignal(stop)

    @staticmethod
    def _any(trainer: pl.Trainer, pl_module: pl.LightningModule, value: int) -> int:
        """The largest of the ranks' values."""
        if trainer.world_size == 1:
            return value
        most = torch.tensor(value, device=pl_module.device)
        torch.distributed.all_reduce(most, torch.distributed.ReduceOp.MAX)
        return int(most)

    def _save(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the state, unless it is lost to NaN or infinity: then the one before stays."""
        self.saved_at = time.monotonic()
        values = [*pl_module.parameters(), *pl_module.buffers()]
        lost = not all(bool(value.isfinite().all()) for value in values)
        if not self._any(trainer, pl_module, int(lost)):
            trainer.save_checkpoint(self.state.last)


class TrialPruning(Checkpoint):
    """Tells the search of each epoch, and ends a training that its pruner gives up.

    A `Checkpoint` that stands before `ResumeCheckpoint`: a pruned epoch is in the history, and no state is saved
    after it.
    """

    def __init__(self, state: ResumeState, pruner: trial_pruning.PrunerConfig) -> None:
        self.state, self.metric = state, pruner.metric
        self.pruner: trial_pruning.TrialPruner | None = None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Rank 0 asks the pruner, all ranks follow. The last epoch is only reported: there is nothing left to save.

        Raises:
            ValueError: the objective is not measured in training. TrialPruned: the pruner says so.
        """
        if self.metric not in trainer.callback_metrics:
            hint = nearest(self.metric, [name for name in trainer.callback_metrics if name.startswith("val/")])
            raise ValueError(f"hydra.sweeper.pruner: {self.metric} is not measured after each epoch: {hint}")
        done, last = trainer.current_epoch + 1, trainer.max_epochs or 0
        value = float(trainer.callback_metrics[self.metric])
        why = f"after {done} of {last} epochs, {self.metric} {value:.4f}"
        stop = trainer.is_global_zero and self._should_prune(done, value) and done < last
        if stop:
            self.state.last.unlink(missing_ok=True)
            trial_pruning.write_reason(why)
        if ResumeCheckpoint._any(trainer, pl_module, int(stop)):
            raise TrialPruned(why)

    def _should_prune(self, done: int, value: float) -> bool:
        try:
            self.pruner = self.pruner or trial_pruning.trial_pruner()
            return self.pruner.should_prune(done, value)
        except Exception as error:  # whatever a database does, the training goes on
            print(f"the search could not be asked: {type(error).__name__}: {error}", file=sys.stderr)
            return False


class AveragedWeights(EMAWeightAveraging):
    """Lightning's exponential moving average, whose net can be asked for.

    Lightning puts the training weights back before `on_validation_end`, where the best epoch is kept.
    """

    @property
    def net(self) -> nn.Module:
        """The averaged net."""
        assert self._average_model is not None
        averaged: nn.Module = self._average_model.module.net  # type: ignore[assignment]
        return averaged


class BestWeights(pl.Callback):
    """Keeps the weights of the best epoch as safetensors; they become the stage's output."""

    def __init__(self, path: Path, metric: Metric, average: AveragedWeights | None = None) -> None:
        """Write to `path`.

        Args:
            path: of the weights.
            metric: of the validation split, by which epochs are compared.
            average: where the validated weights are the averaged ones.
        """
        self.average = average
        self.path, self.metric, self.sign = path, f"val/{metric.name}", 1.0 if metric.maximize else -1.0
        self.value: float | None = None
        self.epoch = -1

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep this epoch's weights when it is the best so far."""
        if trainer.sanity_checking or self.metric not in trainer.callback_metrics:
            return
        value = float(trainer.callback_metrics[self.metric])
        if value == value and (self.value is None or self.sign * value > self.sign * self.value):
            self.value, self.epoch = value, trainer.current_epoch
            if trainer.is_global_zero:
                weights.save(self.average.net if self.average else pl_module.net, self.path)  # type: ignore[arg-type]

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"value": self.value, "epoch": self.epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint."""
        self.value, self.epoch = state_dict["value"], state_dict["epoch"]


class EpochHistory(Checkpoint):
    """One row an epoch: kept on disk, sent to the record, printed as the live line."""

    def __init__(self, path: Path, record: RunRecord | None, epochs: int, printed: Sequence[str]) -> None:
        """Write to `path`.

        Args:
            path: of the CSV file.
            record: the MLflow run; None on other ranks than the first.
            epochs: of the whole training, for the time left.
            printed: names of the metrics on the live line, e.g. "val/loss".
        """
        self.path, self.record, self.epochs, self.printed = path, record, epochs, printed
        self.rows: list[dict[str, float]] = []
        self.started = time.monotonic()
        self.first = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Time left is estimated from the epochs of this process."""
        self.started, self.first = time.monotonic(), trainer.current_epoch

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep, send and print the epoch."""
        row = {name: float(value) for name, value in trainer.callback_metrics.items()}
        epoch = trainer.current_epoch
        self.rows = [old for old in self.rows if old["epoch"] < epoch] + [{"epoch": float(epoch), **row}]
        if not trainer.is_global_zero:
            return
        table = pd.DataFrame(self.rows)
        with replacing(self.path) as temporary:
            table.astype({"epoch": int}).to_csv(temporary, index=False)
        if self.record is not None:
            self.record.metrics(row, step=epoch)
        left = (time.monotonic() - self.started) / (epoch + 1 - self.first) * (self.epochs - epoch - 1)
        scores = "  ".join(f"{name} {row[name]:.4f}" for name in self.printed if name in row)
        print(f"epoch {epoch + 1}/{self.epochs}  {scores}  about {left:.0f} s left", file=sys.stderr, flush=True)

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint."""
        self.rows = list(state_dict["rows"])
