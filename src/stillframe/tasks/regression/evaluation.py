"""Scores of predicted numbers. Suffixes: N samples, D numbers a sample, M models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stillframe.config import ValidateConfig
from stillframe.drawing.frame_strip import frame_strip
from stillframe.store.split import Split
from stillframe.tasks.regression.number_scores import number_scores
from stillframe.tasks.vector_collector import VectorCollector
from stillframe.types import DatasetCard

if TYPE_CHECKING:
    from stillframe.tasks.base_evaluation import Array, Choices, Collector, Scorer, Statistics

SLICE_METRICS = ("mae", "r2", "rmse")
COMPARED = ("value", "predicted")
TARGET = ("value",)
TUNED = ()
SAMPLE_SCORE = "negative absolute error"
PARTS, SHARES = 20, (10, 50, 90)  # of by_value.csv
COLLECTOR = VectorCollector("predicted", ("value",))


def names(card: DatasetCard) -> Sequence[str]:
    """Those of the numbers."""
    return list(card.target.get("names", []))


def stand_in_names(tables: Sequence[pd.DataFrame]) -> Sequence[str]:
    """As many as there are numbers in a row."""
    return [str(k) for k in range(max(len(table["value"].iloc[0]) if len(table) else 0 for table in tables))]


def tune(
    predict: Callable[[Collector], pd.DataFrame], section: ValidateConfig, card: DatasetCard
) -> tuple[pd.DataFrame, Choices]:
    """Nothing is tuned: the predictions as they are."""
    return predict(COLLECTOR), {}


def predict(
    predict: Callable[[Collector], pd.DataFrame], choices: Choices, card: DatasetCard, out: Path
) -> pd.DataFrame:
    """The numbers of each sample."""
    return predict(COLLECTOR)


def stacked(table: pd.DataFrame, column: str) -> NDArray[np.float64]:
    """A column of lists of numbers as one array (N, D)."""
    return np.array([np.asarray(row, dtype=np.float64) for row in table[column]]).reshape(len(table), -1)


def errors_of(predictions: pd.DataFrame) -> NDArray[np.float64]:
    """Predicted less true numbers (N, D)."""
    return stacked(predictions, "predicted") - stacked(predictions, "value")


def statistics(predictions: pd.DataFrame, names: Sequence[str], choices: Choices) -> Statistics:
    """Errors and targets of each sample, as they are and squared (ValueError: a prediction is not finite)."""
    value_ND, error_ND = stacked(predictions, "value"), errors_of(predictions)
    if not np.isfinite(error_ND).all():
        raise ValueError("predictions hold NaN or infinity: the model is broken (did training diverge?)")
    apart_ND = value_ND - value_ND.mean(0)  # from a constant, so that large numbers lose no digits
    sums = {"n": np.ones(len(predictions)), "value": value_ND, "target": apart_ND, "target_square": apart_ND**2}
    return sums | {"absolute": np.abs(error_ND), "square": error_ND**2}


def scores(sums: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
    """MAE, RMSE, MSE and R²: see `number_scores`."""
    return number_scores(sums, names)


def rank_scores(predictions: pd.DataFrame, names: Sequence[str]) -> Scorer | None:
    """None: all scores follow from sums."""
    return None


def point_scores(predictions: pd.DataFrame, names: Sequence[str], choices: Choices) -> dict[str, float]:
    """None."""
    return {}


def sample_scores(predictions: pd.DataFrame) -> Array:
    """The absolute error, negative; of several numbers the mean of their shares of the deviation of the targets."""
    scale_D = np.maximum(stacked(predictions, "value").std(0), 1e-12)
    error_ND = np.abs(errors_of(predictions))
    return -(error_ND[:, 0] if len(scale_D) == 1 else (error_ND / scale_D).mean(1))


def confusion(predictions: pd.DataFrame, names: Sequence[str]) -> NDArray[np.int64] | None:
    """None: numbers have no classes."""
    return None


def baseline(predictions: pd.DataFrame, card: DatasetCard) -> dict[str, float | str]:
    """Scores of always predicting the mean of the train split."""
    constant = predictions[["value"]].assign(predicted=[card.target["mean"]] * len(predictions))
    sums = {name: part.sum(0) for name, part in statistics(constant, [], {}).items()}
    values = {name: float(value) for name, value in number_scores(sums, names(card)).items()}
    return {**values, "class": f"the train mean, {text(card.target['mean'])}"}


def notes(predictions: pd.DataFrame, names: Sequence[str], scores: Mapping[str, float]) -> list[str]:
    """Numbers that do not vary."""
    constant = [name for name, spread in zip(names, stacked(predictions, "value").std(0), strict=False) if spread == 0]
    return [f"R² is left out: {', '.join(constant)} does not vary in this split."] if constant else []


def tables(predictions: pd.DataFrame, names: Sequence[str], choices: Choices) -> dict[str, pd.DataFrame]:
    """by_value.csv: samples in parts of ascending true value, with quantiles of their predictions and errors."""
    value_ND, error_ND, rows = stacked(predictions, "value"), errors_of(predictions), list[dict[str, Any]]()
    for index, name in enumerate(names):
        order = np.argsort(value_ND[:, index], kind="stable")
        for part in np.array_split(order, min(PARTS, len(order))):
            value, error = value_ND[part, index], error_ND[part, index]
            row = {"number": name, "n": len(part), "true": np.median(value)}
            row |= {f"predicted {share} %": np.quantile(value + error, share / 100) for share in SHARES}
            rows.append(row | {f"error {share} %": np.quantile(error, share / 100) for share in SHARES})
    return {"by_value": pd.DataFrame(rows)}


def plots(tables: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Predictions, and errors, against the true value, beside what they should be."""
    table, curves = tables["by_value"], {}
    of_number = table["number"] + ": " if table["number"].nunique() > 1 else ""
    for title, kind, right in (("Predicted", "predicted", table["true"]), ("Error", "error", 0.0 * table["true"])):
        lines = {f"{share} % are below": table[f"{kind} {share} %"] for share in SHARES} | {"without error": right}
        parts = [pd.DataFrame({"x": table["true"], "y": y, "series": of_number + name}) for name, y in lines.items()]
        curves[f"{title} against true value"] = pd.concat(parts)
    return curves


def test_tables(
    predictions: pd.DataFrame,
    names: Sequence[str],
    scores: Mapping[str, float],
    intervals: Mapping[str, tuple[float, float]],
) -> dict[str, pd.DataFrame]:
    """No further ones."""
    return {}


def text(numbers: Sequence[float]) -> str:
    """Numbers for a reader, with four digits."""
    return ", ".join(f"{number:.4g}" for number in numbers)


def errors(predictions: pd.DataFrame, names: Sequence[str], most: int) -> pd.DataFrame:
    """The largest errors first: columns index, id, actual, predicted (texts) and score (as `sample_scores`)."""
    table = predictions[["index", "id"]].reset_index(drop=True).assign(score=sample_scores(predictions))
    for name, column in (("actual", "value"), ("predicted", "predicted")):
        table[name] = [text(row) for row in predictions[column]]
    return table.sort_values(["score", "id"], kind="stable").head(most).reset_index(drop=True)


def gallery_image(split: Split, row: pd.Series[Any], out: Path) -> NDArray[np.uint8]:
    """The image."""
    return frame_strip(split.images([int(row["index"])])[0])


def explained(predictions: pd.DataFrame, names: Sequence[str], most: int) -> pd.DataFrame | None:
    """None: there is no class for which something speaks."""
    return None


def disagreement(tables: Sequence[pd.DataFrame]) -> list[int]:
    """Rows by how far the models' errors are apart, the furthest first."""
    score_NM = np.stack([sample_scores(table) for table in tables], axis=1)
    gap_N = score_NM.max(1) - score_NM.min(1)
    return [int(row) for row in np.argsort(-gap_N, kind="stable") if gap_N[row] > 0]


def compared(
    tables: Sequence[pd.DataFrame], row: int, names: Sequence[str]
) -> tuple[str, list[tuple[str, float, bool]]]:
    """The true numbers, and of each model its numbers, its error and whether that is the smallest."""
    score_M = [float(sample_scores(table)[row]) for table in tables]
    predicted = [text(table["predicted"].iloc[row]) for table in tables]
    return text(tables[0]["value"].iloc[row]), [
        (numbers, -score, score == max(score_M)) for numbers, score in zip(predicted, score_M, strict=True)
    ]
