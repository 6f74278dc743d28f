"""Stage 6: the best model on the validation split; what is tuned is frozen here; a low score stops the DAG."""

from __future__ import annotations

import sys
from pathlib import Path

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
        ValueError: the model does not meet `validate.require`; the numbers are in the message and in `validated`.
    """
    from stillframe.evaluation.requirements import check_requirements, refusal
    from stillframe.evaluation.write_tables import write_plots, write_validation
    from stillframe.inference.split_predictor import SplitPredictor
    from stillframe.tasks import find_task

    selected, facts, out = find_task(task), DatasetCard.read(card), fresh_folder(validated)
    names = selected.evaluation.names(facts)
    named = selected.named_metrics(names)
    for name in validate.require:
        selected.metric(name, names, key="validate.require")
    tta = data_symmetry if validate.tta == "data" else "none"
    # 1. Predict with what is tuned on this split, and score
    predictor = SplitPredictor(trained, val, trainer, tta, validate.batch_size)
    predictions, choices = selected.evaluation.tune(predictor, validate, facts)
    predictions.to_parquet(out / "predictions.parquet", index=False)
    metrics = write_validation(selected, predictions, facts, choices, out)
    write_plots(selected, out, "validation", trained / "history.csv")
    # 2. Freeze the choices; the test split is predicted with them
    choices |= {"tta": tta, "verdict": check_requirements(metrics, validate.require, named)}
    write_json(out / "choices.json", choices)
    tuned = {name: choices[name] for name in selected.evaluation.TUNED}
    _record(trained, tracking, {**metrics, **tuned}, choices["verdict"]["passed"])
    line = "  ".join(f"{name} {metrics[name]:.4f}" for name in selected.highlights if name in metrics)
    print(f"validation: {line}", *(f"({name} {value:.3f})" for name, value in tuned.items()), sep="  ")
    if not choices["verdict"]["passed"]:
        raise ValueError(refusal(choices["verdict"]))


def _record(trained: Path, tracking: TrackingConfig, metrics: dict[str, float], passed: bool) -> None:
    """Send scores and tuned numbers to the model's MLflow run."""
    record = attach(trained / "run.json", tracking)
    record.metrics({f"val/{name}": value for name, value in metrics.items()})
    record.tags({"stillframe.bar": "passed" if passed else "failed"})
    record.close()


if __name__ == "__main__":
    try:
        start_ahead()
        task_name, data, *sections = read_params("task", "data", "trainer", "validate", "tracking")
        run(task_name, data.symmetry, *sections)
    except (ValueError, OSError) as problem:
        sys.exit(f"validate: {problem}")
