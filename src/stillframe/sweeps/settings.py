"""Section `sweep` of conf/sweep.yaml, and what a command line means."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from stillframe.config import STRICT, AtLeast0, nearest
from stillframe.evaluation.class_scores import higher_is_better
from stillframe.paths import CONF

COSTS = ("train/seconds", "train/parameters")  # besides val/<metric>: what an objective may be
MANY = 64  # slots for a launcher that decides itself how many trials run at once
OWN = ("sweep", "seeds", "folds")  # keys of conf/sweep.yaml that are no parameters of the DAG


@dataclass(frozen=True, config=STRICT)
class SweepSettings:
    """What is the same for all trials of a sweep."""

    seeds: Annotated[int, Field(ge=1)]  # each setting runs with so many seeds: seed, seed + 1, ...
    folds: Annotated[int, AtLeast0]  # 0: the split as it is; K: each setting runs on K folds of train and validation
    name: str | None  # null: from the command and the code
    objective: str | list[str]  # val/<metric>, train/seconds or train/parameters; several for a Pareto front
    direction: Literal["auto", "maximize", "minimize"] | list[Literal["maximize", "minimize"]]
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
        if isinstance(self.direction, list):
            return list(self.direction)
        if self.direction != "auto":
            return [self.direction] * len(self.objectives)
        return ["maximize" if _more_is_better(name) else "minimize" for name in self.objectives]


def _more_is_better(objective: str) -> bool:
    return objective not in COSTS and higher_is_better(objective.split("/", 1)[1])


def build(values: dict[str, Any], origin: str = f"{CONF}/sweep.yaml") -> SweepSettings:
    """The settings of a composed conf/sweep.yaml.

    Raises:
        ValueError: an unknown or ill-typed key, an objective of the test split, directions that do not fit.
    """
    given = {"seeds": values.get("seeds"), "folds": values.get("folds"), **values.get("sweep", {})}
    try:
        settings: SweepSettings = TypeAdapter(SweepSettings).validate_json(json.dumps(given))
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in fault["loc"])
        known = (
            nearest(key, SweepSettings.__dataclass_fields__) if fault["type"].startswith("unexpected") else fault["msg"]
        )
        raise ValueError(f"{origin}: sweep.{key} = {fault.get('input')!r}: {known}") from None
    for objective in settings.objectives:
        kind, _, metric = objective.partition("/")
        if kind == "test":
            raise ValueError(
                f"sweep.objective = {objective}: a setting is chosen on the validation split (val/{metric})"
            )
        if (kind != "val" or not metric) and objective not in COSTS:
            raise ValueError(f"sweep.objective = {objective}: {nearest(objective, ['val/f1_macro', *COSTS])}")
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
    """The name of a sweep that was given none: the same command on the same code continues the same sweep.

    What only says how fast or how long (hydra/launcher, the number of trials, time, parallel) does not count.
    """
    sweeper = tuple(f"hydra.sweeper.{key}" for key in ("trials", "timeout_s", "batch"))
    passing = ("hydra/launcher", "hydra.launcher", "sweep.parallel", *sweeper)
    counted = sorted(override for override in overrides if not override.lstrip("+").startswith(passing))
    return hashlib.sha256(json.dumps([counted, tree]).encode()).hexdigest()[:8]


def folder_of(name: str, root: Path) -> Path:
    """Where a sweep is kept."""
    return root / "sweeps" / name
