"""A few more epochs for a net that was trained before and has lost a part of itself: the Trainer without a record."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytorch_lightning as pl
import torch

from stillframe.augmentation.online import make_online
from stillframe.config import OptimConfig, ScheduleConfig
from stillframe.models import weights
from stillframe.models.build import Network
from stillframe.store.loader import EpochBatchSampler, SequentialBatchSampler, SplitDataset, make_loader
from stillframe.tasks import find_task
from stillframe.training.callbacks import BestWeights
from stillframe.training.loop import silence_lightning
from stillframe.training.module import TrainingModule
from stillframe.training.spec import FinetuneSpec
from stillframe.types import Batch

STATISTICS = 64  # train batches over which they are taken, at most
MOMENTUM = 0.1  # of batch statistics while tuning: torch's own


def tune(net: Network, lesson: FinetuneSpec, *, epochs: int, lr: float) -> float:
    """Train a net on, in place, and leave it with the weights of its best epoch, in evaluation mode on the CPU.

    The augmentation, the loss and the batch size are those of its training; the rate falls from `lr` by a cosine.

    Batch statistics are taken anew first, with or without epochs: those of the whole net no longer fit, and with the
    momentum of 0.01 that some nets have they would lag behind for several epochs.

    Returns:
        The best value of `trainer.monitor` on the validation split; NaN without epochs.
    """
    silence_lightning()
    device = "cuda" if lesson.trainer.accelerator != "cpu" and torch.cuda.is_available() else "cpu"
    schedule = ScheduleConfig(name="cosine", warmup_fraction=0.1, final_fraction=0.01)
    optim = replace(lesson.optim, lr=lr, schedule=schedule, layer_decay=None, ema_decay=None, distill=None)
    monitor, module = lesson.trainer.monitor, _module(net, lesson, optim, epochs, device)
    measure_statistics(net, module.train_dataloader())
    if not epochs:
        net.eval()
        return float("nan")
    with tempfile.TemporaryDirectory(prefix="stillframe-tune-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice about loaders and loggers that are so on purpose
        maximize = find_task(lesson.task).metric(monitor, lesson.card.classes).maximize
        best = BestWeights(Path(folder) / "best.safetensors", monitor, maximize)
        trainer = pl.Trainer(
            accelerator="gpu" if device == "cuda" else "cpu",
            devices=1,
            max_epochs=epochs,
            accumulate_grad_batches=optim.accumulate,
            gradient_clip_val=optim.clip_norm,
            callbacks=[best],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            deterministic="warn" if device == "cpu" else None,
        )
        trainer.fit(module)
        weights.load(net.cpu(), best.path)
    net.eval()
    return float("nan") if best.value is None else best.value


@torch.no_grad()
def measure_statistics(net: Network, batches: Iterable[Batch]) -> None:
    """Take the batch statistics of a net anew, as plain means over train batches; then let them follow more quickly."""
    layers = [layer for layer in net.modules() if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm)]
    if not layers:
        return
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # torch's word for a cumulative mean
    net.train()
    for batch in islice(batches, STATISTICS):
        net(**batch.inputs)
    for layer in layers:
        layer.momentum = MOMENTUM


def _module(net: Network, lesson: FinetuneSpec, optim: OptimConfig, epochs: int, device: str) -> TrainingModule:
    """The LightningModule with its loaders; everything learns."""
    card, size = lesson.card, lesson.trainer.batch_size
    online = make_online(
        lesson.augment, image_size=card.height, channels=card.channels, device_type=device, seed=lesson.seed
    )
    folders = [lesson.train, *([lesson.augmented] if lesson.augmented.exists() else [])]
    rows, val = SplitDataset(folders, online), SplitDataset([lesson.val])
    module = TrainingModule(
        net,
        find_task(lesson.task),
        card,
        model=lesson.model,
        optim=optim,
        seed=lesson.seed,
        online=online,
        max_nonfinite=lesson.trainer.max_nonfinite,
        maps=[column.name for column in rows.targets.values() if column.is_map],
    )
    order = EpochBatchSampler(len(rows), size, seed=lesson.seed, position=lambda: (module.current_epoch, 0))
    module.watched, module.batch_size = {f"val/{lesson.trainer.monitor}"}, size
    module.total_steps = max(1, -(-len(order) // optim.accumulate) * epochs)
    module.loaders = (
        lambda _: make_loader(rows, order, 0),
        lambda: make_loader(val, SequentialBatchSampler(len(val), 4 * size), 0),
    )
    return module
