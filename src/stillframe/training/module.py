"""The one LightningModule: it knows a task only by its functions."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from stillframe.models.build import Network
from stillframe.tasks import find_task
from stillframe.training.data import TrainingData
from stillframe.training.optim import lightning_config, make_optimizer, make_schedule
from stillframe.training.spec import TrainingSpec
from stillframe.types import Batch


class NonFiniteLoss(ValueError):
    """The loss was NaN or infinite too often in a row."""


def step_seed(seed: int, epoch: int, batch: int, rank: int) -> int:
    """Seed of torch's generator for one step, so that dropout and mixup need no state to resume."""
    state = np.random.SeedSequence([seed, epoch, batch, rank]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


def _seed(value: int, device: torch.device) -> None:
    """What `torch.manual_seed` does for the CPU and this device.

    Where torch knows CUDA but has not started it, `torch.manual_seed` writes down a call, with its stack, for each kind
    of device: 0.3 ms a step, and memory that grows with the steps.
    """
    torch.default_generator.manual_seed(value)
    if device.type == "cuda":
        torch.cuda.manual_seed(value)


class TrainingModule(pl.LightningModule):
    """Training and validation of one network on one task.

    Metrics are counted on the device and computed once an epoch: per-step logging costs more than a small net's step.
    """

    def __init__(
        self,
        net: Network,
        spec: TrainingSpec,
        data: TrainingData,
        *,
        watched: Iterable[str] = (),
        teacher: Network | None = None,
    ) -> None:
        """Make losses and accumulators.

        Args:
            net: is trained in place.
            spec: sections of the training.
            data: its rows and loaders.
            watched: names of metrics of single classes that decide something (early stopping, the best epoch) and so
                are computed after each epoch; the others come from the stage validate.
            teacher: the network of `optim.distill`; it is no part of this module, so that no checkpoint holds it.
        """
        super().__init__()
        self.net, self.spec, self.data, self.optim = net, spec, data, spec.optim
        self.task = find_task(spec.task)
        learning, optim = self.task.learning, spec.optim
        self.online = data.online if data.online is not None and data.online.where == "batch" else None
        loss = learning.make_loss(optim, spec.card)
        distilled = learning.distill_loss(loss, teacher, optim.distill) if teacher and optim.distill else loss
        self.losses = {"train": distilled, "val": loss}
        self.accumulators = {split: learning.make_accumulator(spec.card) for split in ("train", "val")}
        self.watched = {f"val/{name}" for name in watched}
        self.nonfinite = torch.zeros((), dtype=torch.int64)  # losses in a row
        self.batch_size, self.lr = spec.trainer.batch_size, optim.lr  # attributes that Lightning's Tuner looks for
        # optimizer steps of the whole training; asking the Trainer would start the loader too early
        steps = -(-len(data.batches(self.batch_size)) // optim.accumulate)
        self.total_steps = steps * spec.trainer.max_epochs

    # -- one step, whatever the split -------------------------------------------------------------------------------
    def _step(self, batch: Batch, split: str) -> Tensor:
        loss, prediction = self.task.learning.step(self.net, batch, self.losses[split])
        self.accumulators[split].update(prediction, batch, loss)
        return loss

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed this step, and let frozen parts learn when their time has come."""
        _seed(step_seed(self.spec.seed, self.current_epoch, batch_idx, self.global_rank), self.device)
        unfreeze_after = self.spec.model.unfreeze_after
        if unfreeze_after is not None and self.net.frozen and self.current_epoch >= unfreeze_after:
            self.net.unfreeze()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Augment on the batch, mix, and learn; raises NonFiniteLoss after `max_nonfinite` bad losses in a row."""
        if self.online is not None:
            maps = {name: batch.target[name] for name in self.data.maps}
            image, maps = self.online.batch_with_maps(batch.image, maps, batch.epoch, batch.index_B)
            batch = replace(batch, inputs={**batch.inputs, "image": image}, target={**batch.target, **maps})
        batch = self.task.learning.mix(self.optim, self.spec.card, batch)
        loss = self._step(batch, "train")
        if self.optim.l1:
            loss = loss + self.optim.l1 * sum(
                p.abs().sum() for p in self.net.parameters() if p.requires_grad and p.ndim > 1
            )
        self._watch(loss)
        return loss

    def _watch(self, loss: Tensor) -> None:
        """Count non-finite losses in a row; look at the count every 10 steps on a GPU, where a look waits for it."""
        if loss.device.type == "cpu" and math.isfinite(loss.item()):  # nothing to wait for: look at once
            self.nonfinite.zero_()
            return
        bad = (~torch.isfinite(loss.detach())).long()
        self.nonfinite = (self.nonfinite.to(bad.device) + bad) * bad
        look = loss.device.type == "cpu" or self.trainer.fit_loop.total_batch_idx % 10 == 0
        if look and int(self.nonfinite) >= min(self.spec.trainer.max_nonfinite, 10):
            raise NonFiniteLoss(
                f"the training loss was not finite {int(self.nonfinite)} times in a row in epoch {self.current_epoch}: "
                "lower optim.lr, set optim.clip_norm, or use trainer.precision fp32"
            )

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count one validation batch."""
        self._step(batch, "val")

    # -- once an epoch ----------------------------------------------------------------------------------------------
    def _counts(self, split: str) -> Tensor:
        """The epoch's counts so far, summed over the ranks."""
        counts = self.accumulators[split].counts().to(self.device, copy=True)
        if self.trainer.world_size > 1:
            torch.distributed.all_reduce(counts)
        return counts

    def _close(self, split: str) -> dict[str, float]:
        scores = self.accumulators[split].scores(self._counts(split))
        self.accumulators[split].reset()
        return {f"{split}/{name}": value for name, value in scores.items()}

    def on_train_epoch_start(self) -> None:
        """Nothing counted before belongs to this epoch."""
        self.accumulators["train"].reset()

    def on_validation_epoch_start(self) -> None:
        """Nothing counted before belongs to this validation."""
        self.accumulators["val"].reset()

    def on_validation_epoch_end(self) -> None:
        """Publish `val/...` for early stopping, the choice of the best epoch, and the record."""
        scores = self._close("val")
        # of each class ("val/recall/cat") only what decides something
        logged = {name: value for name, value in scores.items() if name.count("/") == 1 or name in self.watched}
        self.log_dict(logged, sync_dist=False)

    def on_train_epoch_end(self) -> None:
        """Publish `train/...` and the learning rate."""
        rate = self.optimizers().param_groups[0]["lr"]  # type: ignore[union-attr]
        scores = self._close("train")
        logged: dict[str, Any] = {
            name: scores[name] for name in ("train/loss", f"train/{self.task.train_metric}") if name in scores
        }
        self.log_dict({**logged, "lr": rate}, sync_dist=False)

    # -- resume -----------------------------------------------------------------------------------------------------
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what was counted in a half-done epoch."""
        checkpoint["train_counts"] = self._counts("train").cpu()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on counting; the sum of all ranks is the first rank's share now."""
        if self.global_rank == 0:
            self.accumulators["train"].restore(checkpoint["train_counts"].to(self.device))

    # -- plumbing ---------------------------------------------------------------------------------------------------
    def train_dataloader(self) -> Any:
        """Train batches of `self.batch_size`."""
        return self.data.train_loader(self.batch_size, self.position)

    def val_dataloader(self) -> Any:
        """Validation batches."""
        return self.data.val_loader()

    def position(self) -> tuple[int, int]:
        """(epoch, train batches of it that are done); right at an epoch's end and after a resume, too."""
        if self._trainer is None:
            return 0, 0
        loop: Any = self.trainer.fit_loop
        done = loop.epoch_loop.batch_progress.current.ready
        if loop.max_batches and done >= loop.max_batches:  # saved at an epoch's end
            done = 0
        # a training that is to overfit some batches sees the same ones in each epoch
        return (0 if self.spec.trainer.overfit_batches else loop.epoch_progress.current.processed), done

    def configure_optimizers(self) -> Any:
        """Optimizer and schedule of section `optim`; parts that are unfrozen later are already in."""
        late = self.spec.model.unfreeze_after is not None and self.net.frozen
        if late:
            for parameter in self.net.parameters():
                parameter.requires_grad_(True)
        optimizer = make_optimizer(self.net, self.optim)
        if late:
            for module in self.net.frozen:
                module.requires_grad_(False)
        return lightning_config(optimizer, make_schedule(optimizer, self.optim.schedule, self.total_steps))
