"""All tables of an evaluated split, from its predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from stillframe.evaluation.bootstrap import MOST_RANKED, intervals, make_scorer, scores_of, wilson
from stillframe.evaluation.slices import slice_table
from stillframe.paths import write_json, write_text
from stillframe.tasks.base import Task
from stillframe.types import DatasetCard

if TYPE_CHECKING:
    from stillframe.tasks.base import Choices

DIGITS = 10  # of written scores: below that the order of a sum shows, which may differ from machine to machine
FEW = 100  # samples below which a note says that the intervals are uncertain


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write without the index, with at most ten digits."""
    write_text(path, table.to_csv(index=False, float_format=f"%.{DIGITS}g", lineterminator="\n"))


def rounded_scores(
    task: Task, predictions: pd.DataFrame, names: Sequence[str], choices: Choices | None = None
) -> dict[str, float]:
    """All scores as they are written (ValueError as of `scores_of`)."""
    return {name: round(value, DIGITS) for name, value in scores_of(task, predictions, names, choices).items()}


def rounded_intervals(
    task: Task,
    predictions: pd.DataFrame,
    names: Sequence[str],
    choices: Choices | None = None,
    *,
    resamples: int,
    seed: int,
) -> dict[str, tuple[float, float]]:
    """The 95 % interval of each score as it is written; rank scores have none where resampling them takes too long."""
    count = len(predictions)
    ranked = resamples * count * max(1, len(names)) <= MOST_RANKED
    scorer = make_scorer(task, predictions, names, choices, ranked=ranked)
    bounds = intervals(scorer, count, resamples=resamples, seed=seed)
    return {name: (round(low, DIGITS), round(high, DIGITS)) for name, (low, high) in bounds.items()}


def write_validation(
    task: Task, predictions: pd.DataFrame, card: DatasetCard, choices: Choices, out: Path
) -> dict[str, float]:
    """Write metrics.json, notes.json and the task's tables of the validation split; return the metrics.

    Args:
        task: whose scores.
        predictions: the columns of predictions.parquet.
        card: of the dataset.
        choices: of choices.json.
        out: artifacts/validate.

    Raises:
        ValueError: no samples, or predictions that cannot be scored.
    """
    names = task.evaluation.names(card)
    scores = rounded_scores(task, predictions, names, choices)
    write_json(out / "metrics.json", scores)
    write_json(out / "notes.json", task.evaluation.notes(predictions, names, scores))
    for name, table in task.evaluation.tables(predictions, names, choices).items():
        write_csv(out / f"{name}.csv", table)
    return scores


def write_evaluation(
    task: Task,
    predictions: pd.DataFrame,
    card: DatasetCard,
    choices: Choices,
    out: Path,
    *,
    seed: int,
    bootstrap: int,
    slices: Sequence[str],
    gallery: int,
) -> tuple[dict[str, float], pd.DataFrame]:
    """Write every table of the test split.

    Args:
        task: whose scores.
        predictions: the columns of predictions.parquet.
        card: of the dataset.
        choices: of choices.json.
        out: artifacts/evaluate; gets metrics.json, intervals.json, baseline.json, notes.json, slices.csv, gallery.csv
            and the task's tables.
        seed: of the bootstrap.
        bootstrap: resamples; 0: no intervals.
        slices: `evaluate.slices`.
        gallery: rows of the error gallery, at most.

    Returns:
        The metrics, and the gallery's table (its `file` column names the images to be drawn, relative to `out`).

    Raises:
        ValueError: no samples, predictions that cannot be scored, or a slice that does not exist.
    """
    if predictions.empty:
        raise ValueError("the test split is empty: set data.test_fraction above 0, or give a test folder")
    evaluation, names = task.evaluation, task.evaluation.names(card)
    by_slice = slice_table(task, predictions, slices, names, resamples=bootstrap, seed=seed)
    scores = rounded_scores(task, predictions, names, choices)
    bounds = rounded_intervals(task, predictions, names, choices, resamples=bootstrap, seed=seed)
    errors = gallery_table(task, predictions, names, gallery)
    notes = evaluation.notes(predictions, names, scores) + _limits(task, len(predictions), scores, bounds)
    write_json(out / "metrics.json", scores)
    write_json(out / "intervals.json", {name: list(interval) for name, interval in bounds.items()})
    write_json(out / "baseline.json", evaluation.baseline(predictions, card))
    write_json(out / "notes.json", notes)
    tables = evaluation.tables(predictions, names, choices)
    tables |= evaluation.test_tables(predictions, names, scores, bounds)
    for name, table in {**tables, "slices": by_slice, "gallery": errors}.items():
        write_csv(out / f"{name}.csv", table)
    return scores, errors


def gallery_table(task: Task, predictions: pd.DataFrame, names: Sequence[str], most: int) -> pd.DataFrame:
    """The task's errors, at most that many, with columns rank (from 1) and file (of the image to be drawn) before."""
    errors = task.evaluation.errors(predictions, names, most)
    errors.insert(0, "rank", np.arange(1, len(errors) + 1))
    errors.insert(1, "file", [f"gallery/{rank:03d}.png" for rank in errors["rank"]])
    return errors


def _limits(
    task: Task, total: int, scores: Mapping[str, float], bounds: Mapping[str, tuple[float, float]]
) -> list[str]:
    """Where the intervals say less than they seem to."""
    notes, share = [], scores.get(task.lead)
    if task.evaluation.SAMPLE_SCORE is None and share in (0.0, 1.0):
        low, high = wilson(round(total * share), total)
        notes.append(
            f"All {total} answers are {'right' if share else 'wrong'}: the bootstrap interval has no width. "
            f"Wilson's 95 % interval of the {task.metric(task.lead).title.lower()} is "
            f"{100 * low:.1f} to {100 * high:.1f} %."
        )
    elif task.evaluation.SAMPLE_SCORE is None and any(low == high for low, high in bounds.values()):
        notes.append(
            "Where a score of a class is exactly 0 or 100 % its bootstrap interval has no width: "
            "with few images of the class that does not mean certainty."
        )
    if total < FEW:
        notes.append(f"Only {total} test images: the intervals are wide, and themselves uncertain.")
    return notes
