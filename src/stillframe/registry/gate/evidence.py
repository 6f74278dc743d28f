"""What the gate judges: a model's answers on the test images, from the checkout or from a champion's run."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stillframe.evaluation.class_scores import FROM_PROBABILITIES
from stillframe.paths import EVALUATE, PREPARED, TRAIN, read_json
from stillframe.registry.gate.model_answers import ModelPredictions, answers_of, columns_of
from stillframe.types import DatasetCard

FILES = ("predictions.parquet", "metrics.json", "card.json")  # in MLflow beside the verdict, and under evaluate/
EXPORT = Path("artifacts/export/export.json")
SHIPPED = EXPORT.with_name("model.onnx")
SOURCE_HASH = "preprocess/deps/data/source"  # DVC's, of the folder that the images came from


@dataclass(frozen=True)
class GateEvidence:
    """A model and its answers on the test images.

    Attributes:
        predictions: one row an image: the columns of its kind of answers.
        metrics: of the test split, by the names of metrics.json.
        classes: names, in the order of the labels.
        split_hash: of the data's split.
        source: DVC's hash of the folder that the images came from; "" when it is not known.
        export: export.json; empty when nothing was exported.
    """

    predictions: pd.DataFrame
    metrics: dict[str, float]
    classes: list[str]
    split_hash: str
    source: str
    slices: list[str] = field(default_factory=list)
    export: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def answers(self) -> ModelPredictions:
        """The same, as rules ask about them."""
        return answers_of(self.predictions, self.classes)

    def incomparable(self, other: GateEvidence) -> str:
        """Why the two cannot be paired image by image; "" when they can."""
        if self.classes != other.classes:
            return f"other classes: {_first(other.classes, self.classes)}"
        if self.answers.columns != other.answers.columns:
            return "answers of another kind: masks on one side, labels on the other"
        ours, theirs = self.predictions, other.predictions
        split = f"split {other.split_hash[:12]}, here {self.split_hash[:12]}"
        if list(ours["id"]) != list(theirs["id"]):
            shared = len(set(ours["id"]) & set(theirs["id"]))
            return f"another test split ({split}): {shared} of its {len(theirs)} images are among the {len(ours)} here"
        changed = self.answers.told_otherwise(other.answers)
        return f"the same test images, but {changed} have another label now ({split})" if changed else ""

    def doubt(self, other: GateEvidence) -> str:
        """What a reader should know of a pairing by names."""
        if self.source and other.source and self.source != other.source:
            return "the folder of the images has changed since; the test images have the same names and labels"
        return ""


def _first(theirs: list[str], ours: list[str]) -> str:
    only = [name for name in theirs if name not in ours] or [name for name in ours if name not in theirs]
    return f"{only[0]!r} is on one side only" if only else "in another order"


def of_checkout(
    evaluated: Path = EVALUATE, prepared: Path = PREPARED, trained: Path = TRAIN, export: Path = EXPORT
) -> GateEvidence:
    """Of the run in artifacts/.

    Raises:
        FileNotFoundError: a stage's file is not there.
        ValueError: a file is damaged, or metrics.json is not of these predictions.
    """
    found = _read(evaluated / FILES[0], evaluated / FILES[1], prepared / FILES[2])
    table = evaluated / "slices.csv"
    names = list(dict.fromkeys(pd.read_csv(table, dtype=str)["slice"])) if table.is_file() else []
    origin = read_json(trained / "run.json")
    return GateEvidence(
        **found,
        source=str(origin.get("dvc", {}).get(SOURCE_HASH, "")),
        slices=names,
        export=read_json(export) if export.is_file() else {},
    )


def of_folder(folder: Path, source: str = "") -> GateEvidence:
    """Of `FILES` in one folder, as MLflow keeps them (FileNotFoundError, ValueError as `of_checkout`)."""
    return GateEvidence(**_read(*(folder / name for name in FILES)), source=source)


def _read(predictions: Path, metrics: Path, card: Path) -> dict[str, Any]:
    facts, scores, frame = DatasetCard.read(card), read_json(metrics), _table(predictions)
    accuracy = answers_of(frame, facts.classes).accuracy()
    if abs(accuracy - scores.get("accuracy", np.nan)) > 1e-6:
        raise ValueError(
            f"{metrics} says accuracy {scores.get('accuracy')}, {predictions} {accuracy:.6f}: not of one run"
        )
    return {"predictions": frame, "metrics": scores, "classes": facts.classes, "split_hash": facts.split_hash}


def _table(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: run `dvc repro` to make it")
    from pyarrow import parquet

    try:
        return pd.read_parquet(path, columns=list(columns_of(parquet.read_schema(path).names)))
    except Exception as error:  # pyarrow has several kinds for a file that is damaged or lacks a column
        raise ValueError(f"{path} is not a table of predictions ({' '.join(str(error).split())[:200]})") from None


def collect(folder: Path, evaluated: Path = EVALUATE, prepared: Path = PREPARED) -> Path:
    """Copy `FILES` of the checkout, and export.json where there is one, into `folder`; the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copyfile((prepared if name == "card.json" else evaluated) / name, folder / name)
    if EXPORT.is_file():
        shutil.copyfile(EXPORT, folder / EXPORT.name)
    return folder


def digest(trained: Path = TRAIN, evaluated: Path = EVALUATE) -> str:
    """16 hexadecimal digits over weights, answers and exported file: what a version in the registry stands for."""
    total = hashlib.sha256()
    for path in (trained / "model.safetensors", evaluated / FILES[0], *([SHIPPED] if SHIPPED.is_file() else [])):
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: run `dvc repro` to make it")
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()[:16]


def known_metrics(found: GateEvidence) -> list[str]:
    """The metrics that a rule may name, those that this split does not define included."""
    return sorted({*found.metrics, *FROM_PROBABILITIES})
