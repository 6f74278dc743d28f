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
    from stillframe.evaluation.write_tables import write_evaluation, write_plots
    from stillframe.inference.split_predictor import SplitPredictor
    from stillframe.models.trained import load_net
    from stillframe.reporting.gallery import draw_explanations, draw_gallery
    from stillframe.tasks import find_task

    selected, facts = find_task(task), DatasetCard.read(card)
    choices, out = read_json(validated / "choices.json"), fresh_folder(evaluated)
    # 1. Predict, and write scores and tables
    predictor = SplitPredictor(trained, test, trainer, choices["tta"], evaluate.batch_size)
    predictions = selected.evaluation.predict(predictor, choices, facts, out)
    predictions.to_parquet(out / "predictions.parquet", index=False)
    options = {"bootstrap": evaluate.bootstrap, "gallery": evaluate.gallery}
    slices = list(dict.fromkeys([*facts.slices, *evaluate.slices]))
    metrics, gallery = write_evaluation(selected, predictions, facts, choices, out, seed=seed, slices=slices, **options)
    write_plots(selected, out, "test")
    # 2. Draw the errors, and what decided where the task can say it
    draw_gallery(selected, gallery, predictions, test, out)
    explained = selected.evaluation.explained(predictions, selected.evaluation.names(facts), evaluate.explain)
    if explained is not None:
        draw_explanations(load_net(trained)[0], explained, test, out / "explain")
    record(trained, tracking, metrics, [card, *(out / name for name in SENT)])
    line = "  ".join(f"{name} {metrics[name]:.4f}" for name in selected.highlights if name in metrics)
    print(f"test: {line}")


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
