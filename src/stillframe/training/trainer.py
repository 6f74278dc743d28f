"""Lightning's Trainer for a spec, and the process that it runs in: rank, threads, device."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import RichProgressBar

from stillframe.config import TrainerConfig
from stillframe.training.launch import keep_memory
from stillframe.training.spec import TrainingSpec

THREADS = "STILLFRAME_THREADS"  # environment variable: this trial's share of the cores, in a sweep of several at once
PRECISIONS: dict[str, Any] = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def rank_and_world() -> tuple[int, int]:
    """This process among all: as torchrun, or else SLURM, has set it."""
    for rank, world in (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS")):
        if rank in os.environ and world in os.environ:
            return int(os.environ[rank]), int(os.environ[world])
    return 0, 1


def set_threads(trainer: TrainerConfig) -> None:
    """Share the cores out among the processes of this machine, unless `trainer.threads` says how many to use."""
    keep_memory()
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    cores = int(os.environ.get(THREADS, "0")) or len(os.sched_getaffinity(0))
    torch.set_num_threads(trainer.threads or max(1, cores // local))


def device_type(trainer: TrainerConfig) -> str:
    """The device that training runs on, "cuda" or "cpu" (ValueError: a GPU is asked for and there is none)."""
    if trainer.accelerator == "gpu" and not torch.cuda.is_available():
        raise ValueError("trainer.accelerator = 'gpu', but torch sees no GPU here: use auto or cpu")
    return "cuda" if trainer.accelerator != "cpu" and torch.cuda.is_available() else "cpu"


def make_trainer(
    spec: TrainingSpec, device: str, callbacks: Sequence[pl.Callback], *, world: int = 1, **options: Any
) -> pl.Trainer:
    """Lightning's Trainer for a spec; quiet where its advice does not apply here.

    Args:
        spec: sections `optim` and `trainer` are used; the precision must be decided.
        device: "cpu" or "cuda".
        callbacks: in the order in which they run.
        world: number of processes over all nodes.
        options: further arguments of the Trainer.
    """
    silence_lightning()
    trainer, strategy = spec.trainer, spec.trainer.strategy
    if world > 1 and strategy in ("auto", "ddp"):
        from pytorch_lightning.strategies import DDPStrategy

        # parts that are unfrozen later take no part in the first epochs' backward passes
        unused = spec.model.unfreeze_after is not None
        options["strategy"] = DDPStrategy(timeout=timedelta(minutes=10), find_unused_parameters=unused)
    else:
        options["strategy"] = strategy
    return pl.Trainer(
        accelerator="gpu" if device == "cuda" else "cpu",
        devices=max(1, world // trainer.num_nodes),
        num_nodes=trainer.num_nodes,
        precision=PRECISIONS[trainer.precision],
        max_epochs=trainer.max_epochs,
        accumulate_grad_batches=spec.optim.accumulate,
        gradient_clip_val=spec.optim.clip_norm,
        callbacks=list(callbacks),
        logger=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # `EpochBatchSampler` gives each rank its part
        enable_model_summary=False,
        log_every_n_steps=10**9,  # metrics are computed once an epoch
        benchmark=True if device == "cuda" else None,
        deterministic="warn" if device == "cpu" else None,
        **options,
    )


def silence_lightning() -> None:
    """Advice that does not apply: loaders and batches are made here on purpose."""
    for text in (
        ".*does not have many workers.*",
        ".*Trying to infer the `batch_size`.*",
        ".*resuming from a checkpoint that ended before the epoch ended.*",
        ".*is not a shuffling.*",
        ".*module.s. in eval mode at the start of training.*",
        ".*`_forward_unimplemented`.*",
        ".*lr_scheduler.step.*before.*optimizer.step.*",
        ".*sync_dist=True.*",  # the counts are summed over the ranks before they are logged
        ".*isinstance.treespec, LeafSpec.*",
    ):
        warnings.filterwarnings("ignore", message=text)
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)


def progress_bar() -> pl.Callback:
    """A progress bar that is drawn every 20 batches, so that small nets do not wait for it."""

    class Bar(RichProgressBar):
        def _get_train_description(self, current_epoch: int) -> str:
            return f"Epoch {current_epoch + 1}/{self.trainer.max_epochs}"  # as the live line counts

    return Bar(refresh_rate=20)
