"""Section `sweep` of conf/sweep.yaml, and what a command line means."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from stillframe.config import STRICT, AtLeast0, checked, nearest
from stillframe.paths import CONF
from stillframe.tasks import find_task
from stillframe.tasks.base import Metric, Task

COSTS = {  # besides val/<metric>: what an objective may be
    "train/seconds": Metric("seconds", "Seconds of training", "", maximize=False, percent=False),
    "train/parameters": Metric("parameters", "Parameters", "", maximize=False, percent=False),
}
MANY = 64  # slots for a launcher that decides itself how many trials run at once
OWN = ("sweep", "seeds", "folds")  # keys of conf/sweep.yaml that are no parameters of the DAG


@dataclass(frozen=True, config=STRICT)
class SweepSettings:
    """What is the same for all trials of a sweep."""

    seeds: Annotated[int, Field(ge=1)]  # each setting runs with so many seeds: seed, seed + 1, ...
    folds: Annotated[int, AtLeast0]  # 0: the split as it is; K: each setting runs on K folds of train and validation
    name: str | None  # null: from the command and the code
    objective: str | list[str]  # val/<metric>, train/seconds or train/parameters; several for a Pareto front
    direction: Literal["auto", "maximize", "minimize"] | list[Literal["maximize", "minimize"]]  # `build` resolves auto
    until: Literal["validate", "evaluate", "report"]  # the last stage of a trial
    test: Literal["best", "none"]  # with until = validate: who meets the test split at the end
    parallel: Annotated[int, AtLeast0]  # trials at once on this machine; 0: as the launcher says
    gpus: list[str] | None  # devices that are handed out; null: those that are visible
    gpus_per_trial: Annotated[int, AtLeast0]  # 0: all of them for a single trial at a time, else one each
    timeout_s: Annotated[float, Field(gt=0)] | None  # of one run of the DAG

    @property
    def objectives(self) -> list[str]:
        """Always a list."""
        return [self.objective] if isinstance(self.objective, str) else list(self.objective)

    @property
    def directions(self) -> list[str]:
        """Maximize or minimize, one an objective."""
        return [self.direction] * len(self.objectives) if isinstance(self.direction, str) else list(self.direction)


def objective_metric(objective: str, task: Task) -> Metric:
    """The metric of an objective: val/<metric>, or a cost; of a metric of one class the class is not checked.

    Raises:
        ValueError: the task has no such metric; lists those that it has.
    """
    if objective in COSTS:
        return COSTS[objective]
    name = objective.partition("/")[2]
    return task.metric(name, [name.partition("/")[2]], key="sweep.objective")


def build(values: dict[str, Any], origin: str = f"{CONF}/sweep.yaml") -> SweepSettings:
    """The settings of a composed conf/sweep.yaml.

    Raises:
        ValueError: an unknown or ill-typed key, an objective of the test split or one that the task does not have,
            directions that do not fit.
    """
    section = {"seeds": values.get("seeds"), "folds": values.get("folds"), **values.get("sweep", {})}
    settings: SweepSettings = checked("sweep", SweepSettings, section, origin)
    task = find_task(values["task"])
    for objective in settings.objectives:
        split, _, metric = objective.partition("/")
        if split == "test":
            raise ValueError(
                f"sweep.objective = {objective}: a setting is chosen on the validation split (val/{metric})"
            )
        if (split != "val" or not metric) and objective not in COSTS:
            names = [f"val/{name}" for name in task.named_metrics()]
            close = nearest(objective, [*names, *COSTS])
            raise ValueError(f"sweep.objective = {objective}: {close} (there are {', '.join([*names, *COSTS])})")
    metrics = [objective_metric(objective, task) for objective in settings.objectives]
    if settings.direction == "auto":
        settings = replace(settings, direction=["maximize" if metric.maximize else "minimize" for metric in metrics])
    if len(settings.directions) != len(settings.objectives):
        raise ValueError(f"sweep.direction: {len(settings.directions)} for {len(settings.objectives)} objectives")
    if settings.test == "none" and settings.until != "validate":
        raise ValueError(
            f"sweep.test = none, but with sweep.until = {settings.until} every trial meets the test split: "
            "set sweep.until=validate"
        )
    if settings.folds == 1:
        raise ValueError("folds = 1: two or more, or 0 for the split as it is")
    return settings


def default_name(overrides: list[str], tree: str) -> str:
    """The name of a sweep without `sweep.name`: the same command on the same code continues the same sweep.

    What only says how fast or how long (hydra/launcher, the number of trials, time, parallel) does not count.
    """
    sweeper = tuple(f"hydra.sweeper.{key}" for key in ("trials", "timeout_s", "batch"))
    passing = ("hydra/launcher", "hydra.launcher", "sweep.parallel", *sweeper)
    counted = sorted(override for override in overrides if not override.lstrip("+").startswith(passing))
    return hashlib.sha256(json.dumps([counted, tree]).encode()).hexdigest()[:8]
