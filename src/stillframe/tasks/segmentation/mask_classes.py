"""Which value of a mask is which class, once all masks have been read."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stillframe.config import ColumnsConfig, DataConfig
from stillframe.ingest.listing import SourceRow
from stillframe.ingest.tables import canonical, read_frame
from stillframe.natural_sort import natural_key
from stillframe.tasks.segmentation import IGNORE
from stillframe.tasks.segmentation.mask_files import UNCOVERED

NAMES, VALUES = ("name", "class", "class_name", "label"), ("value", "id", "index", "class_id", "colour", "color", "hex")
RED, GREEN, BLUE = ("r", "red"), ("g", "green"), ("b", "blue")
MOST_CLASSES = IGNORE  # classes, with indices 0..254


@dataclass(frozen=True)
class MaskClasses:
    """Labels of masks and their classes.

    Attributes:
        classes: names, in the order of the indices.
        owner: canonical label -> class.
        ignored: canonical labels that are neither learnt nor scored.
    """

    classes: list[str]
    owner: dict[str, str]
    ignored: set[str] = field(default_factory=set)

    def index(self, label: str, colour: str) -> int | None:
        """The class index of a label, IGNORE, or None for one that is not known.

        A palette's number that is not known is looked up by its colour, and a gray colour by its value.
        """
        for spelling in (label, _gray_spelling(label), colour):
            if spelling in self.owner:
                return self.classes.index(self.owner[spelling])
            if spelling in self.ignored:
                return IGNORE
        return None


def canonical_label(label: str) -> str:
    """A label as it is compared: "255,0,0" and "#FF0000" are "#ff0000", "7.0" is "7"."""
    text = label.strip()
    parts = re.split(r"[\s,;]+", text.strip("()[]"))
    if len(parts) == 3 and all(part.isdigit() and int(part) < 256 for part in parts):
        return "#" + bytes(map(int, parts)).hex()
    return text.lower() if re.fullmatch(r"#[0-9a-fA-F]{6}", text) else canonical(text)


def _gray_spelling(label: str) -> str | None:
    """A gray value as a colour, and the other way round."""
    if re.fullmatch(r"#([0-9a-f]{2})\1\1", label):
        return str(int(label[1:3], 16))
    return f"#{int(label):02x}{int(label):02x}{int(label):02x}" if label.isdigit() and int(label) < 256 else None


def describe(frame: pd.DataFrame, rows: list[SourceRow], data: DataConfig, folder: Path) -> list[str]:
    """Give every surveyed row its classes, and return their names in order.

    Fills in the columns of `Target.describe`; `text` is the most frequent class beside the first, or else the first.
    Also lut (class index of each of the mask's labels) and px (pixels of each class, before resizing).

    Raises:
        ValueError: the table of the classes cannot be read, or there are too many classes.
    """
    naming = _naming(frame, data, folder)
    if not (frame["reason"] == "").any():  # no mask was read: validation says what is wrong with each
        naming = MaskClasses(naming.classes or ["unknown"], naming.owner, naming.ignored)
    if not 0 < len(naming.classes) <= MOST_CLASSES:
        raise ValueError(f"{len(naming.classes)} classes were found in the masks: name them in data.classes")
    surveyed = frame[["reason", "labels", "colours", "label_px"]].itertuples(index=False)
    values = [_of_row(naming, row, record) for row, record in zip(rows, surveyed, strict=True)]
    for name in ("lut", "classes", "px", "text", "reason"):
        frame[name] = pd.Series([value[name] for value in values], index=frame.index, dtype=object)
    frame["agreement"] = frame["mask_hash"]
    return naming.classes


def _of_row(naming: MaskClasses, row: SourceRow, record: Any) -> dict[str, Any]:
    """The new columns of one row."""
    n_classes = len(naming.classes)
    unusable = {"lut": [], "classes": [], "px": np.zeros(n_classes, np.int64), "text": naming.classes[0]}
    if record.reason:
        return {**unusable, "reason": record.reason}
    lut = [naming.index(label, colour) for label, colour in zip(record.labels, record.colours, strict=True)]
    file = row.target.files[0][1] if row.target.files else row.id
    if None in lut:
        label = record.labels[lut.index(None)] or "no class's file covers it"
        return {**unusable, "reason": f"mask value not in data.classes: {label!r} in {file}"}
    px_K: NDArray[np.int64] = np.zeros(IGNORE + 1, dtype=np.int64)
    np.add.at(px_K, np.array(lut, dtype=np.int64), np.asarray(record.label_px, dtype=np.int64))
    px_K = px_K[:n_classes]
    if not px_K.any():
        return {**unusable, "reason": f"mask without a class: every pixel of {file} is ignored"}
    classes = [name for name, count in zip(naming.classes, px_K, strict=True) if count]
    return {"lut": lut, "classes": classes, "px": px_K, "text": naming.classes[largest_class(px_K)], "reason": ""}


def largest_class(px_K: NDArray[np.int64]) -> int:
    """The class with most pixels beside the first, which usually is the background; 0 where there is no other."""
    return 1 + int(px_K[1:].argmax()) if px_K[1:].any() else 0


def _naming(frame: pd.DataFrame, data: DataConfig, folder: Path) -> MaskClasses:
    masks = data.masks
    assert masks is not None
    present = {str(label) for labels in frame["labels"] for label in labels}
    ignored = {canonical_label(label) for label in masks.ignore}
    if data.classes is not None:
        owner = {canonical_label(label): name for name, labels in data.classes.items() for label in labels}
        classes = list(data.classes)
    elif masks.colours is not None:
        owner = read_colours(folder / masks.colours)
        classes = list(dict.fromkeys(owner.values()))
    else:
        owner = _discovered(present - {UNCOVERED}, ignored)
        classes = sorted(set(owner.values()), key=natural_key)
    if UNCOVERED in present:
        if masks.background is None:
            ignored.add(UNCOVERED)
        else:
            owner[UNCOVERED] = owner.get(masks.background, masks.background)
            classes = classes if owner[UNCOVERED] in classes else [owner[UNCOVERED], *classes]
    return MaskClasses(classes, owner, ignored)


def _discovered(labels: set[str], ignored: set[str]) -> dict[str, str]:
    """Each label as its own class; colours that are all gray are called by their values."""
    gray = all(_gray_spelling(label) for label in labels if label.startswith("#"))
    names = {label: (_gray_spelling(label) or label) if gray and label.startswith("#") else label for label in labels}
    return {label: name for label, name in names.items() if label not in ignored and name not in ignored}


def read_colours(path: Path) -> dict[str, str]:
    """A table of classes: label -> name, from a column of names and one of values or colours, or three of r, g, b.

    Raises:
        ValueError: it is not there, or has no such columns; names them.
    """
    if not path.is_file():
        raise ValueError(f"data.masks.colours: {path} is not there")
    table = read_frame(path, ColumnsConfig("path", "label", None, None, None, None, None, []))
    table.columns = table.columns.str.strip().str.lower()

    def column(names: tuple[str, ...]) -> str | None:
        return next((name for name in names if name in table.columns), None)

    name, value, parts = column(NAMES), column(VALUES), [column(names) for names in (RED, GREEN, BLUE)]
    if name is None or (value is None and None in parts):
        raise ValueError(
            f"{path} (data.masks.colours) has the columns {', '.join(table.columns)}: it needs name, and value or "
            "colour, or r, g and b"
        )
    spellings = [table[parts].agg(",".join, axis=1)] if None not in parts else []
    spellings += [table[value]] if value is not None else []
    pairs = [pair for labels in spellings for pair in zip(table[name], labels, strict=True)]
    return {canonical_label(str(label)): str(text).strip() for text, label in pairs}
