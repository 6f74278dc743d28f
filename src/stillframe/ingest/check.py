"""`stillframe check DIR`: the audit of a folder, in seconds, and nothing written."""

from __future__ import annotations

import tempfile
from pathlib import Path

from stillframe.config import DataConfig
from stillframe.ingest.audit import Audit
from stillframe.ingest.prepare import IngestError, survey_and_judge


def check_folder(path: Path, data: DataConfig, *, seed: int = 0) -> Audit:
    """Judge a folder as `preprocess` would; `Audit.error` says why preprocessing would stop, "" when it would not.

    Args:
        path: the folder, read in place.
        data: section `data` (its `path` and `fetch` are not looked at).
        seed: of the split.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no layout fits the folder.
    """
    with tempfile.TemporaryDirectory(prefix="stillframe-check-") as spool:
        try:
            return survey_and_judge(path, data, seed=seed, spool=Path(spool), keep_images=False)[1]
        except IngestError as stop:
            return stop.findings
