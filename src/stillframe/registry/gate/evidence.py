"""What the gate compares: a model's predictions and scores on the test split, of the checkout or a champion's run."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stillframe.evaluation.bootstrap import scores_of
from stillframe.evaluation.comparison import count_target_mismatches
from stillframe.paths import EVALUATE, PREPARED, TRAIN, read_json
from stillframe.tasks import find_task
from stillframe.tasks.base import Task
from stillframe.types import DatasetCard

FILES = ("predictions.parquet", "metrics.json", "card.json")  # in MLflow beside the verdict, and under evaluate/
EXPORT = Path("artifacts/export/export.json")
SHIPPED = EXPORT.with_name("model.onnx")
SOURCE_COLUMNS = ("id", "source_width", "source_height", "source_mode", "slices")  # of predictions.parquet
SOURCE_HASH = "preprocess/deps/data/source"  # DVC's, of the folder that the images came from


@dataclass(frozen=True)
class GateEvidence:
    """A model's predictions and scores on the test images.

    Attributes:
        task: what it predicts.
        predictions: one row an image: `SOURCE_COLUMNS` and those by which the task compares two models.
        metrics: of the test split, by the names of metrics.json.
        classes: names, in the order of the labels.
        split_hash: of the data's split.
        source: DVC's hash of the folder that the images came from; "" when it is not known.
        export: export.json; empty when nothing was exported.
    """

    task: Task
    predictions: pd.DataFrame
    metrics: dict[str, float]
    classes: list[str]
    split_hash: str
    source: str
    slices: list[str] = field(default_factory=list)
    export: dict[str, Any] = field(default_factory=dict)

    def incomparable(self, other: GateEvidence) -> str:
        """Why the two cannot be paired image by image; "" when they can."""
        if self.classes != other.classes:
            return f"other classes: {_first(other.classes, self.classes)}"
        ours, theirs = self.predictions, other.predictions
        split = f"split {other.split_hash[:12]}, here {self.split_hash[:12]}"
        if list(ours["id"]) != list(theirs["id"]):
            shared = len(set(ours["id"]) & set(theirs["id"]))
            return f"another test split ({split}): {shared} of its {len(theirs)} images are among the {len(ours)} here"
        changed = count_target_mismatches(self.task, ours, theirs, self.classes)
        return f"the same test images, but {changed} have another label now ({split})" if changed else ""

    def doubt(self, other: GateEvidence) -> str:
        """A caution where images are paired by names alone and may have changed; "" for none."""
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
    task = find_task(read_json(trained / "model.json")["task"])
    common = _read(task, evaluated / FILES[0], evaluated / FILES[1], prepared / FILES[2])
    table = evaluated / "slices.csv"
    names = list(dict.fromkeys(pd.read_csv(table, dtype=str)["slice"])) if table.is_file() else []
    origin = read_json(trained / "run.json")
    return GateEvidence(
        **common,
        source=str(origin.get("dvc", {}).get(SOURCE_HASH, "")),
        slices=names,
        export=read_json(export) if export.is_file() else {},
    )


def of_folder(folder: Path, task: Task, source: str = "") -> GateEvidence:
    """Of `FILES` in one folder, as MLflow keeps them (FileNotFoundError, ValueError as `of_checkout`)."""
    return GateEvidence(**_read(task, *(folder / name for name in FILES)), source=source)


def _read(task: Task, predictions: Path, metrics: Path, card: Path) -> dict[str, Any]:
    facts, scores, frame = DatasetCard.read(card), read_json(metrics), _table(task, predictions)
    # Both files may be there and be of two runs (one stage repeated by hand): the predictions must give the score.
    lead = scores_of(task, frame, task.evaluation.names(facts)).get(task.lead, np.nan)
    if not abs(lead - scores.get(task.lead, np.nan)) <= 1e-6:
        raise ValueError(
            f"{metrics} says {task.lead} {scores.get(task.lead)}, {predictions} {lead:.6f}: not of one run"
        )
    values = {"predictions": frame, "metrics": scores, "classes": facts.classes, "split_hash": facts.split_hash}
    return {"task": task, **values}


def _table(task: Task, path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: run `dvc repro` to make it")
    try:
        return pd.read_parquet(path, columns=[*SOURCE_COLUMNS, *task.evaluation.COMPARED])
    except Exception as error:  # pyarrow has several kinds for a file that is damaged or lacks a column
        raise ValueError(f"{path} is not a table of predictions ({' '.join(str(error).split())[:200]})") from None


def collect(folder: Path, evaluated: Path = EVALUATE, prepared: Path = PREPARED) -> Path:
    """Copy `FILES` of the checkout, and export.json where there is one, into `folder`; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copyfile((prepared if name == "card.json" else evaluated) / name, folder / name)
    if EXPORT.is_file():
        shutil.copyfile(EXPORT, folder / EXPORT.name)
    return folder


def digest(trained: Path = TRAIN, evaluated: Path = EVALUATE) -> str:
    """16 hexadecimal digits over weights, predictions and exported file: the identity of a version in the registry."""
    total = hashlib.sha256()
    for path in (trained / "model.safetensors", evaluated / FILES[0], *([SHIPPED] if SHIPPED.is_file() else [])):
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: run `dvc repro` to make it")
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()[:16]
