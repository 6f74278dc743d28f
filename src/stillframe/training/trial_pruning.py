"""Pruning of the trials of a search: its pruner is asked after each epoch, through the search's storage.

No Lightning here, and Optuna only where a search is under way.
"""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stillframe.paths import write_json

SEARCH = "STILLFRAME_SEARCH"  # environment variable of the stages, set where a search prunes: an `PrunerConfig` as JSON
PRUNED = Path("artifacts/pruned.json")  # left by a training that the search ended


@dataclass(frozen=True)
class PrunerConfig:
    """What a training needs to ask the pruner: the same for all trials of a search.

    Attributes:
        storage: URL; study: its name in there.
        metric: the objective, e.g. "val/f1_macro".
        pruner: median or hyperband.
        after: epochs that each training gets.
        startup: median: finished trials before the first is pruned.
        epochs: of the longest training: hyperband's largest resource.
    """

    storage: str
    study: str
    metric: str
    pruner: str
    after: int
    startup: int
    epochs: int

    def json(self) -> str:
        """For the environment."""
        return json.dumps(asdict(self))

    def make(self) -> Any:
        """Optuna's pruner."""
        from optuna import pruners

        if self.pruner == "median":
            return pruners.MedianPruner(n_startup_trials=self.startup, n_warmup_steps=self.after)
        return pruners.HyperbandPruner(min_resource=self.after, max_resource=max(self.after, self.epochs))


def open_storage(url: str) -> Any:
    """Optuna's storage.

    Raises:
        ValueError: it cannot be opened.
    """
    from optuna.storages import RDBStorage

    wait = {"connect_args": {"timeout": 60}} if url.startswith("sqlite:") else {"pool_pre_ping": True}
    try:
        return RDBStorage(url, engine_kwargs=wait)
    except Exception as error:  # each database has its own
        address = url.rpartition("@")[2]  # without the password
        raise ValueError(f"hydra.sweeper.storage: {address}: {' '.join(str(error).split())[:300]}") from None


class TrialPruner:
    """Reports epochs to the study, and asks its pruner; for one process of a training."""

    def __init__(self, config: PrunerConfig, number: int) -> None:
        """Open the study; `number` is the trial's."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler = optuna.samplers.RandomSampler()  # nothing is sampled here
        self.study = optuna.load_study(
            study_name=config.study, storage=open_storage(config.storage), sampler=sampler, pruner=config.make()
        )
        (frozen,) = [trial for trial in self.study.get_trials(deepcopy=False) if trial.number == number]
        self.reported = set(frozen.intermediate_values)  # epochs, by an attempt that was killed
        self.trial = optuna.trial.Trial(self.study, frozen._trial_id)

    def should_prune(self, epochs: int, value: float) -> bool:
        """Whether to end the training after so many epochs, of which the last had `value`."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if epochs not in self.reported:
                self.trial.report(value, epochs)
            return bool(self.trial.should_prune())


def pruner_config() -> PrunerConfig | None:
    """The configuration in the environment; None: no search prunes this training.

    Only the first repeat (seed, fold) of a trial is pruned: the study keeps one curve a trial.
    """
    if SEARCH not in os.environ or os.environ.get("STILLFRAME_REPEAT", "0") != "0":
        return None
    return PrunerConfig(**json.loads(os.environ[SEARCH]))


def trial_pruner() -> TrialPruner:
    """For the trial that the environment names."""
    config = pruner_config()
    assert config is not None
    return TrialPruner(config, int(os.environ["STILLFRAME_TRIAL"]))


def write_reason(why: str) -> None:
    """The mark by which the sweep tells a pruned training from a failed one."""
    write_json(PRUNED, {"why": why})
