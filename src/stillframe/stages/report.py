"""Stage 9: one page about all of it, for someone who was not there; also sent to the model's MLflow run."""

from __future__ import annotations

import sys
from pathlib import Path

from stillframe.config import Tracking, read_params
from stillframe.fit.tracking import start_ahead
from stillframe.paths import AUGMENTED, EVALUATE, EXPORT, PARAMS, PREPARED, REPORT, TRAIN, VALIDATE


def run(
    tracking: Tracking,
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
    from stillframe.fit.lineage import dvc_hashes
    from stillframe.fit.tracking import record_report
    from stillframe.report.inputs import read_inputs
    from stillframe.report.page import build_report
    from stillframe.report.words import headline

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
