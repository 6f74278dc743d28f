"""Several labels an image: a table's column of labels with a separator, 0/1 columns, or Roboflow's `_classes.csv`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from pydantic import Field
from pydantic.dataclasses import dataclass

from stillframe.config import DataConfig, checked
from stillframe.config.values import STRICT
from stillframe.ingest.ingest_config import IngestConfig
from stillframe.ingest.listing import IMAGE_SUFFIXES, SPLIT_NAMES, Listing, SourceRow, to_id
from stillframe.ingest.split_assignment import merge_rare
from stillframe.ingest.tables import canonical, read_frame, read_table
from stillframe.ingest.target import Cells, Counts, Onboarding, StoredTarget, Target, TargetDescription
from stillframe.natural_sort import natural_key
from stillframe.paths import PARAMS
from stillframe.store.columns import TargetColumn
from stillframe.tasks.classification.target import UNKNOWN, class_of_label
from stillframe.types import SPLITS

CLASS_TABLE = "_classes.csv"  # of Roboflow: the first column names the file, each other one is a label with 0 or 1
VALUES = {"0": False, "1": True, "false": False, "true": True}


@dataclass(frozen=True, config=STRICT)
class LabelsConfig:
    """Section `data.target`: how the table gives the labels of an image."""

    columns: list[str]  # each cell holds labels; [] and no flags: the column data.columns.label
    separator: Annotated[str, Field(min_length=1)]  # between the labels of a cell
    flags: list[str]  # columns of 0 and 1, each named as its label


def read_config(data: DataConfig) -> LabelsConfig:
    """Section `data.target`, with its columns (ValueError: an unknown or missing key); null: separator "|"."""
    section = LabelsConfig([], "|", [])
    if data.target is not None:
        section = checked("data.target", LabelsConfig, data.target, str(PARAMS))
    return section if section.columns or section.flags else replace(section, columns=[data.columns.label])


def from_cells(cells: Cells, data: DataConfig, folder: Path) -> tuple[tuple[str, ...], str]:
    """The labels of a row of the table, and what is wrong with it; a row without labels is right."""
    section, problem = read_config(data), ""
    parts = [part.strip() for name in section.columns for part in cells[name].split(section.separator)]
    for name in section.flags:
        value = VALUES.get(canonical(cells[name].strip()).lower())
        parts.append(name.strip() if value else "")
        if value is None:
            problem = f"label not 0 or 1: {data.table or folder}, column {name!r} = {cells[name]!r}"
    return tuple(dict.fromkeys(filter(None, parts))), problem


def merge(values: Sequence[tuple[str, ...]]) -> tuple[tuple[str, ...], str]:
    """The labels of a file that a table lists more than once: different sets are a conflict."""
    different = sorted({", ".join(sorted(map(canonical, labels))) or "no label" for labels in values})
    return values[0], f"conflict: listed with {' and '.join(different)}" if len(different) > 1 else ""


def class_tables(folder: Path) -> list[Path]:
    """The files `_classes.csv`: of train/, valid/ and test/, or else of the folder itself."""
    splits = sorted(path for path in folder.iterdir() if path.name.lower() in SPLIT_NAMES)
    return [path for root in splits if (path := root / CLASS_TABLE).is_file()] or [
        path for path in [folder / CLASS_TABLE] if path.is_file()
    ]


def read_class_tables(folder: Path, data: DataConfig, layout: str) -> Listing:
    """The rows of the files `_classes.csv`; images beside one that it does not list are counted.

    Raises:
        ValueError: the files have different columns, or a label without an image that is not in `data.leave_out`.
    """
    rows, ignored, first = [], Counter[str](), list[str]()
    roles = {data.columns.split, data.columns.group, data.columns.weight, *data.columns.slices}
    for path in class_tables(folder):
        name, *columns = read_frame(path, replace(data.columns, path="filename")).columns
        columns = [column for column in columns if column not in roles]
        first = first or columns
        if set(columns) != set(first):
            raise ValueError(f"{path}: its labels {columns} are not those of the other splits, {first}: complete it")
        section = {"columns": [], "separator": "|", "flags": columns}
        table = replace(data, table=CLASS_TABLE, columns=replace(data.columns, path=name), target=section)
        listing, root = read_table(path.parent, table, TARGET), path.parent
        listed = {row.id for row in listing.rows}
        images = (to_id(file.name) for file in root.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
        ignored += Counter({**listing.ignored, f"not listed in {CLASS_TABLE}": sum(i not in listed for i in images)})
        if root != folder:  # ids are relative to the folder of the source
            prefix, split = to_id(root.name), SPLIT_NAMES[root.name.lower()]
            rows += [replace(row, id=f"{prefix}/{row.id}", split=split) for row in listing.rows]
        else:
            rows += listing.rows
    check_columns(first, rows, data, folder)
    return Listing(layout, sorted(rows, key=lambda row: row.id), dict(sorted(ignored.items())), [])


def check_columns(columns: Sequence[str], rows: list[SourceRow], data: DataConfig, folder: Path) -> None:
    """Raise ValueError for a 0/1 column without any 1, unless `data.leave_out` names it."""
    present = {label for row in rows for label in row.target} | set(data.leave_out)
    empty = [name.strip() for name in columns if name.strip() not in present]
    if empty:
        raise ValueError(f"{folder}: no image has the label(s) {empty}: add them to data.leave_out, or images of them")


def select(rows: list[SourceRow], data: DataConfig) -> tuple[list[SourceRow], dict[str, int]]:
    """All rows without the labels of `data.leave_out`, and how many images have each of those."""
    spelling = {canonical(label): label for label in data.leave_out}
    counts = Counter(spelling[canonical(label)] for row in rows for label in row.target if canonical(label) in spelling)
    used = [replace(row, target=tuple(x for x in row.target if canonical(x) not in spelling)) for row in rows]
    return used, {label: counts[label] for label in data.leave_out}


def describe(frame: pd.DataFrame, rows: list[SourceRow], data: DataConfig, folder: Path) -> TargetDescription:
    """Name the labels: those of `data.classes`, or each as it is, in natural order.

    Raises:
        ValueError: no image has a label, or a 0/1 column has no 1.
    """
    check_columns(read_config(data).flags, rows, data, folder)
    owner = class_of_label(data)
    labels = {label for row in rows for label in row.target if not row.problem.startswith("conflict")}
    if not labels:
        raise ValueError(f"{folder}: no image has a label: check data.columns.label and data.target")
    names = {label: label for label in labels} if data.classes is None else {}
    names |= {label: owner[canonical(label)] for label in labels if canonical(label) in owner}
    classes = sorted(labels, key=natural_key) if data.classes is None else list(data.classes)
    order = {name: k for k, name in enumerate(classes)}
    of_row = [sorted({names[label] for label in row.target if label in names}, key=order.__getitem__) for row in rows]
    frame["classes"] = pd.Series(of_row, index=frame.index, dtype=object)
    frame["text"] = frame["agreement"] = [" | ".join(present) or "no label" for present in of_row]
    unknown = pd.Series([[x for x in row.target if x not in names] for row in rows], index=frame.index, dtype=object)
    refused = unknown.map(bool) & (frame["reason"] == "")
    frame.loc[refused, "reason"] = f"{UNKNOWN}: " + unknown[refused].map(", ".join)
    hint = f"; labels in the source: {', '.join(sorted(labels)[:12])}"
    return TargetDescription(
        classes, labels, {UNKNOWN: hint}, "check data.target.separator, or set task=classification"
    )


def store(row: Any, part: dict[str, Any], classes: list[str], config: IngestConfig) -> StoredTarget:
    """Whether each label is present."""
    return StoredTarget({"labels": [name in row.classes for name in classes]})


def strata(usable: pd.DataFrame, least: int) -> pd.Series[Any]:
    """The rarest label of an image that has images enough for all splits, so that every split gets its share of it."""
    pairs = usable[["classes", "group"]].explode("classes").dropna()
    count = pairs.groupby("classes")["group"].nunique()
    count = count[count >= least]

    def rarest(present: list[str]) -> str:
        return min(
            (name for name in present if name in count), key=lambda name: (count[name], name), default="no label"
        )

    return merge_rare(usable["classes"].map(rarest), usable["group"], least)


def card(usable: pd.DataFrame, classes: list[str], counts: Counts, data: DataConfig) -> dict[str, Any]:
    """Images of the train split: those with a label are in the card's counts."""
    return {"target": {"train_samples": int((usable["split"] == "train").sum())}}


def audit(usable: pd.DataFrame, classes: list[str]) -> dict[str, Any]:
    """How many images of each split have how many labels."""
    sizes = {split: usable.loc[usable["split"] == split, "classes"].map(len).value_counts() for split in SPLITS}
    return {
        "target": {split: {f"{n} labels": int(size[n]) for n in sorted(size.index)} for split, size in sizes.items()}
    }


def onboarding(folder: Path, table: str | None) -> Onboarding | None:
    """A folder with `_classes.csv`."""
    return Onboarding("multilabel") if table is None and class_tables(folder) else None


TARGET = Target(
    module=__name__,
    noun="labels",
    parse=lambda text: (text,),
    describe=describe,
    stored=lambda config, classes: [TargetColumn("labels", "bools", len(classes))],
    store=store,
    table_columns=lambda data: [*read_config(data).columns, *read_config(data).flags],
    from_cells=from_cells,
    merge=merge,
    detect=lambda folder, data: CLASS_TABLE if data.table is None and class_tables(folder) else "",
    read=read_class_tables,
    select=select,
    source_text=" | ".join,
    strata=strata,
    card=card,
    audit=audit,
    numbers=lambda usable: pd.DataFrame({"labels of an image": usable["classes"].map(len)}),
    onboarding=onboarding,
)
