"""Where the leading candidates answer differently: the images a person should look at before choosing."""

from __future__ import annotations

from dataclasses import dataclass
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
        actual: its target as text; "" where it is none.
        answers: (trial, prediction as text, a number, whether it is right or the best one), as they are ranked.
    """

    id: str
    actual: str
    answers: list[tuple[int, str, float, bool]]
    picture: PageImage | None


@dataclass(frozen=True)
class Disagreement:
    """The leading candidates on the validation images that all of them have seen.

    Attributes:
        classes: names.
        matrices: trial -> counts (K, K) over all repeats, rows actual.
        images: of the first repeat, the clearest disagreements first; at most `MOST_IMAGES`.
        count: images on which they disagree, of `total`.
        pairs: one a candidate after the best: both right, only the best right, only the other right, both wrong;
            none where a prediction is not simply right or wrong.
        why_none: why there are no pictures, or no images at all; "" when they are there.
    """

    top: list[Candidate]
    classes: list[str]
    matrices: dict[int, np.ndarray[Any, np.dtype[np.int64]]]
    images: list[DisputedImage]
    count: int
    total: int
    pairs: list[dict[str, int]]
    why_none: str


def disagreement(findings: SweepComparison) -> Disagreement:
    """Compare the `TOP` candidates that have kept their predictions."""
    with_answers = [one for one in findings.ranked if findings.answers(one.trial, _first(one)) is not None]
    top = with_answers[:TOP]
    if not top:
        return Disagreement([], [], {}, [], 0, 0, [], "No finished trial has kept its predictions.")
    best = top[0].trial.repeats[0]
    tables = [table for one in top if (table := findings.answers(one.trial, _first(one))) is not None]
    shared = [table for table in tables if table.index.equals(tables[0].index)]
    task = findings.task
    count = len(task.evaluation.names_shown(tables))
    with originals.prepared_folders(findings.sweep, best) as folders:
        classes = originals.class_names(folders, count)
        matrices = {one.trial.number: _matrix(findings, one, len(classes)) for one in top}
        if len(top) < 2:
            return Disagreement(top, classes, matrices, [], 0, 0, [], "There is only one candidate.")
        if len(shared) < len(top):
            why = "The candidates were validated on different images: they cannot be laid side by side."
            return Disagreement(top, classes, matrices, [], 0, 0, [], why)
        rows = task.evaluation.disagreement(shared)
        split = next((found for at in folders if (found := originals.holds(at, shared[0])) is not None), None)
        images = [_image(task, row, top, shared, classes, split) for row in rows[:MOST_IMAGES]]
    why = "" if split is not None else _why(findings)
    right = [task.evaluation.sample_scores(table) > 0 for table in shared]
    pairs = [] if task.evaluation.SAMPLE_SCORE else [_pair(right[0], other) for other in right[1:]]
    return Disagreement(top, classes, matrices, images, len(rows), len(shared[0]), pairs, why)


def _first(one: Candidate) -> int:
    return one.trial.repeats[0].repeat


def _why(findings: SweepComparison) -> str:
    return (
        f"The pictures are not shown: neither DVC's cache nor a checkout under {findings.sweep.facts['root']} holds "
        "this validation split any more."
    )


def _matrix(findings: SweepComparison, one: Candidate, classes: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    total = np.zeros((classes, classes), dtype=np.int64)
    for run in one.trial.repeats:
        table = findings.answers(one.trial, run.repeat)
        counts = None
        if table is not None:
            counts = findings.task.evaluation.confusion(table, [str(k) for k in range(classes)])
        if counts is not None:
            total += counts
    return total


def _image(
    task: Task, row: int, top: list[Candidate], tables: list[pd.DataFrame], classes: list[str], split: Split | None
) -> DisputedImage:
    """A row of the tables with each candidate's prediction."""
    target, predictions = task.evaluation.compared(tables, row, classes)
    picture = None if split is None else originals.picture_of(split, int(tables[0]["index"].iloc[row]))
    answers = [(one.trial.number, *prediction) for one, prediction in zip(top, predictions, strict=True)]
    return DisputedImage(str(tables[0].index[row]), target, answers, picture)


def _pair(best_N: np.ndarray[Any, Any], other_N: np.ndarray[Any, Any]) -> dict[str, int]:
    """On how many images both, one or none of two candidates is right."""
    return {
        "both": int((best_N & other_N).sum()),
        "best": int((best_N & ~other_N).sum()),
        "other": int((~best_N & other_N).sum()),
        "neither": int((~best_N & ~other_N).sum()),
    }
