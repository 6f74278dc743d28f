"""Stage 7: the test split, used here and nowhere else: scores with intervals, tables, the gallery, explanations."""

from __future__ import annotations

import sys
from pathlib import Path

from stillframe.config import EvaluateConfig, TrackingConfig, TrainerConfig, read_params
from stillframe.paths import EVALUATE, PREPARED, TRAIN, VALIDATE, fresh_folder, read_json
from stillframe.tracking.record import attach, start_ahead
from stillframe.types import DatasetCard

SENT = ("predictions.parquet", "metrics.json", "intervals.json", "slices.csv")  # a later model is compared with them


def run(
    task: str,
    seed: int,
    trainer: TrainerConfig,
    evaluate: EvaluateConfig,
    tracking: TrackingConfig,
    *,
    trained: Path = TRAIN,
    validated: Path = VALIDATE,
    test: Path = PREPARED / "test",
    card: Path = PREPARED / "card.json",
    evaluated: Path = EVALUATE,
) -> None:
    """Score the test split with the frozen choices and write `evaluated`."""
    from stillframe.inference.split_predictor import SplitPredictor
    from stillframe.review.base import EvaluationContext
    from stillframe.review.kinds import review_of

    facts, choices, review = DatasetCard.read(card), read_json(validated / "choices.json"), review_of(task)
    asking = SplitPredictor(trained, test, trainer, choices["tta"], evaluate.batch_size)
    out = fresh_folder(evaluated)
    metrics = review.evaluate(asking, EvaluationContext(facts, choices, seed, evaluate, out))
    record(trained, tracking, metrics, [card, *(out / name for name in SENT)])
    shown = "  ".join(f"{name} {metrics[name]:.4f}" for name in review.shown[1] if name in metrics)
    print(f"test: {shown}")


def record(trained: Path, tracking: TrackingConfig, metrics: dict[str, float], files: list[Path]) -> None:
    """Send the test scores, and the answers behind them, to the model's MLflow run."""
    run_record = attach(trained / "run.json", tracking)
    run_record.metrics({f"test/{name}": value for name, value in metrics.items()})
    for path in files:
        run_record.artifact(path, "evaluate")
    run_record.close()


if __name__ == "__main__":
    try:
        start_ahead()
        run(*read_params("task", "seed", "trainer", "evaluate", "tracking"))
    except (ValueError, OSError) as problem:
        sys.exit(f"evaluate: {problem}")
