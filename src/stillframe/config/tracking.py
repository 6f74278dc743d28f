"""Section `tracking`: the MLflow record."""

from __future__ import annotations

from typing import Annotated

from pydantic.dataclasses import dataclass

from stillframe.config.values import STRICT, Positive


@dataclass(frozen=True, config=STRICT)
class TrackingConfig:
    """Section `tracking`: the MLflow record; `MLFLOW_TRACKING_URI` goes before `uri`."""

    experiment: str
    uri: str | None  # null: sqlite in the repository
    timeout_s: Annotated[float, Positive]  # of one request
    flush_s: Annotated[float, Positive]  # how long the end of a stage waits for metrics that are still to be sent
