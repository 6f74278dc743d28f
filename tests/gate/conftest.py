"""One MLflow store for all tests of a session: making one takes seconds. Each test has a model name of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from checkouts import params

from stillframe.config import Tracking
from stillframe.fit.sending import connect, experiment_id

TRACKING = Tracking("stillframe", None, 10.0, 5.0)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """URI of a sqlite store."""
    folder = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    experiment_id(connect(TRACKING, uri), "stillframe", uri)
    return uri


@pytest.fixture
def client(store: str) -> Any:
    """Of the store."""
    return connect(TRACKING, store)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty checkout, which is the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    params(tmp_path)
    return tmp_path
