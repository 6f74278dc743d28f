"""The rules of conf/gate/*.yaml, as frozen dataclasses without default values."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field
from pydantic.dataclasses import dataclass

from stillframe.config import STRICT, checked, nearest
from stillframe.paths import CONF
from stillframe.tasks.base import Task

FOLDER = CONF / "gate"
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Bound = Annotated[float, Field(gt=0.0)] | None


@dataclass(frozen=True, config=STRICT)
class ChampionRule:
    """By how much the new model is better than the champion, on the same test images."""

    metric: str  # of the task, additive over the images
    least_gain: float
    resamples: Annotated[int, Field(ge=1000, le=1_000_000)]
    not_comparable: Literal["fail", "pass"]


@dataclass(frozen=True, config=STRICT)
class ExportRule:
    """Bounds of the exported file; null: none."""

    megabytes: Bound
    latency_ms_p50: Bound
    latency_ms_p99: Bound
    changed_decisions: Annotated[int, Field(ge=0)] | None


@dataclass(frozen=True, config=STRICT)
class SlicesRule:
    """How much worse than the champion a slice of the test images may be."""

    metric: str  # of the task, additive over the images
    worse_by: Annotated[float, Field(ge=0.0)]
    least_images: Annotated[int, Field(ge=1)]


@dataclass(frozen=True, config=STRICT)
class GateRules:
    """A file of rules; a null section judges nothing."""

    champion: ChampionRule | None
    every_class: dict[str, Share]  # metric of single classes -> the lowest value that passes
    at_least: dict[str, float]
    at_most: dict[str, float]
    export: ExportRule | None
    slices: SlicesRule | None


def find(name: str) -> Path:
    """The file of rules: a path, or a name such as `strict` of conf/gate/strict.yaml.

    Raises:
        FileNotFoundError: there is none; with the nearest name.
    """
    for path in (Path(name), FOLDER / f"{name}.yaml"):
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"--rules {name}: no such file: {nearest(name, [path.stem for path in FOLDER.glob('*.yaml')])}"
    )


def read(path: Path, task: Task) -> GateRules:
    """A file of rules, checked.

    Args:
        path: of the file.
        task: whose metrics the rules may name.

    Raises:
        ValueError: not plain YAML (nothing in it is executed), a metric that the task does not have, or unknown,
            missing or ill-typed keys, a line each.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not plain YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds no rules: it needs {', '.join(field.name for field in fields(GateRules))}")
    # before the keys: the metrics, whose names only the task knows
    sections = {key: value if isinstance(value, dict) else {} for key, value in values.items()}
    for key in ("champion", "slices"):
        if "metric" in sections.get(key, {}):
            task.metric(str(sections[key]["metric"]), key=f"{path}: {key}.metric")
    for name in map(str, sections.get("every_class", {})):
        if name not in task.class_metrics():
            hint = nearest(name, task.class_metrics())
            raise ValueError(f"{path}: every_class.{name} = {name!r} is not a metric of single classes: {hint}")
    rules: GateRules = checked("", GateRules, values, str(path))
    return rules
