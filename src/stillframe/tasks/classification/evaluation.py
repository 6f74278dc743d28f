"""Scores of class predictions: the logits of every sample are kept, and all else is computed from them.

Suffixes: N samples, K classes, R resamples, V views of a video.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from stillframe.config import ValidateConfig
from stillframe.drawing.frame_strip import frame_strip
from stillframe.store.split import Split
from stillframe.tasks import class_scores
from stillframe.tasks.calibration import (
    bin_sums,
    calibration_error,
    confidence_bins,
    decide,
    log_loss,
    reliability,
    reliability_curve,
    softmax,
    tune_decisions,
)
from stillframe.tasks.classification import METRICS
from stillframe.tasks.curves import RankedScores, curve_points
from stillframe.tasks.vector_collector import VectorCollector
from stillframe.types import DatasetCard

if TYPE_CHECKING:
    from stillframe.tasks.base_evaluation import Array, Choices, Collector, Scorer, Statistics

SLICE_METRICS = ("accuracy", "f1_macro")
COMPARED = ("label", "predicted", "confidence")
TARGET = ("actual",)
TUNED = ("temperature",)
SAMPLE_SCORE = None
COLLECTOR = VectorCollector("logits", ("label",))
BINS = 15  # where no choice says another number


def names(card: DatasetCard) -> Sequence[str]:
    """The classes."""
    return card.classes


def stand_in_names(tables: Sequence[pd.DataFrame]) -> Sequence[str]:
    """As many as labels and predictions show."""
    most = max(int(table[["label", "predicted"]].to_numpy().max(initial=-1)) for table in tables)
    return [str(k) for k in range(1 + most)]


def tune(
    predict: Callable[[Collector], pd.DataFrame], section: ValidateConfig, card: DatasetCard
) -> tuple[pd.DataFrame, Choices]:
    """Temperature, and of two classes the threshold, from the logits of the whole split."""
    predictions = predict(COLLECTOR)
    choices = tune_decisions(np.stack(predictions["logits"].to_list()), predictions["label"].to_numpy(), section)
    return with_decisions(predictions, choices), choices


def predict(
    predict: Callable[[Collector], pd.DataFrame], choices: Choices, card: DatasetCard, out: Path
) -> pd.DataFrame:
    """Logits, and decisions by the frozen choices."""
    return with_decisions(predict(COLLECTOR), choices)


def with_decisions(predictions: pd.DataFrame, choices: Mapping[str, Any]) -> pd.DataFrame:
    """Add `probabilities` (calibrated, list of K), `predicted` (class index) and `confidence` (of it).

    Where the logits are the mean of several views (`view_logits`) also `view_probabilities`, V lists of K.

    Args:
        predictions: column logits.
        choices: `temperature` and `threshold` (null: the most probable class).
    """
    probabilities_NK = softmax(_stacked(predictions["logits"]), choices["temperature"])
    predicted_N = decide(probabilities_NK, choices["threshold"])
    out = predictions.copy()
    out["predicted"] = predicted_N.astype(np.int32)
    out["confidence"] = probabilities_NK[np.arange(len(out)), predicted_N]
    out["probabilities"] = list(probabilities_NK)
    if "view_logits" in out:
        views = [softmax(np.stack(list(logits)), choices["temperature"]) for logits in out["view_logits"]]
        out["view_probabilities"] = [list(probabilities_VK) for probabilities_VK in views]
    return out


def _stacked(column: pd.Series[Any]) -> NDArray[np.float64]:
    """A column of lists of numbers as one array."""
    return np.asarray(np.stack(column.to_list()), dtype=np.float64)


def statistics(predictions: pd.DataFrame, classes: Sequence[str], choices: Choices) -> Statistics:
    """Counts per class; with probabilities log loss, Brier score and the gap in each bin of confidence."""
    label_N, predicted_N = (predictions[name].to_numpy(dtype=np.int64) for name in ("label", "predicted"))
    everywhere_N = np.ones(len(predictions))
    sums: Statistics = {
        "right": _one_hot(label_N, len(classes), label_N == predicted_N),
        "actual": _one_hot(label_N, len(classes), everywhere_N),
        "predicted": _one_hot(predicted_N, len(classes), everywhere_N),
    }
    if "probabilities" not in predictions:
        return sums
    probabilities_NK = _stacked(predictions["probabilities"])
    if probabilities_NK.shape[1] != len(classes):
        raise ValueError(f"probabilities have shape {probabilities_NK.shape}, not ({len(label_N)}, {len(classes)})")
    if not np.isfinite(probabilities_NK).all():
        raise ValueError("probabilities hold NaN or infinity: the model is broken (did training diverge?)")
    distance_NK = probabilities_NK.copy()  # from the certain right answer
    distance_NK[np.arange(len(label_N)), label_N] -= 1.0
    bins, confidence_N = choices.get("bins", BINS), probabilities_NK.max(1)
    gap_N = confidence_N - (probabilities_NK.argmax(1) == label_N)
    return sums | {
        "log_loss": log_loss(label_N, probabilities_NK),
        "brier": np.square(distance_NK).sum(1) / (2 if len(classes) == 2 else 1),
        "calibration_gap": _one_hot(confidence_bins(confidence_N, bins), bins, gap_N),
    }


def _one_hot(column_N: NDArray[np.int64], width: int, value_N: Array) -> Any:
    """A sparse matrix (N, width) with one value a row: with many classes a dense one would not fit."""
    from scipy import sparse

    return sparse.csr_array((value_N, column_N, np.arange(len(column_N) + 1)), shape=(len(column_N), width))


def scores(sums: Mapping[str, Array], classes: Sequence[str]) -> dict[str, Array]:
    """Rates from the counts; means of log loss and Brier score; expected calibration error (Guo et al. 2017)."""
    values = class_scores.class_scores(sums["right"], sums["actual"], sums["predicted"], classes, METRICS)
    if "log_loss" in sums:
        total_R = sums["actual"].sum(-1)
        values |= {name: sums[name] / total_R for name in ("log_loss", "brier")}
        values["ece"] = np.abs(sums["calibration_gap"]).sum(-1) / total_R
    return values


def rank_scores(predictions: pd.DataFrame, classes: Sequence[str]) -> Scorer | None:
    """AUROC: of class 1 for two classes, else the mean of one class against the rest over the classes with samples."""
    if "probabilities" not in predictions:
        return None
    label_N, probabilities_NK = predictions["label"].to_numpy(), _stacked(predictions["probabilities"])
    of_class = [1] if len(classes) == 2 else range(len(classes))
    ranked = [RankedScores(label_N == k, probabilities_NK[:, k]) for k in of_class]

    def areas(weight_RN: Array) -> dict[str, Array]:
        area_KR = np.stack([scores.area(weight_RN.astype(np.float32)) for scores in ranked])
        defined_R = np.isfinite(area_KR).sum(0)
        total_R = np.nansum(area_KR, axis=0)
        return {"auroc": np.divide(total_R, defined_R, out=np.full(len(total_R), np.nan), where=defined_R > 0)}

    return areas


def point_scores(predictions: pd.DataFrame, classes: Sequence[str], choices: Choices) -> dict[str, float]:
    """Calibration error and log loss at temperature 1."""
    if "logits" not in predictions:
        return {}
    label_N, uncalibrated_NK = predictions["label"].to_numpy(dtype=np.int64), softmax(_stacked(predictions["logits"]))
    bins_3B = _bins(label_N, uncalibrated_NK, choices.get("bins", BINS))
    return {
        "ece_uncalibrated": float(calibration_error(bins_3B)),
        "log_loss_uncalibrated": float(log_loss(label_N, uncalibrated_NK).mean()),
    }


def _bins(label_N: NDArray[np.int64], probabilities_NK: NDArray[np.float64], bins: int) -> NDArray[np.float64]:
    return bin_sums(probabilities_NK.max(1), probabilities_NK.argmax(1) == label_N, bins)


def sample_scores(predictions: pd.DataFrame) -> Array:
    """1 where the prediction is right, else 0."""
    return np.asarray(predictions["label"].to_numpy() == predictions["predicted"].to_numpy(), dtype=np.float64)


def confusion(predictions: pd.DataFrame, classes: Sequence[str]) -> NDArray[np.int64]:
    """Samples (K, K): rows are the labels, columns the predicted classes."""
    return class_scores.confusion(predictions["label"], predictions["predicted"], len(classes))


def baseline(predictions: pd.DataFrame, card: DatasetCard) -> dict[str, float | str]:
    """Scores of always predicting the class that is most frequent in train (of equals the first)."""
    frequent = int(np.argmax([card.counts["train"].get(name, 0) for name in card.classes]))
    constant = predictions[["label"]].assign(predicted=frequent)
    values = class_scores.confusion_scores(confusion(constant, card.classes), card.classes, METRICS)
    return {**values, "class": card.classes[frequent]}


def notes(predictions: pd.DataFrame, classes: Sequence[str], scores: Mapping[str, float]) -> list[str]:
    """Classes without samples, classes that are never predicted, a missing AUROC."""
    counts_KK = confusion(predictions, classes)
    sentences = class_scores.class_notes(counts_KK, classes, "sample", "precision there counts as 0")
    if "auroc" not in scores:
        sentences.append("AUROC is left out: this split has samples of one class only.")
    return sentences


def tables(predictions: pd.DataFrame, classes: Sequence[str], choices: Choices) -> dict[str, pd.DataFrame]:
    """reliability.csv, and confusion.csv with a row a sample, which DVC's confusion plots read."""
    label_N, predicted_N = (predictions[name].to_numpy(dtype=np.int64) for name in ("label", "predicted"))
    class_K = np.asarray(classes, dtype=object)
    stages = {"before": softmax(_stacked(predictions["logits"])), "after": _stacked(predictions["probabilities"])}
    bins = {stage: _bins(label_N, shares_NK, choices.get("bins", BINS)) for stage, shares_NK in stages.items()}
    pairs = pd.DataFrame({"actual": class_K[label_N], "predicted": class_K[predicted_N]})
    return {"reliability": reliability(bins), "confusion": pairs}


def test_tables(
    predictions: pd.DataFrame,
    classes: Sequence[str],
    scores: Mapping[str, float],
    intervals: Mapping[str, tuple[float, float]],
) -> dict[str, pd.DataFrame]:
    """per_class.csv, and the curves roc.csv and pr.csv."""
    counts_KK = confusion(predictions, classes)
    counts = {"support": counts_KK.sum(1), "predicted": counts_KK.sum(0)}
    per_class = class_scores.per_class_table(classes, counts, ("precision", "recall", "f1"), scores, intervals)
    roc, pr = curve_points(predictions["label"], _stacked(predictions["probabilities"]), classes)
    return {"per_class": per_class, "roc": roc, "pr": pr}


def plots(tables: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The confusion matrix, reliability and, of the test split, ROC and precision-recall curves."""
    pairs = tables["confusion"].groupby(["actual", "predicted"], sort=True).size().reset_index(name="count")
    curves = {"ROC by class": "roc", "Precision and recall by class": "pr"}
    drawn = {
        title: tables[name].rename(columns={"class": "series"}) for title, name in curves.items() if name in tables
    }
    return {"Confusion": pairs, "Reliability": reliability_curve(tables["reliability"]), **drawn}


def errors(predictions: pd.DataFrame, classes: Sequence[str], most: int) -> pd.DataFrame:
    """Wrong predictions, the most confident one first.

    Returns:
        Columns index, id, actual, predicted, confidence, suspected_label_error; where predictions have the column
        view_probabilities one more, `timeline`: see `timelines`.
    """
    class_K = np.asarray(classes, dtype=object)
    table = predictions[["index", "id"]].reset_index(drop=True)
    table["actual"] = class_K[predictions["label"].to_numpy()]
    table["predicted"] = class_K[predictions["predicted"].to_numpy()]
    table["confidence"] = predictions["confidence"].to_numpy()
    table["suspected_label_error"] = suspected_label_errors(
        predictions["label"], _stacked(predictions["probabilities"])
    )
    if "view_probabilities" in predictions:
        table["timeline"] = timelines(predictions)
    wrong = table[table["actual"] != table["predicted"]]
    wrong = wrong.sort_values(["confidence", "id"], ascending=[False, True], kind="stable")
    return wrong.head(most).reset_index(drop=True)


def suspected_label_errors(label_N: ArrayLike, probabilities_NK: ArrayLike) -> NDArray[np.bool_]:
    """Samples whose label is probably wrong, by confident learning's rule (Northcutt, Jiang and Chuang 2021).

    A class's threshold is the mean probability that it gets on the samples labelled as it. Among the classes whose
    probability reaches their threshold the most probable one is the likely true label; a sample is suspected when that
    is not its label. (cleanlab, which has the rule, is under the AGPL.) The probabilities must be out-of-sample.

    Returns:
        (N,) bool.
    """
    label_N, probabilities_NK = np.asarray(label_N), np.asarray(probabilities_NK, dtype=np.float64)
    threshold_K = np.full(probabilities_NK.shape[1], np.inf)
    for label in np.unique(label_N):
        threshold_K[label] = probabilities_NK[label_N == label, label].mean()
    reached_NK = probabilities_NK >= threshold_K - 1e-12
    likely_N = np.where(reached_NK, probabilities_NK, -1.0).argmax(1)
    return np.asarray(reached_NK.any(1) & (likely_N != label_N))


def timelines(predictions: pd.DataFrame) -> list[str]:
    """As JSON, of each row the probability of its `answer` and of its `label` in each view of the video, in order."""
    columns = (predictions[name].to_list() for name in ("view_probabilities", "predicted", "label"))
    texts = []
    for views, predicted, label in zip(*columns, strict=True):
        share_VK = np.stack(list(views)).round(4)
        texts.append(json.dumps({"answer": share_VK[:, predicted].tolist(), "label": share_VK[:, label].tolist()}))
    return texts


def gallery_image(split: Split, row: pd.Series[Any], out: Path) -> NDArray[np.uint8]:
    """The image; of a clip some of its frames side by side."""
    return frame_strip(split.images([int(row["index"])])[0])


def explained(predictions: pd.DataFrame, classes: Sequence[str], most: int) -> pd.DataFrame:
    """The most confident errors and as many right predictions, spread over the classes, of the class predicted."""
    right_N = predictions["predicted"] == predictions["label"]
    in_order = predictions.sort_values(["confidence", "index"], ascending=[False, True])
    wrong = in_order[~right_N[in_order.index]].head(most).assign(kind="error")
    right = in_order[right_N[in_order.index]]
    turn = right.groupby("label").cumcount()  # the surest of each class, then the second of each, ...
    right = right.assign(turn=turn).sort_values(["turn", "label"]).head(most).drop(columns="turn").assign(kind="right")
    rows = pd.concat([wrong, right], ignore_index=True)
    class_K = np.asarray(classes, dtype=object)
    predicted_N, label_N = (rows[name].to_numpy(dtype=np.int64) for name in ("predicted", "label"))
    table = rows[["index", "id"]].assign(actual=class_K[label_N], predicted=class_K[predicted_N])
    table = table.assign(confidence=rows["confidence"], kind=rows["kind"], output=predicted_N)
    return table.assign(timeline=timelines(rows)) if "view_probabilities" in rows else table


def disagreement(tables: Sequence[pd.DataFrame]) -> list[int]:
    """Rows predicted as different classes: most classes first, then the surest wrong prediction, then by id."""
    predicted_NM, confidence_NM = (
        np.stack([table[name].to_numpy() for table in tables], axis=1) for name in ("predicted", "confidence")
    )
    kinds_N = np.array([len(set(row)) for row in predicted_NM.tolist()])
    wrong_NM = predicted_NM != tables[0]["label"].to_numpy()[:, None]
    surest_N = np.where(wrong_NM, confidence_NM, 0.0).max(1)
    order = np.lexsort((np.arange(len(kinds_N)), -surest_N, -kinds_N))
    return [int(row) for row in order if kinds_N[row] > 1]


def compared(
    tables: Sequence[pd.DataFrame], row: int, classes: Sequence[str]
) -> tuple[str, list[tuple[str, float, bool]]]:
    """The label, and of each model the class predicted, its probability and whether it is right."""
    label = int(tables[0]["label"].iloc[row])
    pairs = [(int(table["predicted"].iloc[row]), float(table["confidence"].iloc[row])) for table in tables]
    return classes[label], [(classes[predicted], share, predicted == label) for predicted, share in pairs]
