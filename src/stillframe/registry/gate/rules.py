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

FOLDER = CONF / "gate"
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Bound = Annotated[float, Field(gt=0.0)] | None


@dataclass(frozen=True, config=STRICT)
class ChampionRule:
    """By how much the new model is better than the champion, on the same test images."""

    metric: Literal[
        "accuracy",
        "balanced_accuracy",
        "precision_macro",
        "recall_macro",
        "f1_macro",
        "f1_weighted",
        "iou_macro",  # this one and the next two are of masks
        "iou_weighted",
        "boundary_f1",
    ]
    least_gain: Annotated[float, Field(gt=-1.0, lt=1.0)]
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

    metric: Literal["accuracy", "f1_macro", "iou_macro"]
    worse_by: Share
    least_images: Annotated[int, Field(ge=1)]


@dataclass(frozen=True, config=STRICT)
class GateRules:
    """A file of rules; a null section judges nothing."""

    champion: ChampionRule | None
    every_class: dict[Literal["precision", "recall", "f1", "iou"], Share]
    at_least: dict[str, float]
    at_most: dict[str, float]
    export: ExportRule | None
    slices: SlicesRule | None


def find(word: str) -> Path:
    """The file of rules: a path, or a name such as `strict` of conf/gate/strict.yaml.

    Raises:
        FileNotFoundError: there is none; with the nearest name.
    """
    for path in (Path(word), FOLDER / f"{word}.yaml"):
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"--rules {word}: no such file: {nearest(word, [path.stem for path in FOLDER.glob('*.yaml')])}"
    )


def read(path: Path) -> GateRules:
    """A file of rules, checked.

    Raises:
        ValueError: not plain YAML (nothing in it is executed), or unknown, missing or ill-typed keys, a line each.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not plain YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds no rules: it needs {', '.join(field.name for field in fields(GateRules))}")
    rules: GateRules = checked("", GateRules, values, str(path))
    return rules
