"""Stage 8: one file that answers as the model does, held against it over the raw test files; what smaller ones cost."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from stillframe.config import Data, Export, Tracking, read_params
from stillframe.fit.tracking import attach, start_ahead
from stillframe.paths import EVALUATE, EXPORT, PREPARED, RAW, SOURCE, TRAIN, VALIDATE, fresh_folder


def run(
    seed: int,
    data: Data,
    export: Export,
    tracking: Tracking,
    *,
    source: Path = SOURCE,
    raw: Path = RAW,
    trained: Path = TRAIN,
    validated: Path = VALIDATE,
    evaluated: Path = EVALUATE,
    test: Path = PREPARED / "test",
    card: Path = PREPARED / "card.json",
    exported: Path = EXPORT,
) -> None:
    """Write `exported`: model.onnx, the chosen variant, and export.json, the table of all of them.

    Raises:
        ValueError: the net has no ONNX form, or the file's answers differ from the model's by more than `export.bound`.
    """
    from stillframe.ship.shipping import MODEL, Shipment
    from stillframe.ship.trained import facts_of
    from stillframe.ship.words import table_of

    folder = source if source.exists() else raw
    facts, out = facts_of(trained, validated, card, data), fresh_folder(exported)
    shipment = Shipment(facts, data, export, seed=seed, source=folder, test=test, trained=trained, out=out)
    table = shipment.ship(evaluated)
    record(trained, tracking, table, out / MODEL)
    print(table_of(table))
    print(f"export: {out / MODEL} ({table['chosen']})")


def record(trained: Path, tracking: Tracking, table: dict[str, Any], model: Path) -> None:
    """Send the file and its numbers to the model's MLflow run."""
    run_record = attach(trained / "run.json", tracking)
    for row in table["variants"]:
        values = {key: row[key] for key in ("bytes", "latency_ms_p50", "latency_ms_p99", "images_per_s")}
        values |= {**row["metrics"], "max_probability_difference": row["max_probability_difference"]}
        values["changed_decisions"] = row["changed_decisions"]
        run_record.metrics({f"export/{row['name']}/{name}": float(value) for name, value in values.items()})
    run_record.tags({"stillframe.exported": table["chosen"]})
    run_record.artifact(model, "export")
    run_record.artifact(model.with_name("export.json"), "export")
    run_record.close()


if __name__ == "__main__":
    try:
        start_ahead()
        run(*read_params("seed", "data", "export", "tracking"))
    except (ValueError, OSError) as problem:
        sys.exit(f"export: {problem}")
