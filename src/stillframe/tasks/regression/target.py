"""Numbers: one or several an image, from columns of a table; one also from the names of folders or from idx files."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic.dataclasses import dataclass

from stillframe.config import STRICT, AugmentConfig, DataConfig, checked, nearest, transform_names
from stillframe.ingest.ingest_config import IngestConfig
from stillframe.ingest.listing import SourceRow
from stillframe.ingest.split_assignment import merge_rare
from stillframe.ingest.target import Cells, Counts, StoredTarget, Target, TargetDescription
from stillframe.paths import PARAMS
from stillframe.store.columns import TargetColumn
from stillframe.types import SPLITS, DatasetCard

STRATA = 10  # of the split, by quantiles
# Transforms of albumentations after which an angle in the image is another one, whatever their arguments
TURNING = set(
    "Affine D4 ElasticTransform GridDistortion GridElasticDeform HorizontalFlip Morphological OpticalDistortion "
    "Perspective PiecewiseAffine RandomGridShuffle RandomRotate90 Rotate SafeRotate ShiftScaleRotate SquareSymmetry "
    "ThinPlateSpline Transpose VerticalFlip".split()
)


@dataclass(frozen=True, config=STRICT)
class NumbersConfig:
    """Section `data.target`: which numbers."""

    columns: list[str]  # of the table, one a number
    names: list[str]  # of each number; []: those of the columns
    units: list[str]  # of each, e.g. "years", "" of a plain number; []: all are plain
    angles: list[str]  # names of those that turning or mirroring the image would change


def read_config(data: DataConfig) -> NumbersConfig:
    """Section `data.target`; null: the column `data.columns.label`, without a unit.

    Raises:
        ValueError: an unknown or missing key, other than one name and unit a column, an angle that is none of the
            numbers, or an angle in images of which `data.symmetry` says that they may be turned.
    """
    if data.target is None:
        return NumbersConfig([data.columns.label], ["value"], [""], [])
    section = checked("data.target", NumbersConfig, data.target, str(PARAMS))
    columns, angles = section.columns, section.angles
    names, units = section.names or columns, section.units or [""] * len(columns)
    for key, values in (("columns", columns), ("names", names)):
        if not values or len(set(values)) < len(values):
            raise ValueError(f"data.target.{key} = {values!r}: write one or more, each once")
    for key, values in (("names", names), ("units", units)):
        if len(values) != len(columns):
            raise ValueError(f"data.target.{key} = {values!r}: write one for each of {columns!r}, or []")
    for name in angles:
        if name not in names:
            raise ValueError(f"data.target.angles: {name!r} is none of the numbers: {nearest(name, names)}")
    if angles and data.symmetry != "none":
        raise ValueError(f"data.symmetry = {data.symmetry!r} changes data.target.angles = {angles!r}: set it to none")
    return NumbersConfig(columns, names, units, angles)


def to_number(text: str) -> float:
    """The number that a text is; NaN where it is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def from_cells(cells: Cells, data: DataConfig, folder: Path) -> tuple[tuple[str, ...], str]:
    """The cells of a row of a table that hold the numbers, as text."""
    return tuple(cells[name].strip() for name in read_config(data).columns), ""


def merge(values: Sequence[tuple[str, ...]]) -> tuple[tuple[str, ...], str]:
    """The texts of a file that a table lists more than once: different numbers are a conflict."""
    different = {tuple(map(to_number, texts)): source_text(texts) for texts in values}
    return values[0], f"conflict: listed with {' | '.join(sorted(different.values()))}" if len(different) > 1 else ""


def source_text(value: Sequence[str]) -> str:
    """The cells as they stand in the source."""
    return ", ".join(value)


def describe(frame: pd.DataFrame, rows: list[SourceRow], data: DataConfig, folder: Path) -> TargetDescription:
    """Read the texts as numbers, into the column `numbers` (name -> number); what is not finite is refused."""
    names, numbers, problems = read_config(data).names, [], []
    for row in rows:
        if len(row.target) != len(names):
            raise ValueError(
                f"{folder} gives one number an image, data.target.columns names {len(names)}: set data.table"
            )
        numbers.append({name: to_number(text) for name, text in zip(names, row.target, strict=True)})
        bad = [
            f"{name} = {text!r}"
            for name, text in zip(names, row.target, strict=True)
            if not math.isfinite(to_number(text))
        ]
        problems.append(f"not a finite number: {', '.join(bad)}" if bad else "")
    frame["numbers"] = pd.Series(numbers, index=frame.index, dtype=object)
    frame["text"] = frame["agreement"] = [", ".join(f"{value!r}" for value in row.values()) for row in numbers]
    frame["classes"] = pd.Series([[] for _ in rows], index=frame.index, dtype=object)
    frame["reason"] = frame["reason"].where(frame["reason"] != "", problems)
    hint = f"; data.target.columns = {names!r}: are these the columns with numbers?"
    return TargetDescription(hints={"not a finite number": hint})


def stored(config: IngestConfig, classes: list[str]) -> list[TargetColumn]:
    """One column with all numbers of an image."""
    return [TargetColumn("value", "floats", len(json.loads(config.section)["columns"]) if config.section else 1)]


def store(row: Any, part: dict[str, Any], classes: list[str], config: IngestConfig) -> StoredTarget:
    """The numbers of a row."""
    return StoredTarget({"value": list(row.numbers.values())})


def strata(usable: pd.DataFrame, least: int) -> pd.Series[Any]:
    """The quantile of the (first) number; all samples of a group are in that of their mean."""
    number = usable["numbers"].map(lambda row: next(iter(row.values())))
    mean = number.groupby(usable["group"]).transform("mean")
    count = max(1, min(STRATA, usable["group"].nunique() // (2 * least)))
    edges = np.unique(np.quantile(mean, np.linspace(0, 1, count + 1)[1:-1]))
    quantile = pd.Series(np.searchsorted(edges, mean, side="right"), index=usable.index).astype(str)
    return merge_rare(quantile, usable["group"], least)


def numbers(usable: pd.DataFrame) -> pd.DataFrame:
    """The numbers of rows, a column each; by their names."""
    return pd.DataFrame(usable["numbers"].to_list(), index=usable.index)


def card(usable: pd.DataFrame, classes: list[str], counts: Counts, data: DataConfig) -> dict[str, Any]:
    """Names, units, and what the numbers of the train split are like.

    Raises:
        ValueError: a number that is the same in all train images.
    """
    section, train = read_config(data), numbers(usable[usable["split"] == "train"])
    for name, count in train.nunique().items():
        if count < 2:
            raise ValueError(
                f"data.target.columns: {name!r} is {train[name].iloc[0]:g} in every train image: nothing to learn"
            )
    facts = {"names": section.names, "units": section.units, "angles": section.angles}
    columns = {"mean": train.mean(), "std": train.std(ddof=0), "min": train.min(), "max": train.max()}
    return {"target": facts | {kind: [float(f"{value:.9g}") for value in values] for kind, values in columns.items()}}


def audit(usable: pd.DataFrame, classes: list[str]) -> dict[str, Any]:
    """Mean, deviation and range of each number, by split."""
    split_numbers = {split: numbers(usable[usable["split"] == split]) for split in SPLITS}
    kinds = ("mean", "std", "min", "max")
    return {"target": {split: table.agg(list(kinds)).round(9).to_dict() for split, table in split_numbers.items()}}


def check_augmentation(augment: AugmentConfig, card: DatasetCard) -> None:
    """Raise ValueError for transforms that turn, mirror or bend the image, where a number is an angle in it."""
    for key in ("offline", "online"):
        turning = sorted(transform_names(getattr(augment, key)) & TURNING)
        if card.target["angles"] and turning:
            raise ValueError(
                f"augment.{key}: {', '.join(turning)} would change data.target.angles = {card.target['angles']!r}, but "
                "not the number: leave it out (augment=none has none of them)"
            )


TARGET = Target(
    module=__name__,
    noun="numbers",
    parse=lambda text: (text,),
    describe=describe,
    stored=stored,
    store=store,
    table_columns=lambda data: read_config(data).columns,
    from_cells=from_cells,
    merge=merge,
    source_text=source_text,
    strata=strata,
    card=card,
    audit=audit,
    numbers=numbers,
    check_augmentation=check_augmentation,
)
