"""Predicted numbers, each in its own unit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, Field

from stillframe.model_metadata import ModelMetadata
from stillframe.tasks.base_output import Caption, Distance
from stillframe.tasks.response import ImageFile

if TYPE_CHECKING:
    from stillframe.tasks.base_output import Arrays, Strip

noun, full_size, unit, difference = "value", False, "images", "value"
blended = file_column = ""
DIGITS = 7  # significant, of written values: those of float32


class Value(BaseModel):
    """One number."""

    value: float = Field(examples=[41.5])
    unit: str = Field(description="empty: a plain number", examples=["years"])


class Prediction(BaseModel):
    """The answer about one image."""

    name: str = Field(examples=["portrait.png"])
    values: dict[str, Value] = Field(description="by name")
    file: ImageFile


schema = Prediction


def decode(strips: Iterable[Strip], height: int, width: int, metadata: ModelMetadata) -> list[float]:
    """The numbers (D,); an image's size does not matter."""
    ((_, arrays),) = strips
    return [float(f"{value:.{DIGITS}g}") for value in arrays["value"].tolist()]


def distance(first: Arrays, second: Arrays, target: Arrays) -> Distance:
    """Largest difference of a number; there is no decision that could change."""
    return Distance(float(np.abs(first["value"] - second["value"]).max()), 0, 1)


def scored_row(arrays: Arrays, target: Arrays, classes: Sequence[str]) -> dict[str, Any]:
    """Columns value (true) and predicted."""
    return {"value": target["value"], "predicted": arrays["value"]}


def columns(metadata: ModelMetadata) -> dict[str, type]:
    """One for each number, with its unit in the name."""
    return {**dict.fromkeys(titles(metadata), float), "reason": str}


def titles(metadata: ModelMetadata) -> list[str]:
    """`value/<name>`, or `value/<name> [<unit>]`."""
    facts = metadata.target
    return [
        f"value/{name} [{unit}]" if unit else f"value/{name}"
        for name, unit in zip(facts["names"], facts["units"], strict=True)
    ]


def row(prediction: list[float], metadata: ModelMetadata) -> dict[str, Any]:
    """The values of `columns`."""
    return dict(zip(titles(metadata), prediction, strict=True))


def text(prediction: list[float], metadata: ModelMetadata) -> str:
    """Numbers with their units, for a reader."""
    return ", ".join(
        f"{value:.4g} {unit}".strip() for value, unit in zip(prediction, metadata.target["units"], strict=True)
    )


def caption(prediction: list[float], metadata: ModelMetadata) -> Caption:
    """The numbers; the colour is that of the first one's place between the least and largest of training."""
    low, high = metadata.target["min"][0], metadata.target["max"][0]
    return Caption(text(prediction, metadata)[:50], 0, float(np.clip((prediction[0] - low) / (high - low), 0.0, 1.0)))


def response(prediction: list[float], metadata: ModelMetadata) -> dict[str, Any]:
    """The fields of `Prediction`."""
    facts = zip(metadata.target["names"], prediction, metadata.target["units"], strict=True)
    return {"values": {name: {"value": value, "unit": unit} for name, value, unit in facts}}


def served_columns(metadata: ModelMetadata) -> dict[str, type]:
    """As `columns`."""
    return dict.fromkeys(titles(metadata), float)


served_row = row


def counted(prediction: list[float], metadata: ModelMetadata) -> tuple[list[str], float | None]:
    """No class, no confidence."""
    return [], None
