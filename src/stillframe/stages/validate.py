"""Stage 6: the best model on the validation split. What is tuned is tuned here and frozen; a bar can stop the DAG."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from stillframe.config import Tracking, Trainer, Validate, read_params
from stillframe.fit.tracking import attach, start_ahead
from stillframe.paths import PREPARED, TRAIN, VALIDATE, fresh_folder, write_json
from stillframe.sample import Card


def run(
    task: str,
    data_symmetry: str,
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
    from stillframe.measure.choices import choose, refusal, verdict
    from stillframe.measure.decide import with_decisions
    from stillframe.measure.tables import write_validation_tables

    facts = Card.read(card)
    tta = data_symmetry if validate.tta == "data" else "none"
    predictions = predict_split(trained, val, trainer, tta=tta, batch_size=validate.batch_size)
    choices = choose(predictions, validate, facts, tta)
    predictions = with_decisions(predictions, choices)
    out = fresh_folder(validated)
    predictions.to_parquet(out / "predictions.parquet", index=False)
    metrics = write_validation_tables(predictions, facts, validate.bins, out)
    choices["verdict"] = verdict(metrics, validate.require, facts)
    write_json(out / "choices.json", choices)
    _record(trained, tracking, metrics, choices)
    _say(metrics, choices)
    if not choices["verdict"]["passed"]:
        raise ValueError(refusal(choices["verdict"]))


def _say(metrics: dict[str, float], choices: dict[str, Any]) -> None:
    shown = "  ".join(
        f"{name} {metrics[name]:.4f}" for name in ("accuracy", "f1_macro", "auroc", "ece") if name in metrics
    )
    print(f"validation: {shown}  (temperature {choices['temperature']:.3f})")


def _record(trained: Path, tracking: Tracking, metrics: dict[str, float], choices: dict[str, Any]) -> None:
    record = attach(trained / "run.json", tracking)
    record.metrics(
        {f"val/{name}": value for name, value in metrics.items()} | {"val/temperature": choices["temperature"]}
    )
    record.tags({"stillframe.bar": "passed" if choices["verdict"]["passed"] else "failed"})
    record.close()


if __name__ == "__main__":
    try:
        start_ahead()
        task_name, data, *sections = read_params("task", "data", "trainer", "validate", "tracking")
        run(task_name, data.symmetry, *sections)
    except (ValueError, OSError) as problem:
        sys.exit(f"validate: {problem}")
