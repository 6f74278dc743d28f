"""Whether a training is worth going on: the search's pruner is asked after each epoch, through the search's storage.

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
    """What a training needs to ask: it is the same for all trials of a search.

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
        place = url.rpartition("@")[2]  # without the password
        raise ValueError(f"hydra.sweeper.storage: {place}: {' '.join(str(error).split())[:300]}") from None


class TrialPruner:
    """Reports epochs to the study, and asks its pruner; for one process of a training."""

    def __init__(self, asks: PrunerConfig, number: int) -> None:
        """`number`: of the trial."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.asks = asks
        sampler = optuna.samplers.RandomSampler()  # it is never asked here
        self.study = optuna.load_study(
            study_name=asks.study, storage=open_storage(asks.storage), sampler=sampler, pruner=asks.make()
        )
        (frozen,) = [one for one in self.study.get_trials(deepcopy=False) if one.number == number]
        self.known = set(frozen.intermediate_values)  # of an attempt that was killed
        self.trial = optuna.trial.Trial(self.study, frozen._trial_id)

    def worth(self, epochs: int, value: float) -> bool:
        """Whether to go on after so many epochs, of which the last had `value`."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if epochs not in self.known:
                self.trial.report(value, epochs)
            return not self.trial.should_prune()


def asks() -> PrunerConfig | None:
    """What the environment says; None: no search prunes this training.

    Only the first repeat (seed, fold) of a trial is pruned: the study keeps one curve a trial.
    """
    if SEARCH not in os.environ or os.environ.get("STILLFRAME_REPEAT", "0") != "0":
        return None
    return PrunerConfig(**json.loads(os.environ[SEARCH]))


def judge() -> TrialPruner:
    """For the trial that the environment names."""
    found = asks()
    assert found is not None
    return TrialPruner(found, int(os.environ["STILLFRAME_TRIAL"]))


def leave(why: str) -> None:
    """The mark by which the sweep tells a pruned training from a failed one."""
    write_json(PRUNED, {"why": why})
