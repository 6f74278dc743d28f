"""An untrained model in two forms, and an app about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from apps import Made, Served, Serving
from starlette.testclient import TestClient

from exported import FACTS, write_file, write_trained
from stillframe.inference.onnx_model import OnnxModel
from stillframe.model_metadata import digest_of
from stillframe.serving.app import make_app
from stillframe.serving.service import Service
from stillframe.serving.settings import read


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = write_trained(tmp_path_factory.mktemp("served"))
    write_file(folder / "model.onnx")
    return Made(folder / "model.onnx", folder, FACTS)


@pytest.fixture
def serving(made: Made) -> Iterator[Serving]:
    """Starts apps; `model` is asked instead of the exported file, `keys` are the API keys, the rest are settings."""
    with ExitStack() as stack:

        def start(model: Any = None, keys: tuple[bytes, ...] = (), **settings: Any) -> Served:
            opened = model or OnnxModel(made.file, threads=1, spin=False)
            service = Service(opened, read(None, threads=1, **settings), digest_of(made.file))
            client = stack.enter_context(TestClient(make_app(service, keys), raise_server_exceptions=False))
            return Served(client, service, opened)

        yield start


@pytest.fixture
def client(serving: Serving) -> TestClient:
    return serving().client
