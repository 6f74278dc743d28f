"""Stage 9: one page about all of it, for someone who was not there; also sent to the model's MLflow run."""

from __future__ import annotations

import sys
from pathlib import Path

from stillframe.config import TrackingConfig, read_params
from stillframe.paths import AUGMENTED, EVALUATE, EXPORT, PARAMS, PREPARED, REPORT, TRAIN, VALIDATE
from stillframe.tracking.record import start_ahead


def run(
    tracking: TrackingConfig,
    *,
    prepared: Path = PREPARED,
    augmented: Path = AUGMENTED,
    trained: Path = TRAIN,
    validated: Path = VALIDATE,
    evaluated: Path = EVALUATE,
    exported: Path = EXPORT,
    reported: Path = REPORT,
) -> None:
    """Write report.html and the figures into `reported`, and send them to the run named in run.json."""
    from stillframe.reporting.inputs import read_inputs
    from stillframe.reporting.page import build_report
    from stillframe.reporting.text import headline
    from stillframe.tracking.lineage import dvc_hashes
    from stillframe.tracking.record import record_report

    hashes = dvc_hashes(without=("report",))
    stages = (prepared, augmented, trained, validated, evaluated)
    page = build_report(*stages, reported, exported=exported, params=PARAMS, hashes=hashes)
    sentence = headline(read_inputs(*stages))
    note = f"{sentence} All of it on one page: Artifacts, report/report.html."
    record_report(trained / "run.json", reported, tracking, note)
    print(f"report: {page}")


if __name__ == "__main__":
    try:
        start_ahead()
        run(*read_params("tracking"))
    except (ValueError, OSError) as problem:
        sys.exit(f"report: {problem}")
