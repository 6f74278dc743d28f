"""What a page says depends on what was answered: a class a sample, or a class a pixel. The evaluated folder tells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class AnswerWording:
    """The words for answers of one kind.

    Attributes:
        unit: what is answered right or wrong.
        support: heading of what a class's row counts.
        lead: the score of the headline, by which baseline and slices are judged.
        lead_title: of it, in a table.
        tiles: scores at the top of the page.
        bars: scores of a class in the figure and in the table, with their titles.
        weakest: by which of them a class is called weak.
        meanings: of scores that mean something else here than in `words.METRICS`.
        confusion: title of the figure.
        slices: how the intervals of slices were made.
    """

    unit: str
    support: str
    lead: str
    lead_title: str
    tiles: tuple[str, ...]
    bars: tuple[tuple[str, str], ...]
    weakest: str
    confusion: str
    slices: str
    meanings: Mapping[str, str] = field(default_factory=dict)


LABELS = AnswerWording(
    unit="images",
    support="images",
    lead="accuracy",
    lead_title="accuracy",
    tiles=("accuracy", "f1_macro", "auroc", "ece"),
    bars=(("precision", "precision"), ("recall", "recall"), ("f1", "F1")),
    weakest="recall",
    confusion="Test images by actual and predicted class",
    slices="Intervals by Wilson's method.",
)
CLIPS = replace(LABELS, unit="clips", support="clips", confusion="Test clips by actual and predicted class")
MASKS = AnswerWording(
    unit="pixels",
    support="pixels",
    lead="iou_macro",
    lead_title="mean IoU",
    tiles=("iou_macro", "f1_macro", "accuracy", "boundary_f1", "ece"),
    bars=(("iou", "IoU"), ("f1", "Dice (F1)"), ("recall", "recall")),
    weakest="iou",
    confusion="Pixels of the test images by actual and predicted class",
    slices="Intervals by bootstrap over the images of the slice.",
    meanings={
        "accuracy": "share of pixels answered right; a large background makes it high",
        "f1_macro": "Dice: overlap as a share of the mean of both areas, mean over the classes",
        "precision_macro": "of the pixels answered “X”, the share that is X; mean over the classes",
        "recall_macro": "of the pixels of X, the share found; mean over the classes",
        "ece": "gap between the confidence in a pixel and how often it is right; lower is better",
        "ece_uncalibrated": "the same without temperature scaling, on a grid of pixels",
    },
)
