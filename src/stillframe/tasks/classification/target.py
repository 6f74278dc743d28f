"""Labels: one class a sample, by class folder, by a column of a table, or by the numbers of idx files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from stillframe.config import DataConfig
from stillframe.ingest.ingest_config import IngestConfig
from stillframe.ingest.listing import SourceRow
from stillframe.ingest.pairs import find_pairs
from stillframe.ingest.tables import canonical
from stillframe.ingest.target import Onboarding, StoredTarget, Target, TargetDescription
from stillframe.natural_sort import natural_key
from stillframe.store.columns import TargetColumn

UNKNOWN = "label not in data.classes"


def detect(folder: Path, data: DataConfig) -> str:
    """No layout of its own; refuses images beside masks (ValueError), which read by folders would be two classes."""
    if data.masks is not None:
        raise ValueError("data.masks is for task=segmentation; for labels choose data=folder")
    if find_pairs(folder, "images", "masks"):
        raise ValueError(
            f"{folder} holds images/ and masks/: for segmentation choose data=masks, model=unet and "
            "task=segmentation; if they are two classes, set data.format to folders"
        )
    return ""


def merge(labels: Sequence[str]) -> tuple[str, str]:
    """The label of a file that a table lists more than once: different ones are a conflict."""
    different = " | ".join(sorted({canonical(label) for label in labels}))
    return (different, f"conflict: listed with the labels {different}") if " | " in different else (labels[0], "")


def select(rows: list[SourceRow], data: DataConfig) -> tuple[list[SourceRow], dict[str, int]]:
    """The rows whose labels are not in `data.leave_out`, and how many have each of those that are."""
    spelling = {canonical(label): label for label in data.leave_out}
    used, left_out = [], dict.fromkeys(data.leave_out, 0)
    for row in rows:
        if (label := canonical(row.target)) in spelling:
            left_out[spelling[label]] += 1
        else:
            used.append(row)
    return used, left_out


def class_of_label(data: DataConfig) -> dict[str, str]:
    """Canonical label -> class of `data.classes` (ValueError: a label in two classes, or also in `data.leave_out`)."""
    owner: dict[str, str] = {}
    left_out = {canonical(label) for label in data.leave_out}
    for name, labels in (data.classes or {}).items():
        for label in labels:
            if owner.setdefault(canonical(label), name) != name or canonical(label) in left_out:
                raise ValueError(
                    f"data.classes.{name}: label {label!r} is also in {owner[canonical(label)]!r} or data.leave_out"
                )
    return owner


def describe(frame: pd.DataFrame, rows: list[SourceRow], data: DataConfig, folder: Path) -> TargetDescription:
    """Name the classes: those of `data.classes`, or each label as its own class, in natural order."""
    owner = class_of_label(data)
    labels = {row.target for row in rows if row.target and not row.problem.startswith("conflict")}
    if data.classes is not None:
        names = {label: owner[canonical(label)] for label in labels if canonical(label) in owner}
        classes = list(data.classes)
    else:
        names, classes = {label: label for label in labels}, sorted(labels, key=natural_key)
    text = pd.Series([names.get(row.target, "") for row in rows], index=frame.index, dtype=object)
    frame["text"] = frame["agreement"] = text
    frame["classes"] = pd.Series([[name] if name else [] for name in text], index=frame.index, dtype=object)
    unknown = (text == "") & (frame["reason"] == "")
    frame.loc[unknown, "reason"] = f"{UNKNOWN}: " + frame.loc[unknown, "source_text"].astype(str)
    spellings = {str(label) for label in frame["source_text"]}
    return TargetDescription(
        classes,
        spellings - {""},
        {UNKNOWN: f"; labels in the source: {', '.join(sorted(spellings)[:12])}"},
        "is data.path one folder too high or too low?",
    )


def stored(config: IngestConfig, classes: list[str]) -> list[TargetColumn]:
    """One column: the class index."""
    return [TargetColumn("label", "int")]


def store(row: Any, part: dict[str, Any], classes: list[str], config: IngestConfig) -> StoredTarget:
    """The class index of a row."""
    return StoredTarget({"label": classes.index(row.text)})


def onboarding(folder: Path, table: str | None) -> Onboarding:
    """Any folder of images may hold labels."""
    return Onboarding("folder", fallback=True)


TARGET = Target(
    module=__name__,
    noun="labels",
    parse=str,
    describe=describe,
    stored=stored,
    store=store,
    merge=merge,
    detect=detect,
    select=select,
    onboarding=onboarding,
)
