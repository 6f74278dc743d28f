"""Collects one vector of outputs for each sample: logits of the classes, regressed numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stillframe.store.split import Split

if TYPE_CHECKING:
    from stillframe.tasks.base_evaluation import Array

SOURCE_COLUMNS = ["source_width", "source_height", "source_mode", "slices"]  # of a split, in every predictions.parquet


@dataclass(frozen=True)
class VectorCollector:
    """Keeps a vector for each row: columns index, id, the target's, source size and mode, slices, and the output's.

    Rows that are views of one video become one row: see `merge_views`.

    Attributes:
        output: name of the output, and of its column (lists of numbers).
        target: columns of the split that hold the target.
    """

    output: str
    target: tuple[str, ...]

    def batch_size(self, split: Split, configured: int) -> int:
        """The configured number: vectors are small."""
        return configured

    def rows(self, split: Split, rank: int, world: int) -> NDArray[np.int64]:
        """Rows rank, rank + world, ..."""
        return np.arange(rank, len(split), world, dtype=np.int64)

    def start(self, split: Split) -> VectorState:
        """No outputs yet."""
        return VectorState(self.output)

    def merge(self, results: list[tuple[NDArray[np.int64], list[Array]]], split: Split) -> pd.DataFrame:
        """One row a sample (a video, however many views it has), each counted once."""
        index_N = np.concatenate([np.empty(0, np.int64), *(index for index, _ in results)])
        vectors = [vector for _, part in results for vector in part]
        order = np.argsort(index_N, kind="stable")
        table = split.table.reset_index(drop=True)
        assert np.array_equal(index_N[order], np.arange(len(table))), "each sample is counted once"
        out = table[["id", *self.target, *SOURCE_COLUMNS]].copy()
        out.insert(0, "index", np.arange(len(table), dtype=np.int64))
        out[self.output] = [vectors[i] for i in order]
        return merge_views(out, table["source_id"].to_numpy(), self.output)


def merge_views(rows: pd.DataFrame, video_N: NDArray[np.object_], output: str) -> pd.DataFrame:
    """One row for all views of a video; unchanged where no two rows are of one.

    The row is that of the view in the middle, which is the one to be drawn, under the id of the video; the output is
    the mean over the views, and the column `view_<output>` (V lists, in order) has them all.

    Args:
        rows: columns id and the output's, in the split's order.
        video_N: the id of each row's video.
        output: name of the column.
    """
    videos = [np.asarray(i) for i in pd.Series(np.arange(len(rows))).groupby(video_N, sort=False).agg(list)]
    if len(videos) == len(rows):
        return rows
    out = rows.iloc[[view_V[len(view_V) // 2] for view_V in videos]].reset_index(drop=True)
    views = [np.stack([rows[output].iloc[row] for row in view_V]) for view_V in videos]
    out["id"] = [str(video_N[view_V[0]]) for view_V in videos]
    out[output] = [vector_VD.mean(0) for vector_VD in views]
    out[f"view_{output}"] = [list(vector_VD) for vector_VD in views]
    return out


@dataclass
class VectorState:
    """Rows and their vectors, as they come."""

    output: str
    index: list[NDArray[np.int64]] = field(default_factory=list)
    vectors: list[Array] = field(default_factory=list)

    def add(self, outputs: dict[str, Array], target: dict[str, Array], index_B: Array) -> None:
        """Take a batch."""
        self.index.append(index_B)
        self.vectors += list(outputs[self.output])

    def result(self) -> tuple[NDArray[np.int64], list[Any]]:
        """The rows, and the vector of each."""
        return np.concatenate([np.empty(0, np.int64), *self.index]), self.vectors
