"""Fine-tuning: a few more epochs for a network that has lost a part of itself by pruning; no MLflow record."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch

from stillframe.config import ScheduleConfig
from stillframe.models import weights
from stillframe.models.build import Network
from stillframe.tasks import find_task
from stillframe.training.callbacks import BestWeights
from stillframe.training.data import TrainingData
from stillframe.training.module import TrainingModule
from stillframe.training.spec import TrainingSpec
from stillframe.training.trainer import device_type, make_trainer
from stillframe.types import Batch

STATISTICS = 64  # train batches over which batch statistics are taken, at most
MOMENTUM = 0.1  # of batch statistics while fine-tuning: torch's own


def finetune(net: Network, spec: TrainingSpec, *, epochs: int, lr: float) -> float:
    """Train a network on, in place, and leave it with the weights of its best epoch, in evaluation mode on the CPU.

    The data, the loss and the batch size are those of its training; the learning rate falls from `lr` by a cosine.

    Batch statistics are taken anew first, with or without epochs: those of the whole network no longer fit, and with
    the momentum of 0.01 that some networks have they would lag behind for several epochs.

    Args:
        net: a trained network, pruned.
        spec: of its training.
        epochs: how many; 0 only takes the batch statistics.
        lr: learning rate to begin with.

    Returns:
        The best value of `trainer.monitor` on the validation split; NaN without epochs.
    """
    device, spec = device_type(spec.trainer), _for_finetuning(spec, epochs, lr)
    monitor = find_task(spec.task).metric(
        spec.trainer.monitor, spec.card.classes, key="trainer.monitor", monitored=True
    )
    module = TrainingModule(net, spec, TrainingData(spec, device), watched=[monitor.name])
    measure_statistics(net, module.train_dataloader())
    if not epochs:
        net.eval()
        return float("nan")
    with tempfile.TemporaryDirectory(prefix="stillframe-finetune-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice about loaders and loggers that are so on purpose
        best = BestWeights(Path(folder) / "best.safetensors", monitor)
        make_trainer(spec, device, [best], enable_checkpointing=False, enable_progress_bar=False).fit(module)
        weights.load(net.cpu(), best.path)
    net.eval()
    return float("nan") if best.value is None else best.value


def _for_finetuning(spec: TrainingSpec, epochs: int, lr: float) -> TrainingSpec:
    """The spec with a schedule of its own, in one process and in full precision; everything learns."""
    schedule = ScheduleConfig(name="cosine", warmup_fraction=0.1, final_fraction=0.01)
    optim = replace(spec.optim, lr=lr, schedule=schedule, layer_decay=None, ema_decay=None, distill=None)
    trainer = replace(
        spec.trainer, max_epochs=max(1, epochs), precision="fp32", num_nodes=1, strategy="auto", workers=0
    )
    return replace(spec, optim=optim, trainer=trainer)


@torch.no_grad()
def measure_statistics(net: Network, batches: Iterable[Batch]) -> None:
    """Take the batch statistics of a network anew, as plain means over train batches, with torch's momentum after."""
    layers = [layer for layer in net.modules() if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm)]
    if not layers:
        return
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # torch takes a cumulative mean then
    net.train()
    for batch in islice(batches, STATISTICS):
        net(**batch.inputs)
    for layer in layers:
        layer.momentum = MOMENTUM
