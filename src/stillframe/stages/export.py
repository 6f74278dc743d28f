"""Stage 8: one file that predicts as the model does, compared with it on the raw test files; what smaller ones cost."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from stillframe.config import (
    AugmentConfig,
    DataConfig,
    ExportConfig,
    ModelConfig,
    OptimConfig,
    TrackingConfig,
    TrainerConfig,
    read_params,
)
from stillframe.paths import AUGMENTED, EVALUATE, EXPORT, PREPARED, RAW, SOURCE, TRAIN, VALIDATE, fresh_folder
from stillframe.tracking.record import attach, start_ahead
from stillframe.types import DatasetCard


def run(
    task: str,
    seed: int,
    data: DataConfig,
    augment: AugmentConfig,
    model: ModelConfig,
    optim: OptimConfig,
    trainer: TrainerConfig,
    export: ExportConfig,
    tracking: TrackingConfig,
    *,
    source: Path = SOURCE,
    raw: Path = RAW,
    trained: Path = TRAIN,
    validated: Path = VALIDATE,
    evaluated: Path = EVALUATE,
    train: Path = PREPARED / "train",
    val: Path = PREPARED / "val",
    test: Path = PREPARED / "test",
    card: Path = PREPARED / "card.json",
    augmented: Path = AUGMENTED,
    exported: Path = EXPORT,
) -> None:
    """Write `exported`: model.onnx, the chosen variant, the others, and export.json, the table of all of them.

    Raises:
        ValueError: the network has no ONNX form, or the file is further from the model than `export.bound` allows.
    """
    from stillframe.export.exporter import MODEL, Exporter, ExportPaths
    from stillframe.export.format_table import format_table
    from stillframe.export.variants import ExportContext
    from stillframe.inference.trained_model import read_metadata
    from stillframe.tasks import find_task
    from stillframe.training.spec import TrainingSpec

    spec = TrainingSpec(task, seed, augment, model, optim, trainer, DatasetCard.read(card), train, val, augmented)
    metadata, out = read_metadata(trained, validated, card, data), fresh_folder(exported)
    paths = ExportPaths(source if source.exists() else raw, test, evaluated, out)
    table = Exporter(ExportContext(metadata, export, trained, spec, seed), data, paths).export()
    record(trained, tracking, table, out / MODEL)
    print(format_table(table, find_task(task)))
    print(f"export: {out / MODEL} ({table['chosen']})")


def record(trained: Path, tracking: TrackingConfig, table: dict[str, Any], model: Path) -> None:
    """Send the file and its numbers to the model's MLflow run."""
    run_record = attach(trained / "run.json", tracking)
    for row in table["variants"]:
        values = {key: value for key, value in row.items() if isinstance(value, int | float)} | row["metrics"]
        run_record.metrics({f"export/{row['name']}/{name}": float(value) for name, value in values.items()})
    run_record.tags({"stillframe.exported": table["chosen"]})
    run_record.artifact(model, "export")
    run_record.artifact(model.with_name("export.json"), "export")
    run_record.close()


if __name__ == "__main__":
    try:
        start_ahead()
        run(*read_params("task", "seed", "data", "augment", "model", "optim", "trainer", "export", "tracking"))
    except (ValueError, OSError) as problem:
        sys.exit(f"export: {problem}")
