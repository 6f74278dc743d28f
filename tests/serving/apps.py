"""What the fixtures of this room give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

import exported
from stillframe.inference.trained_model import TrainedModel
from stillframe.model_metadata import ModelMetadata
from stillframe.serving.service import Service

SIDE = exported.SIDE


@dataclass(frozen=True)
class Made:
    """One net as a file, and as a folder of the train stage."""

    file: Path
    folder: Path
    facts: ModelMetadata

    def trained(self) -> TrainedModel:
        return TrainedModel(self.folder, self.facts)


@dataclass(frozen=True)
class Served:
    """A client of an app, and the service behind it."""

    client: TestClient
    service: Service
    model: Any


Serving = Callable[..., Served]
