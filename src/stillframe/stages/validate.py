"""Stage 6: the best model on the validation split. What is tuned is tuned here and frozen; a bar can stop the DAG."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from stillframe.config import TrackingConfig, TrainerConfig, ValidateConfig, read_params
from stillframe.paths import PREPARED, TRAIN, VALIDATE, fresh_folder, write_json
from stillframe.tracking.record import attach, start_ahead
from stillframe.types import DatasetCard


def run(
    task: str,
    data_symmetry: str,
    trainer: TrainerConfig,
    validate: ValidateConfig,
    tracking: TrackingConfig,
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
    from stillframe.evaluation.choices import refusal, verdict
    from stillframe.inference.split_predictor import SplitPredictor
    from stillframe.review.kinds import review_of

    facts, review, out = DatasetCard.read(card), review_of(task), fresh_folder(validated)
    tta = data_symmetry if validate.tta == "data" else "none"
    metrics, choices = review.validate(
        SplitPredictor(trained, val, trainer, tta, validate.batch_size), validate, facts, out
    )
    choices["verdict"] = verdict(metrics, validate.require, facts)
    write_json(out / "choices.json", choices)
    _record(trained, tracking, metrics, choices)
    _say(metrics, choices, review.shown[0])
    if not choices["verdict"]["passed"]:
        raise ValueError(refusal(choices["verdict"]))


def _say(metrics: dict[str, float], choices: dict[str, Any], names: tuple[str, ...]) -> None:
    shown = "  ".join(f"{name} {metrics[name]:.4f}" for name in names if name in metrics)
    print(f"validation: {shown}  (temperature {choices['temperature']:.3f})")


def _record(trained: Path, tracking: TrackingConfig, metrics: dict[str, float], choices: dict[str, Any]) -> None:
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
