"""Scores by slice: of the table's own columns, by the size and by the mode of the file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from stillframe.evaluation.bootstrap import intervals, make_scorer, wilson
from stillframe.tasks.base import Task

SIZES = (32, 64, 128, 256, 512, 1024, 2048)  # px, edges of the buckets of slice "size"
MOST_VALUES = 30  # of one slice; the most frequent ones are shown


def slice_table(
    task: Task,
    predictions: pd.DataFrame,
    columns: Sequence[str],
    names: Sequence[str],
    *,
    resamples: int,
    seed: int,
    metrics: Sequence[str] = (),
    source: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """The task's `SLICE_METRICS` in each slice; macro averages are over the classes that the slice has.

    Args:
        task: whose scores.
        predictions: of a split.
        columns: which slices: "size" (shorter side before resizing), "mode" (of the file), or a column of `slices`.
        names: see `tasks.base_evaluation.Evaluation`.
        resamples: of the bootstrap over the slice's samples; not used where the first metric is a share of samples.
        seed: of the draws.
        metrics: instead of `SLICE_METRICS`.
        source: the same samples, by which their slices are decided; None: `predictions`.

    Returns:
        Columns slice, value, n, the first metric, low and high (its 95 % interval: Wilson's where it is a share of
        samples, else the bootstrap's), the other metrics. Of a column with many values the most frequent; a sample
        without a value is in none; a slice in which the first metric is undefined is left out.

    Raises:
        ValueError: a column that the samples do not have, with the nearest right name.
    """
    lead, *others = metrics or task.evaluation.SLICE_METRICS
    is_share = task.evaluation.SAMPLE_SCORE is None and lead == task.lead
    scorer, rows = make_scorer(task, predictions, names), []
    for column, value, in_slice_N in slices_of(predictions if source is None else source, columns):
        count = int(in_slice_N.sum())
        scores = {name: float(score[0]) for name, score in scorer(in_slice_N[None].astype(np.float64)).items()}
        if not np.isfinite(scores[lead]):
            continue
        if is_share:
            bounds: tuple[float, float] | None = wilson(round(count * scores[lead]), count)
        else:

            def lead_only(weight_Rn: NDArray[np.float64], member_N: NDArray[np.bool_] = in_slice_N) -> dict[str, Any]:
                """The first metric of resamples of the slice's samples."""
                weight_RN = np.zeros((len(weight_Rn), len(member_N)))
                weight_RN[:, member_N] = weight_Rn
                return {lead: scorer(weight_RN)[lead]}

            bounds = intervals(lead_only, count, resamples=resamples, seed=seed).get(lead)
        low, high = bounds or (None, None)
        row = {"slice": column, "value": value, "n": count, lead: scores[lead], "low": low, "high": high}
        rows.append({**row, **{name: scores[name] for name in others}})
    return pd.DataFrame(rows, columns=["slice", "value", "n", lead, "low", "high", *others])


def slices_of(predictions: pd.DataFrame, columns: Sequence[str]) -> list[tuple[str, str, NDArray[np.bool_]]]:
    """Column, value and members (N,) of each slice (ValueError: a column that the samples do not have)."""
    extra = pd.DataFrame([json.loads(text or "{}") for text in predictions["slices"]], index=range(len(predictions)))
    slices = []
    for column in columns:
        value_N = slice_values(predictions, column, extra)
        frequent = sorted(map(str, value_N.value_counts().head(MOST_VALUES).index), key=_natural)
        slices += [(column, value, (value_N == value).fillna(False).to_numpy(dtype=bool)) for value in frequent]
    return slices


def slice_values(predictions: pd.DataFrame, column: str, extra: pd.DataFrame) -> pd.Series[str]:
    """The value of one slice column for each sample."""
    if column == "size" and column not in extra:
        return pd.Series(size_names(predictions["source_width"], predictions["source_height"]), dtype="string")
    if column == "mode" and column not in extra:
        return predictions["source_mode"].reset_index(drop=True).astype("string")
    if column not in extra:
        from stillframe.config import nearest

        hint = nearest(column, ["size", "mode", *map(str, extra.columns)])
        raise ValueError(f"evaluate.slices: {column!r} is no column of data.columns.slices: {hint}")
    return extra[column].astype("string")


def size_names(width_N: ArrayLike, height_N: ArrayLike) -> list[str]:
    """The bucket of each image's shorter side before resizing, e.g. "128-255 px"."""
    edges = (1, *SIZES)
    names = [f"{low}-{high - 1} px" for low, high in zip(edges, SIZES, strict=False)] + [f"{SIZES[-1]} px and more"]
    side_N = np.minimum(np.asarray(width_N), np.asarray(height_N))
    return [names[bucket] for bucket in np.searchsorted(SIZES, side_N, side="right")]


def _natural(value: str) -> tuple[float, str]:
    """Sorts "64-127 px" before "128-255 px" and words by their letters."""
    digits = value.split("-")[0].split(" ")[0]
    try:
        return float(digits), value
    except ValueError:
        return float("inf"), value
