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
    from stillframe.tasks.base_evaluation import Choices

DIGITS = 10  # of written scores: below that the order of a sum shows, which may differ from machine to machine
FEW = 100  # samples below which a note says that the intervals are uncertain

TEXT_COLUMNS = (  # read as text: a class may be called "1", "NA" or "true"
    *("class", "actual", "predicted", "slice", "value", "id", "file", "kind", "method", "path", "reason", "label"),
    *("weakest", "series"),
)


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write without the index, with at most ten digits."""
    write_text(path, table.to_csv(index=False, float_format=f"%.{DIGITS}g", lineterminator="\n"))


def read_table(path: Path) -> pd.DataFrame:
    """A CSV in which the columns of names stay text, and an empty number is NaN.

    Raises:
        ValueError: the file is not a table.
    """
    try:
        columns = list(pd.read_csv(path, nrows=0).columns)
        # "predicted" is a class beside "actual", but a count beside "support"
        names = [name for name in TEXT_COLUMNS if name != "predicted" or "support" not in columns]
        text = {name: str for name in names if name in columns}
        blank = {name: [""] for name in columns if name not in text}
        return pd.read_csv(path, dtype=text, keep_default_na=False, na_values=blank)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a table ({error}): delete it and run `dvc repro`") from None


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
    task: Task,
    predictions: pd.DataFrame,
    card: DatasetCard,
    choices: Choices,
    out: Path,
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


def write_plots(task: Task, out: Path, split: str, history: Path | None = None) -> None:
    """Write what `dvc plots` draws, a folder for each template of .dvc/plots; a file's name is the plot's title.

    Args:
        task: draws curves (columns x, y, series) and confusion matrices (actual, predicted, count).
        out: artifacts/validate or artifacts/evaluate with its tables; gets plots/curves/*.csv, plots/confusion/*.csv.
        split: for the titles.
        history: history.csv, whose validation scores by epoch become a plot, too.
    """
    plots = task.evaluation.plots({path.stem: read_table(path) for path in sorted(out.glob("*.csv"))})
    plots = {f"{title}, {split} split": table for title, table in plots.items()}
    if history is not None:
        epochs = read_table(history).rename(columns={"epoch": "x"})
        names = [name for metric in task.epoch_metrics if (name := f"val/{metric.name}") in epochs]
        plots["Validation scores by epoch"] = epochs.melt("x", names, "series", "y").dropna()
    for folder, columns in (("curves", ["x", "y", "series"]), ("confusion", ["actual", "predicted", "count"])):
        tables = {title: table for title, table in plots.items() if set(table.columns) == set(columns)}
        # DVC fails on a folder that is missing: without a table it holds an empty one, which draws nothing
        for title, table in (tables or {"none": pd.DataFrame(columns=columns)}).items():
            write_csv(out / "plots" / folder / f"{title}.csv", table[columns])


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
