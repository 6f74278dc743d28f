"""Scores of decisions about labels. Suffixes: N samples, K labels, R resamples, M models, S distinct scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit

from stillframe.config import ValidateConfig
from stillframe.tasks.calibration import (
    FEWEST,
    TINY,
    bin_sums,
    calibration_error,
    confidence_bins,
    fit_temperature,
    reliability,
    reliability_curve,
)
from stillframe.tasks.class_scores import per_class_table
from stillframe.tasks.classification.evaluation import BINS, gallery_image, names
from stillframe.tasks.curves import RankedScores, curve_points
from stillframe.tasks.multilabel.label_scores import label_scores
from stillframe.tasks.vector_collector import VectorCollector
from stillframe.types import DatasetCard

if TYPE_CHECKING:
    from stillframe.tasks.base_evaluation import Array, Choices, Collector, Scorer, Statistics

__all__ = ["gallery_image", "names"]
SLICE_METRICS = ("f1_macro", "f1_micro")
COMPARED = ("labels", "predicted")
TARGET = ("actual",)
TUNED = ("temperature",)
SAMPLE_SCORE = "share of labels right"
COLLECTOR = VectorCollector("logits", ("labels",))


def stand_in_names(tables: Sequence[pd.DataFrame]) -> Sequence[str]:
    """As many as there are labels in a row."""
    return [str(k) for k in range(max(len(table["labels"].iloc[0]) if len(table) else 0 for table in tables))]


def stacked(table: pd.DataFrame, column: str, kind: Any = np.float64) -> NDArray[Any]:
    """A column of lists as one array (N, K)."""
    return np.array([np.asarray(row, dtype=kind) for row in table[column]], dtype=kind).reshape(len(table), -1)


def best_threshold(positive_N: NDArray[np.bool_], probability_N: NDArray[np.float64]) -> float:
    """The probability from which on to answer a label, such that its F1 is highest.

    The middle between two neighbouring probabilities; of equally good ones the nearest to 0.5.
    """
    value_S, inverse, count_S = np.unique(probability_N, return_inverse=True, return_counts=True)
    cut_S = (np.r_[0.0, value_S[:-1]] + value_S) / 2  # all from value_S on is answered
    hits_S = np.cumsum(np.bincount(inverse, weights=positive_N)[::-1])[::-1]
    f1_S = 2 * hits_S / (np.cumsum(count_S[::-1])[::-1] + positive_N.sum())
    best = cut_S[f1_S >= f1_S.max() - 1e-12]
    return float(best[np.argmin(np.abs(best - 0.5))])


def tune(
    predict: Callable[[Collector], pd.DataFrame], section: ValidateConfig, card: DatasetCard
) -> tuple[pd.DataFrame, Choices]:
    """One temperature for all labels, and of each label the threshold with the best F1 ("argmax": 0.5)."""
    predictions, notes, temperature = predict(COLLECTOR), [], 1.0
    logits_NK, label_NK = stacked(predictions, "logits"), stacked(predictions, "labels", np.bool_)
    enough = len(predictions) >= FEWEST
    if section.calibrate and enough:
        # sigmoid(z) is the softmax of (0, z): each decision is a sample of two classes
        pair_D2 = np.stack([np.zeros(logits_NK.size), logits_NK.ravel()], axis=1)
        temperature, note = fit_temperature(pair_D2, label_NK.ravel())
        notes.append(note.replace("images", "decisions"))
    threshold_K = [0.5] * len(card.classes)
    if section.threshold != "argmax" and enough:
        probability_NK = expit(logits_NK / temperature)
        for k, name in enumerate(card.classes):
            if label_NK[:, k].all() or not label_NK[:, k].any():
                notes.append(f"The threshold of {name!r} stays 0.5: the validation images all have it, or none has.")
            else:
                threshold_K[k] = best_threshold(label_NK[:, k], probability_NK[:, k])
    if not enough:
        notes.append(f"Nothing is tuned: {len(predictions)} validation images are too few (at least {FEWEST}).")
    choices = {"temperature": temperature, "thresholds": threshold_K, "bins": section.bins}
    return with_decisions(predictions, choices), {**choices, "notes": [note for note in notes if note]}


def predict(
    predict: Callable[[Collector], pd.DataFrame], choices: Choices, card: DatasetCard, out: Path
) -> pd.DataFrame:
    """Logits, and decisions by the frozen choices."""
    return with_decisions(predict(COLLECTOR), choices)


def with_decisions(predictions: pd.DataFrame, choices: Mapping[str, Any]) -> pd.DataFrame:
    """Add the columns probability (calibrated) and predicted (booleans), lists of K."""
    probability_NK = expit(stacked(predictions, "logits") / choices["temperature"])
    decision_NK = probability_NK >= np.asarray(choices["thresholds"])
    return predictions.assign(probability=list(probability_NK), predicted=list(decision_NK))


def statistics(predictions: pd.DataFrame, classes: Sequence[str], choices: Choices) -> Statistics:
    """Counts of each label; with probabilities log loss, and the gap to the labels in each bin of probability.

    Raises:
        ValueError: a probability is not finite.
    """
    label_NK, decision_NK = (stacked(predictions, name, np.bool_) for name in ("labels", "predicted"))
    sums: Statistics = {"right": label_NK & decision_NK, "actual": label_NK, "predicted": decision_NK}
    sums |= {"exact": (label_NK == decision_NK).all(1), "n": np.ones(len(predictions))}
    if "probability" not in predictions:
        return sums
    probability_NK, bins = stacked(predictions, "probability"), choices.get("bins", BINS)
    if not np.isfinite(probability_NK).all():
        raise ValueError("probabilities hold NaN or infinity: the model is broken (did training diverge?)")
    gap_NB, row_N = np.zeros((len(predictions), bins)), np.arange(len(predictions))[:, None]
    np.add.at(gap_NB, (row_N, confidence_bins(probability_NK, bins)), probability_NK - label_NK)
    return sums | {"log_loss": log_loss(label_NK, probability_NK), "calibration_gap": gap_NB}


def log_loss(label_NK: NDArray[np.bool_], probability_NK: NDArray[np.float64]) -> NDArray[np.float64]:
    """Binary cross-entropy of each sample (N,), the mean over its labels."""
    own_NK = np.where(label_NK, probability_NK, 1 - probability_NK)
    return np.asarray(-np.log(np.clip(own_NK, TINY, 1.0)).mean(1))


def scores(sums: Mapping[str, Array], classes: Sequence[str]) -> dict[str, Array]:
    """Those of `label_scores`; log loss, and the calibration error (Guo et al. 2017) over all decisions together."""
    values = label_scores(sums, classes)
    if "log_loss" in sums:
        values["log_loss"] = sums["log_loss"] / sums["n"]
        values["ece"] = np.abs(sums["calibration_gap"]).sum(-1) / (sums["n"] * len(classes))
    return values


def rank_scores(predictions: pd.DataFrame, classes: Sequence[str]) -> Scorer | None:
    """mAP: the mean of the average precision over the labels that are present."""
    if "probability" not in predictions:
        return None
    label_NK, probability_NK = stacked(predictions, "labels", np.bool_), stacked(predictions, "probability")
    ranked = [RankedScores(label_NK[:, k], probability_NK[:, k]) for k in range(len(classes))]

    def mean_precision(weight_RN: Array) -> dict[str, Array]:
        precision_KR = np.stack([average_precision(label, weight_RN) for label in ranked])
        defined_R = np.isfinite(precision_KR).sum(0)
        total_R = np.nansum(precision_KR, axis=0)
        return {"map_macro": np.divide(total_R, defined_R, out=np.full(len(total_R), np.nan), where=defined_R > 0)}

    return mean_precision


def average_precision(ranked: RankedScores, weight_RN: Array) -> NDArray[np.float64]:
    """Sum over thresholds of precision times the gain in recall, as scikit-learn's: (R,); NaN without a positive."""
    weight_RN = weight_RN[:, ranked.order]
    positive_RS, every_RS = (
        np.add.reduceat(weight, ranked.starts, axis=1)[:, ::-1] for weight in (weight_RN * ranked.positive, weight_RN)
    )
    hits_RS, answers_RS = positive_RS.cumsum(1), every_RS.cumsum(1)
    precision_RS = np.divide(hits_RS, answers_RS, out=np.zeros_like(hits_RS), where=answers_RS > 0)
    total_R = hits_RS[:, -1]
    area_R = (precision_RS * positive_RS).sum(1)
    return np.asarray(np.divide(area_R, total_R, out=np.full(len(total_R), np.nan), where=total_R > 0))


def point_scores(predictions: pd.DataFrame, classes: Sequence[str], choices: Choices) -> dict[str, float]:
    """Calibration error at temperature 1."""
    if "logits" not in predictions:
        return {}
    return {"ece_uncalibrated": float(calibration_error(_bins(predictions, choices)["before"]))}


def _bins(predictions: pd.DataFrame, choices: Choices) -> dict[str, NDArray[np.float64]]:
    """Decisions, sum of probabilities and labels present by probability (3, B), before and after calibration."""
    shares = {"before": expit(stacked(predictions, "logits")), "after": stacked(predictions, "probability")}
    labels = stacked(predictions, "labels", np.bool_).ravel()
    return {stage: bin_sums(share.ravel(), labels, choices.get("bins", BINS)) for stage, share in shares.items()}


def sample_scores(predictions: pd.DataFrame) -> Array:
    """Share of a sample's decisions that are right."""
    labels, predicted = (stacked(predictions, name, np.bool_) for name in ("labels", "predicted"))
    return np.asarray((labels == predicted).mean(1))


def confusion(predictions: pd.DataFrame, classes: Sequence[str]) -> NDArray[np.int64] | None:
    """None: a sample is not of one class."""
    return None


def text(present_K: Any, classes: Sequence[str]) -> str:
    """The names of the labels that are present (K booleans)."""
    return ", ".join(name for name, here in zip(classes, present_K, strict=True) if here) or "no label"


def baseline(predictions: pd.DataFrame, card: DatasetCard) -> dict[str, float | str]:
    """Scores of predicting of each label what most train images have."""
    half = card.target["train_samples"] / 2
    majority_K = [card.counts["train"].get(name, 0) > half for name in card.classes]
    constant = pd.DataFrame({"labels": predictions["labels"], "predicted": [majority_K] * len(predictions)})
    sums = {name: np.asarray(part).sum(0) for name, part in statistics(constant, card.classes, {}).items()}
    values = {name: float(value) for name, value in label_scores(sums, card.classes).items() if np.isfinite(value)}
    return {**values, "class": text(majority_K, card.classes)}


def notes(predictions: pd.DataFrame, classes: Sequence[str], scores: Mapping[str, float]) -> list[str]:
    """Labels that no sample has, and labels that are never predicted."""
    actual_K, predicted_K = (stacked(predictions, name, np.bool_).any(0) for name in ("labels", "predicted"))
    absent_K, unused_K, sentences = ~actual_K, actual_K & ~predicted_K, []
    if absent_K.any():
        sentences.append(f"No sample has {text(absent_K, classes)}: macro averages and mAP are over the other labels.")
    if unused_K.any():
        sentences.append(f"The model never answers {text(unused_K, classes)}: precision there counts as 0.")
    return sentences


def tables(predictions: pd.DataFrame, classes: Sequence[str], choices: Choices) -> dict[str, pd.DataFrame]:
    """reliability.csv (share of the decisions at a probability whose label is present) and thresholds.csv."""
    curve = reliability(_bins(predictions, choices)).rename(columns={"accuracy": "present"})
    return {"reliability": curve, "thresholds": pd.DataFrame({"class": classes, "threshold": choices["thresholds"]})}


def test_tables(
    predictions: pd.DataFrame,
    classes: Sequence[str],
    scores: Mapping[str, float],
    intervals: Mapping[str, tuple[float, float]],
) -> dict[str, pd.DataFrame]:
    """per_class.csv, and the precision-recall curves pr.csv."""
    label_NK, probability_NK = stacked(predictions, "labels", np.bool_), stacked(predictions, "probability")
    counts = {"support": label_NK.sum(0), "predicted": stacked(predictions, "predicted", np.bool_).sum(0)}
    curves = []
    for k, name in enumerate(classes):
        pair_N2 = np.stack([1 - probability_NK[:, k], probability_NK[:, k]], axis=1)
        _, curve = curve_points(label_NK[:, k].astype(int), pair_N2, ["", name])
        curves.append(curve[curve["class"] == name])
    per_class = per_class_table(classes, counts, ("precision", "recall", "f1"), scores, intervals)
    return {"per_class": per_class, "pr": pd.concat(curves, ignore_index=True)}


def plots(tables: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Reliability and, of the test split, precision and recall by label."""
    drawn = {"Reliability": reliability_curve(tables["reliability"].rename(columns={"present": "accuracy"}))}
    if "pr" in tables:
        drawn["Precision and recall by label"] = tables["pr"].rename(columns={"class": "series"})
    return drawn


def errors(predictions: pd.DataFrame, classes: Sequence[str], most: int) -> pd.DataFrame:
    """Samples with wrong labels, most of them first, then by loss: index, id, actual, predicted, wrong, loss."""
    label_NK, decision_NK = (stacked(predictions, name, np.bool_) for name in ("labels", "predicted"))
    table = predictions[["index", "id"]].reset_index(drop=True)
    for name, present_NK in (("actual", label_NK), ("predicted", decision_NK)):
        table[name] = [text(row, classes) for row in present_NK]
    table["wrong"] = (label_NK != decision_NK).sum(1)
    table["loss"] = log_loss(label_NK, stacked(predictions, "probability"))
    worst = table[table["wrong"] > 0].sort_values(["wrong", "loss", "id"], ascending=[False, False, True])
    return worst.head(most).reset_index(drop=True)


def explained(predictions: pd.DataFrame, classes: Sequence[str], most: int) -> pd.DataFrame:
    """The worst samples, by the wrong label that is furthest off; and right ones, by their most probable label."""
    label_NK, probability_NK = stacked(predictions, "labels", np.bool_), stacked(predictions, "probability")
    wrong_NK = label_NK != stacked(predictions, "predicted", np.bool_)
    sure_NK = np.where(label_NK, probability_NK, 0.0)
    output_N = np.where(wrong_NK, np.abs(label_NK - probability_NK), np.where(wrong_NK.any(1)[:, None], 0.0, sure_NK))
    right = predictions[["index", "id"]].assign(kind="right", confidence=sure_NK.max(1))
    right["actual"] = right["predicted"] = [text(row, classes) for row in label_NK]
    right = right[~wrong_NK.any(1) & label_NK.any(1)].sort_values(["confidence", "index"], ascending=[False, True])
    table: pd.DataFrame = pd.concat(
        [errors(predictions, classes, most).assign(kind="error"), right.head(most)], ignore_index=True
    )
    outputs = pd.Series(output_N.argmax(1), index=predictions["index"])
    return table[["index", "id", "actual", "predicted", "kind"]].assign(output=outputs.loc[table["index"]].to_numpy())


def disagreement(tables: Sequence[pd.DataFrame]) -> list[int]:
    """Rows that are predicted differently: most labels in dispute first."""
    decision_MNK = np.stack([stacked(table, "predicted", np.bool_) for table in tables])
    disputed_N = (decision_MNK.any(0) & ~decision_MNK.all(0)).sum(1)
    return [int(row) for row in np.argsort(-disputed_N, kind="stable") if disputed_N[row]]


def compared(
    tables: Sequence[pd.DataFrame], row: int, classes: Sequence[str]
) -> tuple[str, list[tuple[str, float, bool]]]:
    """The labels, and of each model its labels, the share of decisions that are right, and whether all are."""
    pairs = [(table["predicted"].iloc[row], float(sample_scores(table.iloc[[row]])[0])) for table in tables]
    return text(tables[0]["labels"].iloc[row], classes), [(text(x, classes), share, share == 1.0) for x, share in pairs]
