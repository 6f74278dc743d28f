"""An empty checkout for the gate's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkouts import params


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty checkout, which is the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    params(tmp_path)
    return tmp_path
