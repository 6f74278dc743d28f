"""`stillframe check DIR`: the audit of a folder, in seconds, and nothing written."""

from __future__ import annotations

import tempfile
from pathlib import Path

from stillframe.config import DataConfig
from stillframe.ingest.audit import Audit
from stillframe.ingest.prepare import IngestError, survey_and_validate
from stillframe.ingest.target import Target


def check_folder(path: Path, data: DataConfig, target: Target, *, seed: int = 0) -> Audit:
    """Check a folder as `preprocess` would; `Audit.error` says why preprocessing would stop, "" when it would not.

    Args:
        path: the folder, read in place.
        data: section `data` (its `path` and `fetch` are not looked at).
        target: what the task knows of its targets.
        seed: of the split.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no layout fits the folder.
    """
    with tempfile.TemporaryDirectory(prefix="stillframe-check-") as work:
        try:
            return survey_and_validate(path, data, target, seed=seed, work=Path(work), keep_images=False)[1]
        except IngestError as stop:
            return stop.findings
