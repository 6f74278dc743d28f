"""What the fixtures of this room give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

import exported
from stillframe.serve.service import Service
from stillframe.ship.facts import Facts
from stillframe.ship.trained import Trained

SIDE = exported.SIDE


@dataclass(frozen=True)
class Made:
    """One net as a file, and as a folder of the train stage."""

    file: Path
    folder: Path
    facts: Facts

    def trained(self) -> Trained:
        return Trained(self.folder, self.facts)


@dataclass(frozen=True)
class Served:
    """A client of an app, and the service behind it."""

    client: TestClient
    service: Service
    model: Any


Serving = Callable[..., Served]
