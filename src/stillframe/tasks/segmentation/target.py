"""Masks: one class a pixel. Files beside the images, a column of a table, or COCO files; resized or cut into tiles."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from stillframe.config import DataConfig, TargetFilesConfig
from stillframe.drawing.class_map import overlay_class_map
from stillframe.ingest.coco import Annotation, read_coco
from stillframe.ingest.decode import DecodedImage, Pixels
from stillframe.ingest.ingest_config import IngestConfig
from stillframe.ingest.listing import Listing, SourceRow, to_id
from stillframe.ingest.pairs import find_pairs, read_pairs
from stillframe.ingest.split_assignment import merge_rare
from stillframe.ingest.tables import relative_id
from stillframe.ingest.target import (
    Cells,
    Counts,
    Onboarding,
    Region,
    StoredTarget,
    SurveyedTarget,
    Target,
    TargetDescription,
)
from stillframe.store.columns import TargetColumn
from stillframe.store.encoding import decode_map, encode_map
from stillframe.tasks.segmentation import IGNORE, mask_classes
from stillframe.tasks.segmentation.mask_files import MISSING, MaskSource, read_mask
from stillframe.types import SPLITS

# --- in the source ----------------------------------------------------------------------------------------------------


def masks_of(data: DataConfig) -> TargetFilesConfig:
    """Section `data.masks` (ValueError: it is null)."""
    if data.masks is None:
        raise ValueError("task=segmentation needs a section data.masks: choose data=masks, see conf/data/masks.yaml")
    return data.masks


def parse(text: str) -> MaskSource:
    """Class folders and idx files have no masks."""
    raise ValueError(f"{text!r} is a label, not a mask: set data.format to auto, masks, coco or table")


def detect(folder: Path, data: DataConfig) -> str:
    """The layout of a folder with masks: "table", "coco" or "masks" (ValueError: none of them is there)."""
    masks = masks_of(data)
    if data.table is not None:
        return "table"
    if masks.coco:
        return "coco"
    if find_pairs(folder, masks.images, masks.folder):
        return "masks"
    raise ValueError(
        f"{folder} has no folders {masks.images}/ and {masks.folder}/ (data.masks.images and data.masks.folder), "
        "no table is named (data.table with data.masks.column), and no COCO file (data.masks.coco)"
    )


def read(folder: Path, data: DataConfig, layout: str) -> Listing:
    """Rows with masks of two folders side by side or of COCO files (ValueError: they are not there)."""
    masks = masks_of(data)
    if layout == "coco":
        return read_coco(folder, masks.coco, masks.images, _from_annotations, key="data.masks.coco")
    if not find_pairs(folder, masks.images, masks.folder):
        raise ValueError(f"{folder} has no {masks.images}/ beside {masks.folder}/ (data.masks.images, .folder)")
    ignored: Counter[str] = Counter()
    pairs, unused = read_pairs(folder, masks.images, masks.folder, masks.suffix, ignored)
    if unused:
        ignored["mask without an image"] += unused
    rows = []
    for pair in pairs:
        source = MaskSource(tuple((label, to_id(file)) for label, file in pair.files))
        missing = "" if pair.files else f"{MISSING}: nothing in {pair.folder} is named like it"
        rows.append(SourceRow(to_id(pair.image), source, pair.split, problem=pair.problem or missing))
    rows.sort(key=lambda row: row.id)
    return Listing("masks", rows, dict(sorted(ignored.items())), [])


def _from_annotations(height: int, width: int, annotations: list[Annotation]) -> MaskSource:
    shapes = [(label, annotation["segmentation"]) for label, annotation in annotations]
    return MaskSource((), json.dumps([height, width, shapes]))


def table_columns(data: DataConfig) -> list[str]:
    """The column of the masks' paths (ValueError: none is named)."""
    column = masks_of(data).column
    if column is None:
        raise ValueError("data.masks.column is null: name the column of the table that has the masks' paths")
    return [column]


def from_cells(cells: Cells, data: DataConfig, folder: Path) -> tuple[MaskSource, str]:
    """The mask of a row of a table."""
    mask_id, problem = relative_id(folder, cells[table_columns(data)[0]])
    return MaskSource((("", mask_id),)), f"mask {problem}" if problem else ""


def merge(sources: Sequence[MaskSource]) -> tuple[MaskSource, str]:
    """The mask of a file that a table lists more than once: different ones are a conflict."""
    files = " | ".join(sorted({file for source in sources for _, file in source.files}))
    return sources[0], f"conflict: listed with the masks {files}" if len(set(sources)) > 1 else ""


def select(rows: list[SourceRow], data: DataConfig) -> tuple[list[SourceRow], dict[str, int]]:
    """All rows (ValueError: `data.leave_out`, which is for labels)."""
    if data.leave_out:
        raise ValueError(f"data.leave_out = {data.leave_out}: what masks leave out is named in data.masks.ignore")
    return rows, {}


# --- beside the decoded image -----------------------------------------------------------------------------------------


def survey(row: SourceRow, folder: Path, config: IngestConfig, decoded: DecodedImage, content: bytes) -> SurveyedTarget:
    """Read the mask of a row; its regions are stored with the mask's own labels, for classes are not known yet."""
    mask = read_mask(folder, row.target, content, decoded, config.max_megapixels)

    def part(region: Region) -> dict[str, Any]:
        region_HW = region.values(mask.local_HW, IGNORE)
        return {
            "mask": encode_map(region_HW, config.encoding),
            "mask_px": count_values(region_HW, len(mask.labels)),
        }

    columns = {"labels": mask.labels, "colours": mask.colours, "mask_hash": mask.digest}
    return SurveyedTarget({**columns, "label_px": count_values(mask.local_HW, len(mask.labels))}, part)


def count_values(values_HW: Pixels, n_values: int) -> list[int]:
    """Pixels of each of the values 0..n-1; some rows at a time, for numpy counts with eight bytes a pixel."""
    counts = np.zeros(IGNORE + 1, dtype=np.int64)
    for first in range(0, values_HW.shape[0], 512):
        counts += np.bincount(values_HW[first : first + 512].ravel(), minlength=IGNORE + 1)
    return [int(count) for count in counts[:n_values]]


# --- all together, and in the store -----------------------------------------------------------------------------------


def describe(frame: pd.DataFrame, rows: list[SourceRow], data: DataConfig, folder: Path) -> TargetDescription:
    """Name the classes of all masks."""
    classes = mask_classes.describe(frame, rows, data, folder)
    spellings = set(frame["labels"].explode().dropna().astype(str)) - {""}
    return TargetDescription(classes, spellings, one_class="is the value of another one in data.masks.ignore?")


def stored(config: IngestConfig, classes: list[str]) -> list[TargetColumn]:
    """The mask, and the class that it shows most of beside the background."""
    return [TargetColumn("label", "int"), TargetColumn("mask", "map")]


def store(row: Any, part: dict[str, Any], classes: list[str], config: IngestConfig) -> StoredTarget:
    """The mask of one region as class indices, and its pixels of each class."""
    n_classes, table = len(classes), np.full(256, IGNORE, dtype=np.uint8)
    table[: len(row.lut)] = row.lut
    mask_HW = table[decode_map(part["mask"], config.encoding, config.image_size, config.image_size)]
    index = np.asarray(row.lut, dtype=np.int64)
    px_K = np.bincount(index, weights=part["mask_px"], minlength=n_classes)[:n_classes].astype(np.int64)
    label = mask_classes.largest_class(px_K)
    return StoredTarget({"label": label, "mask": encode_map(mask_HW, config.encoding)}, px_K)


def strata(usable: pd.DataFrame, least: int) -> pd.Series[Any]:
    """The class that an image shows most of; a class needs no image that it fills."""
    return merge_rare(usable["text"], usable["group"], least)


def card(usable: pd.DataFrame, classes: list[str], counts: Counts, data: DataConfig) -> dict[str, Any]:
    """Pixels of each class in the prepared masks, by split."""
    none = np.zeros(len(classes), np.int64)
    return {"pixels": {split: dict(zip(classes, counts.get(split, none).tolist(), strict=True)) for split in SPLITS}}


def audit(usable: pd.DataFrame, classes: list[str]) -> dict[str, Any]:
    """Pixels of each class in the masks before resizing, by split."""
    by_split = {split: usable.loc[usable["split"] == split, "px"] for split in SPLITS}
    return {
        "pixels": {
            split: {name: int(sum(int(px_K[i]) for px_K in rows)) for i, name in enumerate(classes)}
            for split, rows in by_split.items()
        }
    }


def draw(image_HWC: Pixels, maps: Mapping[str, Pixels]) -> Pixels:
    """An image under the colours of its mask."""
    return overlay_class_map(image_HWC, maps["mask"])


def onboarding(folder: Path, table: str | None) -> Onboarding | None:
    """A folder with images/ beside masks/."""
    return (
        Onboarding("masks", model="unet", min_size=32)
        if table is None and find_pairs(folder, "images", "masks")
        else None
    )


TARGET = Target(
    module=__name__,
    noun="labels",
    parse=parse,
    describe=describe,
    stored=stored,
    store=store,
    table_columns=table_columns,
    from_cells=from_cells,
    merge=merge,
    detect=detect,
    read=read,
    select=select,
    source_text=lambda source: "",
    problems=("mask",),
    files=lambda source: [file for _, file in source.files],
    columns=(
        pa.field("labels", pa.list_(pa.string())),  # of the mask's values
        pa.field("colours", pa.list_(pa.string())),  # in the mask's palette, "" where there is none
        pa.field("label_px", pa.list_(pa.int64())),  # pixels of each label before resizing
        pa.field("mask_hash", pa.string()),
    ),
    part_columns=(
        pa.field("mask", pa.large_binary()),  # indices into the labels of this image's mask
        pa.field("mask_px", pa.list_(pa.int64())),  # pixels of each label in the region
    ),
    overlap=lambda data: masks_of(data).overlap,
    survey=survey,
    strata=strata,
    card=card,
    audit=audit,
    draw=draw,
    onboarding=onboarding,
)
