"""Adaptive search: Optuna chooses what to try next, Hydra's launcher runs it, the study on disk remembers it.

A trial has the same number in the study, in Hydra and in sweeps/<name>/trials/. A trial that was under way when the
search was killed is run again under its own number, so that its finished repeats and its place in a grid are kept.
"""

from __future__ import annotations

import dataclasses
import math
import os
import platform
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Annotated, Any, Literal

import optuna
from hydra.core.utils import JobReturn
from optuna.distributions import CategoricalDistribution
from optuna.samplers import BaseSampler, CmaEsSampler, RandomSampler, TPESampler
from optuna.trial import Trial, TrialState
from pydantic import Field
from pydantic.dataclasses import dataclass

from stillframe.config import STRICT, checked, nearest
from stillframe.sweeps import search_space as spaces
from stillframe.sweeps.search_space import SearchSpace
from stillframe.sweeps.settings import MANY, OWN
from stillframe.sweeps.store import Sweep
from stillframe.training.trial_pruning import SEARCH, PrunerConfig, open_storage

AT_ONCE = 8  # trials in a batch where the launcher itself decides how many run
SPENT = "stillframe.seconds"  # attributes of the study
FOLDER = "stillframe.folder"
Launch = Callable[[Sequence[Sequence[str]], int], Sequence[JobReturn]]
optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass(frozen=True, config=STRICT)
class SearchConfig:
    """Section `hydra.sweeper`; conf/hydra/sweeper/optuna.yaml says what each key means."""

    sampler: Literal["tpe", "cmaes", "random", "grid"]
    trials: Annotated[int, Field(ge=1)]
    timeout_s: Annotated[float, Field(gt=0)] | None
    batch: Annotated[int, Field(ge=0)]
    startup: Annotated[int, Field(ge=1)]
    seed: Annotated[int, Field(ge=0)]
    storage: str | None
    pruner: Literal["none", "median", "hyperband"]
    prune_after: Annotated[int, Field(ge=1)]
    prune_startup: Annotated[int, Field(ge=0)]
    params: dict[str, Any]
    when: list[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class SearchPlan:
    """What is searched and how; `trials` is the budget, for a grid no more than it has settings."""

    config: SearchConfig
    space: SearchSpace
    trials: int

    def check_storage(self, sweep: Sweep) -> None:
        """Open the study once (ValueError: it cannot be opened, or is another folder's)."""
        open_study(self, sweep, pruner_config(self, sweep, 1))


def plan(sweeper: dict[str, Any], overrides: list[str], objectives: list[str]) -> SearchPlan:
    """Check everything that can be wrong before the first trial.

    Args:
        sweeper: section `hydra.sweeper`, with `_target_`.
        overrides: the command line's overrides.
        objectives: of the sweep.

    Raises:
        ValueError: names key and value, and the nearest right one.
    """
    config = read(sweeper)
    own = [override for override in overrides if not spaces.parse(override).is_hydra_override()]
    space = spaces.build(own, config.params, config.when)
    _check_sampler(config, space, objectives)
    trials = config.trials
    if config.sampler == "grid":
        trials = sum(1 for _ in islice(space.every(), trials))
    return SearchPlan(config, space, trials)


def read(sweeper: dict[str, Any]) -> SearchConfig:
    """The section (ValueError: an unknown key, or a value that does not fit)."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        resolved: Any = OmegaConf.to_container(OmegaConf.create(sweeper), resolve=True)
        values = {key: value for key, value in resolved.items() if key != "_target_"}
    except OmegaConfBaseException as error:
        raise ValueError(f"hydra.sweeper: {' '.join(str(error).split())}") from None
    if problem := explain([f"hydra.sweeper.{key}=" for key in values]):
        raise ValueError(problem)
    config: SearchConfig = checked("hydra.sweeper", SearchConfig, values, origin="")
    return config


def explain(overrides: list[str]) -> str:
    """Which override of `hydra.sweeper` is unknown, with the nearest right name; "" when none is."""
    names = [field.name for field in dataclasses.fields(SearchConfig)]
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        if key.startswith("hydra.sweeper.") and key.split(".")[2] not in names:
            return f"unknown {key}: {nearest(key.split('.')[2], names)}"
    return ""


def _check_sampler(config: SearchConfig, space: SearchSpace, objectives: list[str]) -> None:
    several = f"there are {len(objectives)} (sweep.objective = {', '.join(objectives)})"
    if config.sampler == "cmaes":
        unconditional = space.branches[0].parameters
        numbers = [p.key for p in unconditional if not isinstance(p.distribution, CategoricalDistribution)]
        if len(objectives) > 1:
            raise ValueError(f"hydra.sweeper.sampler = cmaes: for one objective, {several}: take tpe, random or grid")
        if len(numbers) < 2:
            raise ValueError(
                f"hydra.sweeper.sampler = cmaes: needs two numbers or more (interval or range, on no condition), "
                f"here: {', '.join(numbers) or 'none'}"
            )
    if config.pruner != "none" and len(objectives) > 1:
        raise ValueError(f"hydra.sweeper.pruner = {config.pruner}: for one objective, {several}: set it to none")
    if config.pruner != "none" and not objectives[0].startswith("val/"):
        raise ValueError(
            f"hydra.sweeper.pruner = {config.pruner}: sweep.objective = {objectives[0]} is not measured "
            f"after each epoch: take a val/ metric, or set the pruner to none"
        )


def pruner_config(search_plan: SearchPlan, sweep: Sweep, epochs: int) -> PrunerConfig:
    """The pruning that the trainings get; `epochs`: of a training, where the search does not choose it."""
    for parameter in search_plan.space.parameters:
        if parameter.key == "trainer.max_epochs":
            epochs = max(epochs, *(int(float(value)) for value in _ends(parameter.distribution)))
    name = sweep.facts["name"]
    identity = sweep.facts["identity"]
    return PrunerConfig(
        storage=search_plan.config.storage or f"sqlite:///{sweep.folder / 'study.db'}",
        study=f"stillframe-{name}" + ("" if name == identity else f"-{identity}"),
        metric=sweep.objectives[0],
        pruner=search_plan.config.pruner,
        after=search_plan.config.prune_after,
        startup=search_plan.config.prune_startup,
        epochs=epochs,
    )


def _ends(distribution: Any) -> Sequence[Any]:
    categorical = isinstance(distribution, CategoricalDistribution)
    return list(distribution.choices) if categorical else [distribution.high]


def sampler(config: SearchConfig, space: SearchSpace, objectives: int, begun: int) -> BaseSampler:
    """Optuna's sampler; after `begun` trials it must not draw its first ones again."""
    seed = config.seed + begun
    if config.sampler == "cmaes":
        return CmaEsSampler(
            n_startup_trials=config.startup,
            independent_sampler=RandomSampler(seed=seed),
            warn_independent_sampling=False,
            seed=seed,
        )
    if config.sampler == "tpe":
        joint = objectives == 1 and len(space.branches) > 1  # parameters on a condition, all the same drawn jointly
        extra = {"multivariate": True, "group": True} if joint else {}
        return TPESampler(n_startup_trials=config.startup, seed=seed, **extra)
    return RandomSampler(seed=seed)


def open_study(search_plan: SearchPlan, sweep: Sweep, pruner: PrunerConfig) -> optuna.Study:
    """The study of this sweep: a new one, or the one that the same command began.

    Raises:
        ValueError: the storage cannot be opened, or its study of this name belongs to another folder.
    """
    storage = open_storage(pruner.storage)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(
            study_name=pruner.study,
            storage=storage,
            directions=sweep.directions,
            load_if_exists=True,
            pruner=pruner.make() if pruner.pruner != "none" else optuna.pruners.NopPruner(),
        )
        study.sampler = sampler(search_plan.config, search_plan.space, len(sweep.objectives), len(study.trials))
    # Two folders in one shared storage would mix their trials: the study belongs to the folder that made it.
    here = f"{platform.node()}:{sweep.folder}"
    if search_plan.config.storage is not None and study.user_attrs.setdefault(FOLDER, here) != here:
        raise ValueError(
            f"hydra.sweeper.storage: its study {pruner.study} belongs to {study.user_attrs[FOLDER]}: "
            f"continue it there, or give this one a sweep.name of its own"
        )
    study.set_user_attr(FOLDER, here)
    return study


class SearchState:
    """A search under way."""

    def __init__(self, search_plan: SearchPlan, sweep: Sweep, epochs: int) -> None:
        """Open the study; `epochs`: of the longest training."""
        self.plan, self.sweep = search_plan, sweep
        self.pruning = pruner_config(search_plan, sweep, epochs)
        self.study = open_study(search_plan, sweep, self.pruning)
        self.spent = float(self.study.user_attrs.get(SPENT, 0.0))
        many = AT_ONCE if sweep.facts["parallel"] >= MANY else sweep.facts["parallel"]
        self.batch = search_plan.config.batch or min(many, sweep.facts["slots"])

    def run(self, launch: Launch) -> list[Sequence[JobReturn]]:
        """Search until the budget is spent.

        Raises:
            Exception: what a trial raised; the others of its batch are told first.
        """
        returned: list[Sequence[JobReturn]] = []
        self.settle()
        while not self.over() and (todo := self.interrupted() or self.new_trials()):
            for first, batch in _runs(todo):
                began = time.monotonic()
                returned.append(self.run_batch(launch, first, batch))
                self.spent += time.monotonic() - began
                self.study.set_user_attr(SPENT, self.spent)
                if self.over():
                    break
        return returned

    def over(self) -> bool:
        """Whether the time is spent."""
        return self.plan.config.timeout_s is not None and self.spent >= self.plan.config.timeout_s

    def settle(self) -> None:
        """Tell the study of trials that ended after the command itself had been killed."""
        for frozen in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            done = self.sweep.trial(frozen.number)
            if done is None or done.state not in ("finished", "pruned", "failed"):
                continue
            # trial.json may be of an earlier study of this name: only the same setting is the same trial
            overrides = self.plan.space.suggest(Trial(self.study, frozen._trial_id))
            if _parameters(overrides) == _parameters(done.overrides):
                self.tell(frozen.number, done.state, done.values)

    def interrupted(self) -> list[tuple[int, list[str]]]:
        """The next batch of those that a killed search left, with their numbers."""
        left = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))[: self.batch]
        return [(frozen.number, self.plan.space.suggest(Trial(self.study, frozen._trial_id))) for frozen in left]

    def new_trials(self) -> list[tuple[int, list[str]]]:
        """The next batch of new ones."""
        begun = sum(trial.state != TrialState.WAITING for trial in self.study.get_trials(deepcopy=False))
        trials = []
        for _ in range(min(self.batch, self.plan.trials - begun)):
            if self.plan.config.sampler == "grid":  # the trial with number n tries the grid's n-th setting
                number = len(self.study.get_trials(deepcopy=False))
                for setting in islice(self.plan.space.every(), number, number + 1):
                    self.study.enqueue_trial(setting)
            trial = self.study.ask()
            trials.append((trial.number, self.plan.space.suggest(trial)))
        return trials

    def run_batch(self, launch: Launch, first: int, batch: list[list[str]]) -> Sequence[JobReturn]:
        """Run a batch and tell the study."""
        if self.pruning.pruner != "none":
            # By both ways: workers that inherit our environment, and those on other machines by Hydra's env_set.
            config = self.pruning.json()
            os.environ[SEARCH] = config
            quoted = "'" + config.replace("\\", "\\\\").replace("'", "\\'") + "'"
            batch = [[*overrides, f"+hydra.job.env_set.{SEARCH}={quoted}"] for overrides in batch]
        results = launch(batch, first)
        problems: list[Exception] = []
        for result in results:
            try:
                ended = result.return_value
            except Exception as problem:
                problems.append(problem)
            else:
                self.tell(ended["number"], ended["state"], ended["values"])
        if problems:
            raise problems[0]
        return results

    def tell(self, number: int, state: str, values: Sequence[float | None]) -> None:
        """A trial's end. Without a finite value there is nothing that the sampler could go by: a failure."""
        finite = [value for value in values if value is not None and math.isfinite(value)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            if state == "finished" and len(finite) == len(self.sweep.objectives):
                self.study.tell(number, finite)
            else:
                self.study.tell(number, state=TrialState.PRUNED if state == "pruned" else TrialState.FAIL)


def _runs(todo: list[tuple[int, list[str]]]) -> Iterator[tuple[int, list[list[str]]]]:
    """Trials with numbers one after the other: Hydra's launcher counts on from the first."""
    first = 0
    for end in range(1, len(todo) + 1):
        if end == len(todo) or todo[end][0] != todo[end - 1][0] + 1:
            yield todo[first][0], [overrides for _, overrides in todo[first:end]]
            first = end


def _parameters(overrides: list[str]) -> list[str]:
    """Overrides that reach the DAG."""
    own = tuple(f"{name}{mark}" for name in OWN for mark in ".=")
    return sorted(override for override in overrides if not override.lstrip("+").startswith(own))
