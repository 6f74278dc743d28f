"""Stage 6: the best checkpoint on the validation split. What is tuned is tuned here and frozen; a bar can stop the DAG."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pandas as pd

from stillframe.config import Tracking, Trainer, Validate, read_params
from stillframe.paths import PREPARED, TRAIN, VALIDATE, fresh_folder, write_json
from stillframe.sample import Card


def choose(predictions: pd.DataFrame, validate: Validate, card: Card) -> dict[str, Any]:
    """Temperature and threshold, tuned on the validation split, with the reason where one was left neutral."""
    import numpy as np

    from stillframe.measure.calibrate import best_threshold, fit_temperature, softmax

    logits_NK, label_N = np.stack(predictions["logits"].to_list()), predictions["label"].to_numpy()
    notes = []
    temperature = threshold = None
    if validate.calibrate:
        temperature, note = fit_temperature(logits_NK, label_N)
        notes.append(note)
    binary = len(card.classes) == 2
    if validate.threshold == "f1" or (validate.threshold == "auto" and binary):
        if not binary:
            raise ValueError(
                f"validate.threshold = 'f1' needs two classes, not {len(card.classes)}: use argmax"
            )
        threshold, note = best_threshold(label_N, softmax(logits_NK, temperature or 1.0)[:, 1])
        notes.append(note)
    return {
        "temperature": temperature or 1.0,
        "threshold": threshold,
        "tta": validate.tta,
        "bins": validate.bins,
        "notes": [note for note in notes if note],
    }


def verdict(metrics: dict[str, float], require: dict[str, float], card: Card) -> dict[str, Any]:
    """Each rule of the bar with its number (ValueError: a rule about a metric that does not exist)."""
    from stillframe.config import nearest

    rules = []
    for metric, least in require.items():
        if metric not in metrics:
            raise ValueError(
                f"validate.require.{metric} = {least}: no such metric on this split: {nearest(metric, metrics)}"
            )
        rules.append(
            {"metric": metric, "least": least, "value": metrics[metric], "passed": metrics[metric] >= least}
        )
    return {"passed": all(rule["passed"] for rule in rules), "rules": rules}


def run(
    task: str,
    trainer: Trainer,
    validate: Validate,
    tracking: Tracking,
    *,
    trained: Path = TRAIN,
    val: Path = PREPARED / "val",
    card: Path = PREPARED / "card.json",
    validated: Path = VALIDATE,
) -> None:
    """Score the validation split and write `validated`.

    Raises:
        ValueError: the model does not pass the bar; the numbers are in the message and in `validated`.
    """
    from stillframe.fit.infer import predict_split
    from stillframe.measure.decide import with_decisions
    from stillframe.measure.tables import write_validation_tables

    facts = Card.read(card)
    predictions = predict_split(trained, val, trainer, tta=validate.tta, batch_size=validate.batch_size)
    choices = choose(predictions, validate, facts)
    predictions = with_decisions(predictions, choices)
    out = fresh_folder(validated)
    predictions.to_parquet(out / "predictions.parquet", index=False)
    metrics = write_validation_tables(predictions, facts, validate.bins, out)
    choices["verdict"] = verdict(metrics, validate.require, facts)
    write_json(out / "choices.json", choices)
    _record(trained, tracking, metrics, choices)
    _say(metrics, choices)
    if not choices["verdict"]["passed"]:
        raise ValueError(_refusal(choices["verdict"]))


def _refusal(bar: dict[str, Any]) -> str:
    lines = [
        f"  {rule['metric']}: {rule['value']:.4f}, at least {rule['least']} is required"
        for rule in bar["rules"]
        if not rule["passed"]
    ]
    return "the model does not pass validate.require, so it does not meet the test split:\n" + "\n".join(
        lines
    )


def _say(metrics: dict[str, float], choices: dict[str, Any]) -> None:
    shown = "  ".join(
        f"{name} {metrics[name]:.4f}" for name in ("accuracy", "f1_macro", "auroc", "ece") if name in metrics
    )
    print(f"validation: {shown}  (temperature {choices['temperature']:.3f})")


def _record(trained: Path, tracking: Tracking, metrics: dict[str, float], choices: dict[str, Any]) -> None:
    from stillframe.fit.tracking import attach

    record = attach(trained / "run.json", tracking)
    record.metrics(
        {f"val/{name}": value for name, value in metrics.items()}
        | {"val/temperature": choices["temperature"]}
    )
    record.tags({"stillframe.bar": "passed" if choices["verdict"]["passed"] else "failed"})
    record.close()


if __name__ == "__main__":
    try:
        run(*read_params("task", "trainer", "validate", "tracking"))
    except (ValueError, OSError) as problem:
        sys.exit(f"validate: {problem}")
