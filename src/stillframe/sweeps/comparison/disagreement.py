"""Where the predictions of the leading candidates differ: the images a person should look at before choosing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from stillframe.reporting.inputs import PageImage
from stillframe.store.split import Split
from stillframe.sweeps.comparison import originals
from stillframe.sweeps.comparison.candidates import Candidate, SweepComparison
from stillframe.tasks.base import Task

TOP = 4  # candidates that are put side by side
MOST_IMAGES = 24


@dataclass(frozen=True)
class DisputedImage:
    """An image on which the candidates disagree.

    Attributes:
        id: of the image.
        actual: the target as text; "" where it is none.
        answers: of each candidate, as they are ranked: trial, prediction, its number, whether it is right (or best).
        image: for the page; None where the split is gone.
    """

    id: str
    actual: str
    answers: list[tuple[int, str, float, bool]]
    image: PageImage | None


@dataclass(frozen=True)
class Disagreement:
    """The leading candidates on the validation images that all of them have seen.

    Attributes:
        top: the candidates.
        why_none: why no images are drawn, or none are listed at all; "" when they are there.
        classes: names.
        matrices: trial -> counts (K, K) over all repeats, rows actual; {} of targets without classes.
        images: of the first repeat, the clearest disagreements first; at most `MOST_IMAGES`.
        count: images on which they disagree, of `total`.
        total: images that all candidates have seen.
        pairs: one a candidate after the best: both right, only the best right, only the other right, both wrong; none
            where a prediction is not simply right or wrong.
    """

    top: list[Candidate]
    why_none: str
    classes: list[str] = field(default_factory=list)
    matrices: dict[int, np.ndarray[Any, np.dtype[np.int64]]] = field(default_factory=dict)
    images: list[DisputedImage] = field(default_factory=list)
    count: int = 0
    total: int = 0
    pairs: list[dict[str, int]] = field(default_factory=list)


def disagreement(findings: SweepComparison) -> Disagreement:
    """Compare the `TOP` candidates that have kept their predictions."""
    with_predictions = [
        (candidate, table)
        for candidate in findings.ranked
        if (table := findings.answers(candidate.trial, candidate.trial.repeats[0].repeat)) is not None
    ]
    top = [candidate for candidate, _ in with_predictions[:TOP]]
    tables = [table for _, table in with_predictions[:TOP]]
    if not top:
        return Disagreement([], "No finished trial has kept its predictions.")
    task, evaluation = findings.task, findings.task.evaluation
    with originals.prepared_folders(findings.sweep, top[0].trial.repeats[0]) as folders:
        # 1. Confusion matrices, which need no common images
        classes = originals.class_names(folders, len(evaluation.stand_in_names(tables)))
        counts = {candidate.trial.number: _matrix(findings, candidate, classes) for candidate in top}
        matrices = {number: matrix for number, matrix in counts.items() if matrix is not None}
        facts: dict[str, Any] = {"classes": classes, "matrices": matrices}
        if len(top) < 2:
            return Disagreement(top, "There is only one candidate.", **facts)
        if not all(table.index.equals(tables[0].index) for table in tables):
            why = "The candidates were validated on different images: they cannot be laid side by side."
            return Disagreement(top, why, **facts)
        # 2. The images that tell them apart, drawn where the split is still there
        rows = evaluation.disagreement(tables)
        split = next((split for folder in folders if (split := originals.holds(folder, tables[0])) is not None), None)
        images = [_image(task, row, top, tables, classes, split) for row in rows[:MOST_IMAGES]]
    root = findings.sweep.facts["root"]
    why = (
        ""
        if split is not None
        else f"The pictures are not shown: neither DVC's cache nor a checkout under {root} holds this validation split "
        "any more."
    )
    # 3. Where a prediction is right or wrong: how often one is right alone
    if evaluation.SAMPLE_SCORE is None:
        right = [evaluation.sample_scores(table) > 0 for table in tables]
        facts["pairs"] = [_pair(right[0], other) for other in right[1:]]
    return Disagreement(top, why, images=images, count=len(rows), total=len(tables[0]), **facts)


def _matrix(
    findings: SweepComparison, candidate: Candidate, classes: list[str]
) -> np.ndarray[Any, np.dtype[np.int64]] | None:
    """A candidate's confusion matrix over all repeats; None where the task has none."""
    tables = (findings.answers(candidate.trial, run.repeat) for run in candidate.trial.repeats)
    matrices = [findings.task.evaluation.confusion(table, classes) for table in tables if table is not None]
    counted = [matrix for matrix in matrices if matrix is not None]
    return np.sum(counted, axis=0) if counted else None


def _image(
    task: Task, row: int, top: list[Candidate], tables: list[pd.DataFrame], classes: list[str], split: Split | None
) -> DisputedImage:
    """A row of the tables with each candidate's prediction."""
    target, predictions = task.evaluation.compared(tables, row, classes)
    image = None if split is None else originals.page_image(split, int(tables[0]["index"].iloc[row]))
    answers = [(candidate.trial.number, *values) for candidate, values in zip(top, predictions, strict=True)]
    return DisputedImage(str(tables[0].index[row]), target, answers, image)


def _pair(best_N: np.ndarray[Any, Any], other_N: np.ndarray[Any, Any]) -> dict[str, int]:
    """On how many images both, one or none of two candidates is right."""
    return {
        "both": int((best_N & other_N).sum()),
        "best": int((best_N & ~other_N).sum()),
        "other": int((~best_N & other_N).sum()),
        "neither": int((~best_N & ~other_N).sum()),
    }
