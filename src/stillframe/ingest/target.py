"""What preprocessing must know of a task's targets: a bundle of plain functions, `TARGET` of `tasks/<name>/target.py`.

A target takes four forms on its way:

    value      what the source says, in `SourceRow.target`: a label, the paths of a mask's files, ...
    surveyed   what a worker process found beside the decoded image, in the columns `Target.columns` of the spool
    described  all targets together, once every file was read: class names, texts, what copies must agree in
    stored     the columns of the prepared split, `Target.stored`

Only `module`, `noun`, `parse`, `describe`, `stored` and `store` are needed; the rest has a meaning for most tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from stillframe.ingest.decode import DecodedImage, Pixels, resize, resize_nearest
from stillframe.ingest.listing import Listing, SourceRow
from stillframe.ingest.tiles import cut

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from numpy.typing import NDArray

    from stillframe.config import AugmentConfig, DataConfig
    from stillframe.ingest.ingest_config import IngestConfig
    from stillframe.store.columns import TargetColumn
    from stillframe.types import DatasetCard

Cells = Mapping[str, str]  # of a row of a table, by the names of its columns
Counts = dict[str, "NDArray[np.int64]"]  # split -> sums of `StoredTarget.counts`


@dataclass(frozen=True)
class Region:
    """Which part of an upright image a prepared sample shows: the whole image resized, or a tile of it as it is.

    Attributes:
        size: side of the prepared sample, px.
        resize: "squash", "pad" or "crop"; "" for a tile.
        top: of the tile, px; 0 of a resized image.
        left: of the tile, px.
    """

    size: int
    resize: str
    top: int = 0
    left: int = 0

    def image(self, image_HWC: Pixels) -> Pixels:
        """The prepared image (size, size, C); what lies beyond the image is black."""
        if self.resize:
            return resize(image_HWC, self.size, self.resize)
        return cut(image_HWC, self.top, self.left, self.size, 0)

    def values(self, values_HW: Pixels, fill: int) -> Pixels:
        """A map of values, one a pixel, moved as the image: no value that was not there, `fill` beyond the image."""
        if self.resize:
            return resize_nearest(values_HW, self.size, self.resize, fill)
        return cut(values_HW, self.top, self.left, self.size, fill)


@dataclass(frozen=True)
class SurveyedTarget:
    """What a worker process found of one target.

    Attributes:
        columns: by the names of `Target.columns`.
        part: for a region of the image the values of `Target.part_columns`.
    """

    columns: dict[str, Any] = field(default_factory=dict)
    part: Callable[[Region], dict[str, Any]] = lambda region: {}


@dataclass(frozen=True)
class TargetDescription:
    """All targets together.

    Attributes:
        classes: names by class index; [] of targets without classes.
        spellings: labels that the source has, for the error about a class without an image.
        hints: kind of a reason for quarantine -> what is added to the error when too many have it.
        one_class: what is probably wrong where there is only one class.
    """

    classes: list[str] = field(default_factory=list)
    spellings: set[str] = field(default_factory=set)
    hints: dict[str, str] = field(default_factory=dict)
    one_class: str = ""


@dataclass(frozen=True)
class StoredTarget:
    """One prepared sample's target.

    Attributes:
        values: by the names of `Target.stored`.
        counts: whatever `Target.card` adds up over a split; None: nothing.
    """

    values: dict[str, Any]
    counts: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Onboarding:
    """How `stillframe use` sets the project up for a folder with such targets.

    Attributes:
        base: the file of conf/data that the user's own begins with.
        model: the option of conf/model that is selected; None leaves the selected one.
        augment: the option of conf/augment.
        min_size: of the prepared images, px.
        fallback: any folder fits, so another task that recognises the folder goes first.
    """

    base: str
    model: str | None = None
    augment: str = "upright"
    min_size: int = 8
    fallback: bool = False


def _as_it_is(rows: list[SourceRow], data: DataConfig) -> tuple[list[SourceRow], dict[str, int]]:
    return rows, {}


def _text_cell(cells: Cells, data: DataConfig, folder: Path) -> tuple[Any, str]:
    text = cells[data.columns.label].strip()
    return text, "" if text else "label missing"


def _agree(values: Sequence[Any]) -> tuple[Any, str]:
    differ = sorted({str(value) for value in values})
    return values[0], f"conflict: listed with {' | '.join(differ)}" if len(differ) > 1 else ""


def _by_text(frame: pd.DataFrame, least: int) -> pd.Series[Any]:
    return frame["text"]


@dataclass(frozen=True)
class Target:
    """What is particular to a task's targets.

    Attributes:
        module: dotted name of the module that holds the bundle as `TARGET`; worker processes find it by that.
        noun: plural, for the reason "the same image under different labels".
        parse: a value from a text: the name of a class folder, a number of an idx file.
        describe: fills in the frame's columns `text` (what messages call a target), `agreement` (what copies of one
            image must agree in), `classes` (names of the classes in it) and `reason` of unusable rows. Arguments: frame
            of the surveyed rows, the rows, section `data`, folder of the source.
        stored: the target's columns in the prepared split. Arguments: config, class names.
        store: of one prepared sample. Arguments: its row of the frame, its part in the spool, class names, config.
        table_columns: names of the table's columns that hold the target.
        from_cells: (value, problem or "") of a row of a table. Arguments: cells, section `data`, folder of the source.
        merge: (value, problem or "") of a file that a table lists more than once.
        detect: the name of a layout of the task's own that fits a folder; "": one of the layouts that all tasks share.
        read: the listing of such a layout.
        select: the rows that are used, and label -> rows that are left out by rule.
        source_text: of a value, for quarantine.csv.
        problems: first words of row problems that are about the target alone, so that the image is still read.
        files: ids of the files beside the image that a value names.
        columns: of the spool, found by `survey`; values then decide, with their files, whether a row is read anew.
        part_columns: of the spool, one value for each region of an image.
        overlap: least overlap of tiles, a share of their side; None: images are resized.
        survey: reads a target beside its decoded image, in a worker process. Arguments: row, folder of the source,
            config, decoded image, content of its file. Raises InvalidImage with the reason.
        strata: what splits are stratified by. Arguments: usable rows, least number of groups of a stratum.
        card: facts for card.json. Arguments: usable rows, class names, by split the sums of `StoredTarget.counts`,
            section `data`.
        audit: facts for audit.json from usable rows and class names.
        numbers: of usable rows, whose distribution the audit shows: a column each, by its name.
        check_augmentation: raises ValueError where section `augment` would change a target that it cannot transform.
        draw: a prepared image with its stored maps (by name, (H, W)) over it, for pages.
        onboarding: how `stillframe use` sets up a folder; None: it does not look like one of this task.
    """

    module: str
    noun: str
    parse: Callable[[str], Any]
    describe: Callable[[pd.DataFrame, list[SourceRow], DataConfig, Path], TargetDescription]
    stored: Callable[[IngestConfig, list[str]], list[TargetColumn]]
    store: Callable[[Any, dict[str, Any], list[str], IngestConfig], StoredTarget]
    table_columns: Callable[[DataConfig], list[str]] = lambda data: [data.columns.label]
    from_cells: Callable[[Cells, DataConfig, Path], tuple[Any, str]] = _text_cell
    merge: Callable[[Sequence[Any]], tuple[Any, str]] = _agree
    detect: Callable[[Path, DataConfig], str] = lambda folder, data: ""
    read: Callable[[Path, DataConfig, str], Listing] | None = None
    select: Callable[[list[SourceRow], DataConfig], tuple[list[SourceRow], dict[str, int]]] = _as_it_is
    source_text: Callable[[Any], str] = str
    problems: tuple[str, ...] = ("label",)
    files: Callable[[Any], Sequence[str]] = lambda value: ()
    columns: tuple[pa.Field[Any], ...] = ()
    part_columns: tuple[pa.Field[Any], ...] = ()
    overlap: Callable[[DataConfig], float | None] = lambda data: None
    survey: Callable[[SourceRow, Path, IngestConfig, DecodedImage, bytes], SurveyedTarget] | None = None
    strata: Callable[[pd.DataFrame, int], pd.Series[Any]] = _by_text
    card: Callable[[pd.DataFrame, list[str], Counts, DataConfig], dict[str, Any]] = lambda *arguments: {}
    audit: Callable[[pd.DataFrame, list[str]], dict[str, Any]] = lambda usable, classes: {}
    numbers: Callable[[pd.DataFrame], pd.DataFrame] | None = None
    check_augmentation: Callable[[AugmentConfig, DatasetCard], None] = lambda augment, card: None
    draw: Callable[[Pixels, Mapping[str, Pixels]], Pixels] = lambda image, targets: image
    onboarding: Callable[[Path, str | None], Onboarding | None] = lambda folder, table: None


def load_target(module: str) -> Target:
    """The bundle of a module `tasks/<name>/target.py`, by its dotted name."""
    return cast(Target, import_module(module).TARGET)
