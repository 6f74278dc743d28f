"""The answers of a model on the test images, as the rules ask about them: a class an image, or a class a pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Protocol

import numpy as np
import pandas as pd

from stillframe.evaluation.breakdown import slice_table
from stillframe.evaluation.class_scores import FROM_CONFUSION
from stillframe.evaluation.comparison import Difference, Discordant, mcnemar, paired_images
from stillframe.evaluation.mask_tables import slice_table as slices_of_masks
from stillframe.evaluation.pixel_counts import PixelCounts, paired_pictures
from stillframe.evaluation.pixel_scores import OF_SPLIT

FACTS = ("id", "label", "source_width", "source_height", "source_mode", "slices")


class ModelPredictions(Protocol):
    """What a model said of the test images."""

    @property
    def columns(self) -> Sequence[str]:
        """Of predictions.parquet, that are read."""

    @property
    def metrics(self) -> Sequence[str]:
        """By which two models can be compared."""

    @property
    def frame(self) -> pd.DataFrame:
        """One row an image."""

    def accuracy(self) -> float:
        """Share of what was answered right, as in metrics.json."""

    def told_otherwise(self, other: ModelPredictions) -> int:
        """Images whose truth is another one there."""

    def gap(self, other: ModelPredictions, metric: str, *, resamples: int, seed: int) -> Difference:
        """Better by how much than the other, which answered the same images."""

    def apart(self, other: ModelPredictions) -> tuple[Discordant, str]:
        """Images on which one of the two is better, and the sentence about them."""

    def slices(self, names: Sequence[str], facts: pd.DataFrame) -> pd.DataFrame:
        """Columns slice, value, n and scores; what is in which slice is taken from `facts`, of the same images."""


@dataclass(frozen=True)
class LabelModelPredictions:
    """One class an image."""

    frame: pd.DataFrame
    classes: list[str]
    columns: ClassVar[Sequence[str]] = (*FACTS, "predicted")
    metrics: ClassVar[Sequence[str]] = FROM_CONFUSION

    def accuracy(self) -> float:
        """Share of the images."""
        return float((self.frame["label"] == self.frame["predicted"]).mean())

    def told_otherwise(self, other: ModelPredictions) -> int:
        """Images with another label."""
        return int((self.frame["label"].to_numpy() != other.frame["label"].to_numpy()).sum())

    def gap(self, other: ModelPredictions, metric: str, *, resamples: int, seed: int) -> Difference:
        """By the paired bootstrap over images."""
        first_N, second_N = (one.frame["predicted"].to_numpy() for one in (self, other))
        label_N, count = self.frame["label"].to_numpy(), len(self.classes)
        return paired_images(label_N, first_N, second_N, count, metric, resamples=resamples, seed=seed)

    def apart(self, other: ModelPredictions) -> tuple[Discordant, str]:
        """Images that only one answers right, by McNemar's test."""
        first_N, second_N = (one.frame["predicted"].to_numpy() for one in (self, other))
        found = mcnemar(self.frame["label"].to_numpy(), first_N, second_N)
        one, two = f"only the new one is right on {found.first} images", f"only the champion on {found.second}"
        return found, f"{one}, {two}"

    def slices(self, names: Sequence[str], facts: pd.DataFrame) -> pd.DataFrame:
        """As evaluate's."""
        return slice_table(facts.assign(predicted=self.frame["predicted"].to_numpy()), names, self.classes)


@dataclass(frozen=True)
class MaskModelPredictions:
    """One class a pixel; images are what is drawn and paired."""

    frame: pd.DataFrame
    classes: list[str]
    columns: ClassVar[Sequence[str]] = (*FACTS, "iou", "cell", "pixels", "boundary", "bins", "bins_before")
    metrics: ClassVar[Sequence[str]] = (*OF_SPLIT, "boundary_f1")

    @cached_property
    def pictures(self) -> PixelCounts:
        """The counts of each image."""
        return PixelCounts.of(self.frame, len(self.classes))

    def accuracy(self) -> float:
        """Share of the pixels."""
        counts_KK = self.pictures.confusion_KK
        return float(np.trace(counts_KK) / counts_KK.sum())

    def told_otherwise(self, other: ModelPredictions) -> int:
        """Images whose mask has other pixels of a class."""
        theirs = PixelCounts.of(other.frame, len(self.classes))
        return int((self.pictures.actual_NK != theirs.actual_NK).any(1).sum())

    def gap(self, other: ModelPredictions, metric: str, *, resamples: int, seed: int) -> Difference:
        """By the paired bootstrap over images."""
        theirs = PixelCounts.of(other.frame, len(self.classes))
        return paired_pictures(self.pictures, theirs, metric, resamples=resamples, seed=seed)

    def apart(self, other: ModelPredictions) -> tuple[Discordant, str]:
        """Images on which the mean IoU is higher, by the sign test."""
        ours, theirs = (one.frame["iou"].to_numpy(dtype=float) for one in (self, other))
        better, worse = ours > theirs + 1e-12, theirs > ours + 1e-12
        found = mcnemar(np.ones(len(ours), int), (~worse).astype(int), (~better).astype(int))
        return found, f"the new one's IoU is higher on {found.first} images, the champion's on {found.second}"

    def slices(self, names: Sequence[str], facts: pd.DataFrame) -> pd.DataFrame:
        """As evaluate's, without intervals."""
        return slices_of_masks(facts, self.pictures, names, self.classes, resamples=0, seed=0)


def columns_of(columns: Sequence[str]) -> Sequence[str]:
    """The columns that are read of a table of predictions that has `columns`."""
    return (
        MaskModelPredictions.columns
        if set(MaskModelPredictions.columns) <= set(columns)
        else LabelModelPredictions.columns
    )


def answers_of(frame: pd.DataFrame, classes: list[str]) -> ModelPredictions:
    """A table of predictions as the rules ask about it."""
    masks = "cell" in frame.columns
    return MaskModelPredictions(frame, classes) if masks else LabelModelPredictions(frame, classes)
