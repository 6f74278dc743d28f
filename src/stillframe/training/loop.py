"""The training loop: everything around the module, from the resume state to the stage's outputs."""

from __future__ import annotations

import shutil
import signal
import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.utilities.exceptions import SIGTERMException

from stillframe import config
from stillframe.code_fingerprint import closure_files
from stillframe.models.build import Network
from stillframe.paths import read_json, write_json
from stillframe.store.split import FILE
from stillframe.tasks import find_task
from stillframe.tracking.record import RunRecord
from stillframe.training import probe, teacher, trial_pruning
from stillframe.training.callbacks import (
    AveragedWeights,
    BestWeights,
    EpochHistory,
    ResumeCheckpoint,
    StoppedBySignal,
    TrialPruned,
    TrialPruning,
)
from stillframe.training.data import TrainingData
from stillframe.training.module import NonFiniteLoss, TrainingModule
from stillframe.training.outputs import open_record, write_outputs
from stillframe.training.resume import AtomicCheckpointIO, find_state, inputs_of
from stillframe.training.spec import TrainingSpec
from stillframe.training.trainer import device_type, make_trainer, progress_bar, rank_and_world, set_threads


class Training:
    """One training, from its spec to its outputs.

    Attributes:
        spec: sections and data; once `decide` was called with the precision, learning rate and batch size that apply.
        tracking: section `tracking`.
        trained: folder of the outputs.
        device: "cpu" or "cuda".
        task: what is learned.
        data: rows and loaders.
        net: the network, trained in place.
        state: resume state of this training; `notes` say what became of others.
    """

    def __init__(self, spec: TrainingSpec, tracking: config.TrackingConfig, trained: Path) -> None:
        """Open the data, build the net; nothing is trained yet (ValueError: what is wrong, before the first step)."""
        self.spec, self.tracking, self.trained = spec, tracking, trained
        self.rank, self.world = rank_and_world()
        set_threads(spec.trainer)
        self.device = device_type(spec.trainer)
        self.task = find_task(spec.task)
        self._find_metrics()
        self.data = TrainingData(spec, self.device, rank=self.rank, world=self.world)
        torch.manual_seed(spec.seed)
        self.net = self.task.learning.build_network(spec.model, spec.card)
        self.teacher: Network | None = None
        if spec.optim.distill is not None:
            outputs = self.net.spec.classes
            self.teacher = teacher.load(spec.optim.distill, tracking, spec.card, trained=trained, outputs=outputs)
        self.state, self.notes = find_state(self._inputs(), list(spec.trainer.resume_anyway))

    def _find_metrics(self) -> None:
        """The metrics that decide something; a name that the task lacks is an error that lists the nearest ones."""
        trainer, classes = self.spec.trainer, self.spec.card.classes
        metric = partial(self.task.metric, classes=classes, monitored=True)
        self.monitor = metric(trainer.monitor, key="trainer.monitor")
        stop = trainer.early_stopping
        self.stop_metric = metric(stop.metric, key="trainer.early_stopping.metric") if stop is not None else None
        self.pruner = trial_pruning.pruner_config()
        if self.pruner is not None:
            metric(self.pruner.metric.removeprefix("val/"), key="sweep.objective")

    def params(self) -> dict[str, Any]:
        """All sections, flat."""
        return self.spec.params() | config.flat({"tracking": asdict(self.tracking)})

    def _inputs(self) -> dict[str, Any]:
        """Everything that this training depends on; see `resume.inputs_of`."""
        spec = self.spec
        data = [folder / FILE for folder in (spec.train, spec.val, *spec.train_folders[1:])]
        data.append(spec.train.with_name("card.json"))
        if (
            spec.optim.distill is not None
            and (weights := Path(spec.optim.distill.teacher, "model.safetensors")).is_file()
        ):
            data.append(weights)
        code = closure_files(["stillframe.stages.train"], task=self.task.module)
        return inputs_of(self.params(), data, code)

    def decide(self) -> dict[str, Any]:
        """Precision, learning rate and batch size: probed once and kept, the same for all ranks and resumes.

        They replace those of `spec`, so that whatever reads the spec later has them.
        """
        path = self.state.folder / "decided.json"
        if self.rank == 0 and not path.exists():
            write_json(path, probe.decide(self))
        deadline = time.monotonic() + 600
        while not path.exists():
            if time.monotonic() > deadline:
                raise TimeoutError("rank 0 did not settle precision, learning rate and batch size within 600 s")
            time.sleep(0.1)
        decided = dict(read_json(path))
        optim = replace(self.spec.optim, lr=decided["lr"])
        trainer = replace(self.spec.trainer, batch_size=decided["batch_size"], precision=decided["precision"])
        self.spec = replace(self.spec, optim=optim, trainer=trainer)
        return decided

    def module(self) -> TrainingModule:
        """The LightningModule of the spec."""
        watched = [metric.name for metric in (self.monitor, self.stop_metric) if metric is not None]
        watched += [self.pruner.metric.removeprefix("val/")] if self.pruner is not None else []
        return TrainingModule(self.net, self.spec, self.data, watched=watched, teacher=self.teacher)


def _callbacks(training: Training, record: RunRecord | None) -> tuple[list[pl.Callback], BestWeights]:
    """The callbacks in the order in which they run: the state is saved last."""
    spec, state = training.spec, training.state
    average = AveragedWeights(decay=spec.optim.ema_decay) if spec.optim.ema_decay is not None else None
    best = BestWeights(state.folder / "best.safetensors", training.monitor, average)
    callbacks: list[pl.Callback] = [*([average] if average else []), best, progress_bar()]
    stop = spec.trainer.early_stopping
    if stop is not None and training.stop_metric is not None:
        callbacks.append(
            EarlyStopping(
                f"val/{training.stop_metric.name}",
                patience=stop.patience,
                min_delta=stop.min_delta,
                mode="max" if training.stop_metric.maximize else "min",
                check_finite=False,
            )
        )
    printed = ["train/loss", "val/loss", *(f"val/{metric.name}" for metric in training.task.epoch_metrics)]
    callbacks.append(EpochHistory(state.folder / "history.csv", record, spec.trainer.max_epochs, printed))
    if training.pruner is not None:
        callbacks.append(TrialPruning(state, training.pruner))
    callbacks.append(ResumeCheckpoint(state, spec.trainer.checkpoint_seconds))
    return callbacks, best


def run(spec: TrainingSpec, tracking: config.TrackingConfig, trained: Path) -> None:
    """Train, resuming what was interrupted, and write the stage's outputs.

    Args:
        spec: sections and data.
        tracking: section `tracking`.
        trained: folder of the outputs.

    Raises:
        ValueError: something is wrong with the spec or its data. NonFiniteLoss: the loss went off.
        StoppedBySignal: a signal asked to stop; the state is kept. TrialPruned: the search gave the trial up; nothing
            is kept.
    """
    training = Training(spec, tracking, trained)
    for note in training.notes if training.rank == 0 else []:
        print(note)
    decided = training.decide()
    record = open_record(training)
    callbacks, best = _callbacks(training, record)
    try:
        seconds, trainer = _fit(training, callbacks)
        if training.rank == 0:
            assert record is not None
            write_outputs(training, decided, best, trainer, seconds, record)
    except BaseException as problem:
        if record is not None:
            record.tags({"stillframe.problem": f"{type(problem).__name__}: {problem}"[:500]})
            record.status("KILLED" if isinstance(problem, StoppedBySignal | TrialPruned) else "FAILED")
            record.close()
        if training.rank == 0 and isinstance(problem, TrialPruned):
            shutil.rmtree(training.state.folder)
        raise


def _fit(training: Training, callbacks: list[pl.Callback]) -> tuple[float, pl.Trainer]:
    """Train to the end, from the last checkpoint if there is one: seconds and the Trainer."""
    spec, last = training.spec, training.state.last
    started = time.monotonic()
    trainer = make_trainer(spec, training.device, callbacks, world=training.world, plugins=[AtomicCheckpointIO()])
    module = training.module()
    if spec.trainer.channels_last:
        module.net.channels_last()
    if spec.trainer.compile:
        module.net.backbone.compile()
    if last.exists() and training.rank == 0:
        print(f"resuming from {last}")
    try:
        trainer.fit(module, ckpt_path=str(last) if last.exists() else None, weights_only=True)
    except SIGTERMException:  # a SystemExit with code 0: DVC would take the stage for done
        raise StoppedBySignal(signal.SIGTERM) from None
    except torch.OutOfMemoryError as error:
        raise out_of_memory(spec, str(error)) from None
    except NonFiniteLoss as error:
        state = f"the last finite state is kept in {last}" if last.exists() else "no step was finite"
        raise NonFiniteLoss(f"{error}; {state}") from None
    except (EOFError, ConnectionError) as error:
        raise RuntimeError("a data loading worker died (out of memory?): lower trainer.workers") from error
    assert trainer.state.finished, "training ended without finishing"
    return time.monotonic() - started, trainer


def out_of_memory(spec: TrainingSpec, message: str) -> ValueError:
    """An error that says what to change."""
    size, trainer = spec.card.height, spec.trainer
    used = (
        f"batch_size = {trainer.batch_size}, {size} x {size} px, precision {trainer.precision}, model {spec.model.name}"
    )
    cure = "halve trainer.batch_size and double optim.accumulate, or use bf16"
    return ValueError(f"out of memory with trainer.{used}: {cure} ({message.splitlines()[0]})")
