"""An untrained model in two forms, and an app about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

import pytest
import torch
from apps import SIDE, Made, Served, Serving
from starlette.testclient import TestClient

from stillframe.nets import weights
from stillframe.nets.build import NetSpec, rebuild
from stillframe.paths import write_json
from stillframe.serve.app import make_app
from stillframe.serve.service import Service
from stillframe.serve.settings import read
from stillframe.ship.facts import Facts, digest_of
from stillframe.ship.graph import net_graph, save, whole
from stillframe.ship.model import Exported


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("served")
    torch.manual_seed(0)
    spec = NetSpec("plain_cnn", 2, 3, SIDE, [0.5] * 3, [0.05] * 3, 0.0, 0.0)
    net = rebuild(spec).eval()
    choices: dict[str, Any] = {"tta": "d4", "temperature": 1.3, "threshold": 0.4}
    image: dict[str, Any] = {"size": SIDE, "channels": 3, "resize": "pad", "min_px": 4, "max_megapixels": 1.0}
    origin = {"data": "tiny", "data_hash": "h1", "run_id": "r1", "git_commit": "c1"}
    facts = Facts(
        task="classification", classes=["cat", "dog ü"], net="plain_cnn", variant="fp32", **image, **choices, **origin
    )
    weights.save(net, folder / "model.safetensors")
    write_json(folder / "model.json", {"task": "classification", **asdict(spec)})
    save(whole(net_graph(net, facts), facts), folder / "model.onnx")
    return Made(folder / "model.onnx", folder, facts)


@pytest.fixture
def serving(made: Made) -> Iterator[Serving]:
    """Starts apps; `model` is asked instead of the exported file, `keys` are the API keys, the rest are settings."""
    with ExitStack() as stack:

        def start(model: Any = None, keys: tuple[bytes, ...] = (), **settings: Any) -> Served:
            opened = model or Exported(made.file, threads=1, spin=False)
            service = Service(opened, read(None, threads=1, **settings), digest_of(made.file))
            client = stack.enter_context(TestClient(make_app(service, keys), raise_server_exceptions=False))
            return Served(client, service, opened)

        yield start


@pytest.fixture
def client(serving: Serving) -> TestClient:
    return serving().client
