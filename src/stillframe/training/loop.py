"""The training loop: everything around the module, from the resume state to the stage's outputs."""

from __future__ import annotations

import os
import shutil
import signal
import time
import warnings
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from pytorch_lightning.utilities.exceptions import SIGTERMException

from stillframe import config
from stillframe.augmentation.online import make_online
from stillframe.models.build import Network
from stillframe.paths import read_json, write_json
from stillframe.store.frame_sampling import make_frame_sampler
from stillframe.store.loader import EpochBatchSampler, SequentialBatchSampler, SplitDataset, make_loader
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
from stillframe.training.launch import keep_memory
from stillframe.training.module import NonFiniteLoss, TrainingModule
from stillframe.training.outputs import open_record, write_outputs
from stillframe.training.resume import AtomicCheckpointIO, inputs_of, open_slot
from stillframe.types import DatasetCard

THREADS = "STILLFRAME_THREADS"  # environment variable: this trial's share of the cores, in a sweep of several at once
PRECISIONS: dict[str, Any] = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


@dataclass(frozen=True)
class TrainingSpec:
    """All that a training is made from."""

    task: str
    seed: int
    augment: config.AugmentConfig
    model: config.ModelConfig
    optim: config.OptimConfig
    trainer: config.TrainerConfig
    tracking: config.TrackingConfig
    train: Path
    val: Path
    card: Path
    augmented: Path
    trained: Path

    def params(self) -> dict[str, Any]:
        """The sections, flat."""
        sections = {name: asdict(getattr(self, name)) for name in ("augment", "model", "optim", "trainer", "tracking")}
        return config.flat({"task": self.task, "seed": self.seed, **sections})


def rank_and_world() -> tuple[int, int]:
    """This process among all: as torchrun, or else SLURM, has set it."""
    for rank, world in (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS")):
        if rank in os.environ and world in os.environ:
            return int(os.environ[rank]), int(os.environ[world])
    return 0, 1


def _threads(trainer: config.TrainerConfig) -> None:
    keep_memory()
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    cores = int(os.environ.get(THREADS, "0")) or len(os.sched_getaffinity(0))
    torch.set_num_threads(trainer.threads or max(1, cores // local))


def _device_type(trainer: config.TrainerConfig) -> str:
    if trainer.accelerator == "gpu" and not torch.cuda.is_available():
        raise ValueError("trainer.accelerator = 'gpu', but torch sees no GPU here: use auto or cpu")
    return "cuda" if trainer.accelerator != "cpu" and torch.cuda.is_available() else "cpu"


def _draw_weights(optim: config.OptimConfig, rows: SplitDataset) -> NDArray[np.float64] | None:
    """Per row, for balanced sampling: the same chance for each class."""
    if optim.sampler == "shuffle":
        return None
    if (class_N := rows.class_N) is None:
        raise ValueError(f"optim.sampler = {optim.sampler!r} needs data with classes: use shuffle")
    return np.asarray(1.0 / np.bincount(class_N)[class_N], dtype=np.float64)


class Training:
    """One training, from its plan to its outputs."""

    def __init__(self, plan: TrainingSpec) -> None:
        """Open the data, build the net; nothing is trained yet (ValueError: what is wrong, before the first step)."""
        self.plan = plan
        self.rank, self.world = rank_and_world()
        _threads(plan.trainer)
        self.device = _device_type(plan.trainer)
        self.card = DatasetCard.read(plan.card)
        self.task = find_task(plan.task)
        self._check_metrics()
        augmented = [plan.augmented] if plan.augmented.exists() else []
        self.online = make_online(
            plan.augment,
            image_size=self.card.height,
            channels=self.card.channels,
            device_type=self.device,
            seed=plan.seed,
            maps=bool(self.card.pixels),
        )
        sampler = make_frame_sampler(self.card, plan.augment.temporal, seed=plan.seed)
        self.rows = SplitDataset([plan.train, *augmented], self.online, sampler=sampler)
        self.val_rows = SplitDataset([plan.val], views=sampler.clip.views if sampler is not None else 1)
        if plan.trainer.overfit_batches:
            self.val_rows = self.rows
        torch.manual_seed(plan.seed)
        self.net = self.task.learning.build_network(plan.model, self.card)
        self.teacher: Network | None = None
        if plan.optim.distill is not None:
            self.teacher = teacher.load(plan.optim.distill, plan.tracking, self.card, trained=plan.trained)
        self.slot, self.notes = open_slot(self._inputs(), list(plan.trainer.resume_anyway))

    def _check_metrics(self) -> None:
        names = {"trainer.monitor": self.plan.trainer.monitor}
        if self.plan.trainer.early_stopping is not None:
            names["trainer.early_stopping.metric"] = self.plan.trainer.early_stopping.metric
        if (pruner := trial_pruning.asks()) is not None:
            names["sweep.objective"] = pruner.metric.removeprefix("val/")
        for key, name in names.items():
            self.task.metric(name, self.card.classes, key=key, monitored=True)

    def _inputs(self) -> dict[str, Any]:
        plan = self.plan
        folders = [plan.train, plan.val, *([plan.augmented] if plan.augmented.exists() else [])]
        data = [folder / "data-00000-of-00001.arrow" for folder in folders] + [plan.card]
        if (
            plan.optim.distill is not None
            and (taught := Path(plan.optim.distill.teacher, "model.safetensors")).is_file()
        ):
            data.append(taught)
        here = Path(__file__).parents[1]
        rooms = ("training", "tracking", "tasks", "models", "ingest", "store", "augmentation")
        code = sorted(path for room in rooms for path in (here / room).rglob("*.py"))
        return inputs_of(plan.params(), data, code)

    # -- loaders ----------------------------------------------------------------------------------------------------
    def _order(self, batch_size: int, module: TrainingModule) -> EpochBatchSampler:
        """The train batches of this rank; a resumed epoch goes on where it stopped."""
        trainer = self.plan.trainer
        return EpochBatchSampler(
            len(self.rows),
            batch_size,
            seed=self.plan.seed,
            rank=self.rank,
            world=self.world,
            limit=trainer.overfit_batches or trainer.limit_batches,
            draw_weight_N=_draw_weights(self.plan.optim, self.rows),
            position=partial(_position, module, fixed=bool(trainer.overfit_batches)),
        )

    def val_loader(self) -> Any:
        """Validation batches of this rank: each row once over all ranks."""
        rows = min(len(self.val_rows), 4096) if self.plan.trainer.overfit_batches else len(self.val_rows)
        order = SequentialBatchSampler(rows, 4 * self.plan.trainer.batch_size, rank=self.rank, world=self.world)
        return make_loader(self.val_rows, order, 0)

    # -- the run ----------------------------------------------------------------------------------------------------
    def module(self, batch_size: int, lr: float) -> TrainingModule:
        """The LightningModule with its loaders."""
        module = TrainingModule(
            self.net,
            self.task,
            self.card,
            model=self.plan.model,
            optim=replace(self.plan.optim, lr=lr),
            seed=self.plan.seed,
            online=self.online,
            max_nonfinite=self.plan.trainer.max_nonfinite,
            maps=[column.name for column in self.rows.targets.values() if column.is_map],
            teacher=self.teacher,
        )
        stop = self.plan.trainer.early_stopping
        module.watched = {f"val/{self.plan.trainer.monitor}", f"val/{stop.metric if stop else 'loss'}"}
        if (asks := trial_pruning.asks()) is not None:
            module.watched.add(asks.metric)
        module.batch_size = batch_size
        steps = -(-len(self._order(batch_size, module)) // self.plan.optim.accumulate)
        module.total_steps = steps * self.plan.trainer.max_epochs
        workers = self.plan.trainer.workers
        module.loaders = (lambda size: make_loader(self.rows, self._order(size, module), workers), self.val_loader)
        return module

    def decide(self) -> dict[str, Any]:
        """Precision, learning rate and batch size: probed once and kept, the same for all ranks and resumes."""
        settled = self.slot.state.with_name("decided.json")
        if self.rank == 0 and not settled.exists():
            write_json(settled, probe.decide(self))
        deadline = time.monotonic() + 600
        while not settled.exists():
            if time.monotonic() > deadline:
                raise TimeoutError("rank 0 did not settle precision, learning rate and batch size within 600 s")
            time.sleep(0.1)
        return dict(read_json(settled))


def _position(module: TrainingModule, *, fixed: bool) -> tuple[int, int]:
    """(epoch, train batches of it that are done). `processed` is right at an epoch's end and after a resume, too."""
    if module._trainer is None:
        return 0, 0
    loop: Any = module.trainer.fit_loop
    done = loop.epoch_loop.batch_progress.current.ready
    if loop.max_batches and done >= loop.max_batches:  # saved at an epoch's end
        done = 0
    return (0 if fixed else loop.epoch_progress.current.processed), done


def make_trainer(training: Training, decided: dict[str, Any], callbacks: list[pl.Callback]) -> pl.Trainer:
    """Lightning's Trainer for a plan; quiet where its advice does not apply here."""
    plan = training.plan.trainer
    silence_lightning()
    strategy: Any = plan.strategy
    if training.world > 1 and strategy in ("auto", "ddp"):
        from datetime import timedelta

        from pytorch_lightning.strategies import DDPStrategy

        strategy = DDPStrategy(
            timeout=timedelta(minutes=10),
            find_unused_parameters=training.plan.model.unfreeze_after is not None,
        )
    return pl.Trainer(
        accelerator="gpu" if training.device == "cuda" else "cpu",
        devices=max(1, training.world // plan.num_nodes),
        num_nodes=plan.num_nodes,
        strategy=strategy,
        precision=PRECISIONS[decided["precision"]],
        max_epochs=plan.max_epochs,
        accumulate_grad_batches=training.plan.optim.accumulate,
        gradient_clip_val=training.plan.optim.clip_norm,
        callbacks=callbacks,
        logger=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_model_summary=False,
        plugins=[AtomicCheckpointIO()],
        log_every_n_steps=10**9,
        benchmark=True if training.device == "cuda" else None,
        deterministic="warn" if training.device == "cpu" else None,
    )


def silence_lightning() -> None:
    """Advice that does not apply: loaders and batches are made here on purpose."""
    import logging

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
    """A bar that is drawn every 20 batches, so that small nets do not wait for it."""
    from pytorch_lightning.callbacks import RichProgressBar

    class Bar(RichProgressBar):
        def _get_train_description(self, current_epoch: int) -> str:
            return f"Epoch {current_epoch + 1}/{self.trainer.max_epochs}"  # as the live line counts

    return Bar(refresh_rate=20)


def _callbacks(training: Training, record: RunRecord | None) -> tuple[list[pl.Callback], BestWeights]:
    plan, slot = training.plan, training.slot
    average = AveragedWeights(decay=plan.optim.ema_decay) if plan.optim.ema_decay is not None else None
    task, classes, monitor = training.task, training.card.classes, plan.trainer.monitor
    maximize = task.metric(monitor, classes, key="trainer.monitor").maximize
    best = BestWeights(slot.folder / "best.safetensors", monitor, maximize, average)
    callbacks: list[pl.Callback] = [*([average] if average else []), best, progress_bar()]
    stop = plan.trainer.early_stopping
    if stop is not None:
        from pytorch_lightning.callbacks import EarlyStopping

        mode = "max" if task.metric(stop.metric, classes, key="trainer.early_stopping.metric").maximize else "min"
        callbacks.append(
            EarlyStopping(
                f"val/{stop.metric}",
                patience=stop.patience,
                min_delta=stop.min_delta,
                mode=mode,
                check_finite=False,
            )
        )
    printed = ["train/loss", "val/loss", *(f"val/{metric.name}" for metric in task.epoch_metrics)]
    callbacks.append(EpochHistory(slot.folder / "history.csv", record, plan.trainer.max_epochs, printed))
    if (asks := trial_pruning.asks()) is not None:
        callbacks.append(TrialPruning(slot, asks))
    callbacks.append(ResumeCheckpoint(slot, plan.trainer.checkpoint_seconds))
    return callbacks, best


def run(plan: TrainingSpec) -> None:
    """Train, resuming what was interrupted, and write the stage's outputs.

    Raises:
        ValueError: something is wrong with the plan or its data. NonFiniteLoss: the loss went off.
        Stopped: a signal asked to stop; the state is kept. Pruned: the search gave it up; nothing is kept.
    """
    training = Training(plan)
    for note in training.notes if training.rank == 0 else []:
        print(note)
    decided = training.decide()
    record = open_record(training)
    callbacks, best = _callbacks(training, record)
    try:
        seconds, trainer = _fit(training, decided, callbacks)
        if training.rank == 0:
            assert record is not None
            write_outputs(training, decided, best, trainer, seconds, record)
    except BaseException as problem:
        if record is not None:
            record.tags({"stillframe.problem": f"{type(problem).__name__}: {problem}"[:500]})
            record.status("KILLED" if isinstance(problem, StoppedBySignal | TrialPruned) else "FAILED")
            record.close()
        if training.rank == 0 and isinstance(problem, TrialPruned):
            shutil.rmtree(training.slot.folder)
        raise


def _fit(training: Training, decided: dict[str, Any], callbacks: list[pl.Callback]) -> tuple[float, pl.Trainer]:
    plan, last = training.plan, training.slot.last
    started = time.monotonic()
    trainer = make_trainer(training, decided, callbacks)
    module = training.module(decided["batch_size"], decided["lr"])
    if plan.trainer.channels_last:
        module.net.channels_last()
    if plan.trainer.compile:
        module.net.backbone.compile()
    if last.exists() and training.rank == 0:
        print(f"resuming from {last}")
    try:
        trainer.fit(module, ckpt_path=str(last) if last.exists() else None, weights_only=True)
    except SIGTERMException:  # a SystemExit with code 0: DVC would take the stage for done
        raise StoppedBySignal(signal.SIGTERM) from None
    except torch.OutOfMemoryError as error:
        raise out_of_memory(training, decided, str(error)) from None
    except NonFiniteLoss as error:
        kept = f"the last finite state is kept in {last}" if last.exists() else "no step was finite"
        raise NonFiniteLoss(f"{error}; {kept}") from None
    except (EOFError, ConnectionError) as error:
        raise RuntimeError("a data loading worker died (out of memory?): lower trainer.workers") from error
    assert trainer.state.finished, "training ended without finishing"
    return time.monotonic() - started, trainer


def out_of_memory(training: Training, decided: dict[str, Any], what: str) -> ValueError:
    """An error that says what to change."""
    size, model = training.card.height, training.plan.model.name
    used = f"batch_size = {decided['batch_size']}, {size} x {size} px, precision {decided['precision']}, model {model}"
    cure = "halve trainer.batch_size and double optim.accumulate, or use bf16"
    return ValueError(f"out of memory with trainer.{used}: {cure} ({what.splitlines()[0]})")
