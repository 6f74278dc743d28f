"""Stage 5: train with Lightning on any number of devices; early stopping on a validation metric; resumable.

With several devices this process stays thin and starts torchrun; under torchrun or SLURM it is one of the ranks.
"""

from __future__ import annotations

import sys
from pathlib import Path

from stillframe.config import AugmentConfig, ModelConfig, OptimConfig, TrackingConfig, TrainerConfig, read_params
from stillframe.paths import AUGMENTED, PREPARED, TRAIN
from stillframe.tracking.record import start_ahead
from stillframe.training import launch
from stillframe.types import DatasetCard


def run(
    task: str,
    seed: int,
    augment: AugmentConfig,
    model: ModelConfig,
    optim: OptimConfig,
    trainer: TrainerConfig,
    tracking: TrackingConfig,
    *,
    train: Path = PREPARED / "train",
    val: Path = PREPARED / "val",
    card: Path = PREPARED / "card.json",
    augmented: Path = AUGMENTED,
    trained: Path = TRAIN,
) -> int:
    """Train and write `trained`. Returns 0, 143 and its kin when a signal asked to stop, 1 when a search pruned it."""
    workers = launch.processes(trainer)
    if workers > 1 and not launch.already_launched():
        from stillframe.training.lock import exclusive

        with exclusive():
            code = launch.torchrun("stillframe.stages.train", workers)
        if code > 128:
            print(f"stopped by signal {code - 128}; `dvc repro` resumes", file=sys.stderr)
        return code
    from stillframe.training import loop
    from stillframe.training.callbacks import StoppedBySignal, TrialPruned
    from stillframe.training.lock import exclusive
    from stillframe.training.spec import TrainingSpec

    facts = DatasetCard.read(card)
    spec = TrainingSpec(task, seed, augment, model, optim, trainer, facts, train, val, augmented)
    try:
        if launch.already_launched():
            loop.run(spec, tracking, trained)
        else:
            with exclusive():
                loop.run(spec, tracking, trained)
    except StoppedBySignal as stopped:
        print(f"stopped by signal {stopped.signum}; `dvc repro` resumes", file=sys.stderr)
        return stopped.exit_code
    except TrialPruned as pruned:
        print(f"pruned {pruned}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    try:
        sections = read_params("task", "seed", "augment", "model", "optim", "trainer", "tracking")
        if launch.processes(sections[5]) == 1 and not launch.already_launched():
            start_ahead()
        sys.exit(run(*sections))
    except (ValueError, OSError) as problem:
        sys.exit(f"train: {problem}")
