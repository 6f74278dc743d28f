"""The samples of a split as they came: the ids of their source files, and their prepared targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stillframe.store.columns import NO_VALUE
from stillframe.store.split import Split

if TYPE_CHECKING:
    from stillframe.tasks.base_output import Arrays


@dataclass(frozen=True)
class SourceSample:
    """One image or video of the source.

    Attributes:
        id: of the source file.
        rows: of the split: one, several of a video (its views) and of an image that was cut into tiles.
    """

    id: str
    rows: NDArray[np.int64]


def source_samples(split: Split) -> list[SourceSample]:
    """The images or videos that the rows of a split come from, in order of their first rows."""
    ids = split.table["origin" if split.tiled else "source_id"]
    return [SourceSample(str(name), np.asarray(rows)) for name, rows in ids.groupby(ids, sort=False).indices.items()]


def read_target(split: Split, sample: SourceSample) -> Arrays:
    """The targets of a sample by name, without the batch axis; maps of tiles are put together again."""
    first = [int(sample.rows[0])]
    target = {name: split.target(name, first)[0] for name in split.targets}
    if not split.tiled:
        return target
    corners = split.table.iloc[sample.rows][["top", "left"]].to_numpy(dtype=np.int64)
    height, width = (corners.max(0) + (split.height, split.width)).tolist()
    for name in (name for name, column in split.targets.items() if column.is_map):
        whole = np.full((height, width), NO_VALUE, np.uint8)
        for part, (top, left) in zip(split.target(name, sample.rows), corners.tolist(), strict=True):
            whole[top : top + split.height, left : left + split.width] = part
        target[name] = whole
    return target


def select(samples: Sequence[SourceSample], ids: Sequence[str]) -> list[SourceSample]:
    """The samples with these ids, in the order of the ids."""
    by_id = {sample.id: sample for sample in samples}
    return [by_id[name] for name in ids]
