"""Candidates that answer masks: scores and differences from the counts of their images."""

from __future__ import annotations

import numpy as np
import pandas as pd

from stillframe.evaluation.comparison import Difference, Spread
from stillframe.evaluation.pixel_counts import PixelCounts, paired_pictures, picture_spread
from stillframe.evaluation.pixel_scores import OF_SPLIT

COLUMNS = ["index", "id", "label", "iou", "confidence", "cell", "pixels", "boundary", "bins", "bins_before"]
METRICS = frozenset({*OF_SPLIT, "boundary_f1"})  # that have an interval over images
SAME = 1e-9  # of two IoU


def are_masks(table: pd.DataFrame) -> bool:
    """Whether answers are masks."""
    return "cell" in table.columns


def classes_of(table: pd.DataFrame) -> int:
    """K, from the length of the lists of one number a class."""
    return len(table["boundary"].iloc[0]) if len(table) else 0


def pictures(table: pd.DataFrame) -> PixelCounts:
    """The counts of each image."""
    return PixelCounts.of(table, classes_of(table))


def spread(table: pd.DataFrame, metric: str, *, resamples: int) -> Spread:
    """A score with its interval over the images."""
    return picture_spread(pictures(table), metric, resamples=resamples, seed=0)


def difference(first: pd.DataFrame, second: pd.DataFrame, metric: str, *, resamples: int) -> Difference:
    """First less second, on the same images."""
    return paired_pictures(pictures(first), pictures(second), metric, resamples=resamples, seed=0)


def where_they_differ(tables: list[pd.DataFrame]) -> list[int]:
    """Rows whose mean IoU differs between candidates, the largest difference first."""
    iou = np.stack([table["iou"].to_numpy(dtype=float) for table in tables], axis=1)
    apart = np.nan_to_num(iou.max(1) - iou.min(1))
    return [int(at) for at in np.argsort(-apart, kind="stable") if apart[at] > SAME]


def said(tables: list[pd.DataFrame], numbers: list[int], at: int) -> list[tuple[int, str, float, bool]]:
    """Of each candidate (trial, "IoU", its value, whether it is the best one) for a row."""
    values = [float(table["iou"].iloc[at]) for table in tables]
    return [(number, "IoU", value, value >= max(values) - SAME) for number, value in zip(numbers, values, strict=True)]
