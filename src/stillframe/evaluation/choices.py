"""What is tuned on the validation split and frozen, and the bar that a model must pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from stillframe.config import ValidateConfig, nearest
from stillframe.evaluation.calibration import best_threshold, fit_temperature, softmax
from stillframe.types import DatasetCard


def choose(predictions: pd.DataFrame, validate: ValidateConfig, card: DatasetCard, tta: str) -> dict[str, Any]:
    """Temperature and threshold, tuned on the validation split, with the reason where one was left neutral."""
    logits_NK, label_N = np.stack(predictions["logits"].to_list()), predictions["label"].to_numpy()
    notes = []
    temperature = threshold = None
    if validate.calibrate:
        temperature, note = fit_temperature(logits_NK, label_N)
        notes.append(note)
    binary = len(card.classes) == 2
    if validate.threshold == "f1" or (validate.threshold == "auto" and binary):
        if not binary:
            raise ValueError(f"validate.threshold = 'f1' needs two classes, not {len(card.classes)}: use argmax")
        threshold, note = best_threshold(label_N, softmax(logits_NK, temperature or 1.0)[:, 1])
        notes.append(note)
    return {
        "temperature": temperature or 1.0,
        "threshold": threshold,
        "tta": tta,
        "bins": validate.bins,
        "notes": [note for note in notes if note],
    }


def verdict(metrics: dict[str, float], require: dict[str, float], card: DatasetCard) -> dict[str, Any]:
    """Each rule of the bar with its number (ValueError: a rule about a metric that does not exist)."""
    rules = []
    for metric, least in require.items():
        if metric not in metrics:
            raise ValueError(
                f"validate.require.{metric} = {least}: no such metric on this split: {nearest(metric, metrics)}"
            )
        rules.append({"metric": metric, "least": least, "value": metrics[metric], "passed": metrics[metric] >= least})
    return {"passed": all(rule["passed"] for rule in rules), "rules": rules}


def refusal(bar: dict[str, Any]) -> str:
    """The rules that were not met, with their numbers."""
    lines = [
        f"  {rule['metric']}: {rule['value']:.4f}, at least {rule['least']} is required"
        for rule in bar["rules"]
        if not rule["passed"]
    ]
    return "the model does not pass validate.require, so it does not meet the test split:\n" + "\n".join(lines)
