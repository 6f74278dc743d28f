"""Predicted labels, each with its calibrated probability, by the frozen thresholds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from stillframe.model_metadata import ModelMetadata
from stillframe.tasks.base_output import Caption, Distance
from stillframe.tasks.classification.output import DIGITS, LONGEST_NAME
from stillframe.tasks.response import HeatMap, ImageFile

if TYPE_CHECKING:
    from stillframe.tasks.base_output import Arrays, Strip

noun, full_size, unit, difference = "label", False, "decisions", "probability"
blended = file_column = ""
SEPARATOR = "|"  # between names in a cell


@dataclass(frozen=True)
class LabelsPrediction:
    """The prediction for one image: calibrated probabilities (K,), and whether each label is predicted (K,)."""

    probability_K: NDArray[np.floating[Any]]
    decision_K: NDArray[np.bool_]

    def names(self, metadata: ModelMetadata) -> list[str]:
        """The predicted labels."""
        return [name for name, here in zip(metadata.classes, self.decision_K, strict=True) if here]

    def rounded(self, metadata: ModelMetadata) -> dict[str, float]:
        """Probability by label, as it is written."""
        return {name: round(float(x), DIGITS) for name, x in zip(metadata.classes, self.probability_K, strict=True)}


class Prediction(BaseModel):
    """The answer about one image."""

    name: str = Field(examples=["street.png"])
    labels: list[str] = Field(description="those that reach their frozen thresholds; may be empty")
    probabilities: dict[str, float] = Field(description="by label, calibrated; they have no fixed sum")
    file: ImageFile
    heat_map: HeatMap | None


schema = Prediction


def decode(strips: Iterable[Strip], height: int, width: int, metadata: ModelMetadata) -> LabelsPrediction:
    """The prediction; an image's size does not matter."""
    ((_, arrays),) = strips
    return LabelsPrediction(arrays["probability"], arrays["decision"].astype(bool))


def distance(first: Arrays, second: Arrays, target: Arrays) -> Distance:
    """Largest difference of a probability, and how many decisions differ."""
    largest = float(np.abs(first["probability"] - second["probability"]).max())
    return Distance(largest, int((first["decision"] != second["decision"]).sum()), len(first["decision"]))


def scored_row(arrays: Arrays, target: Arrays, classes: Sequence[str]) -> dict[str, Any]:
    """Columns labels and predicted."""
    return {"labels": target["labels"], "predicted": arrays["decision"].astype(bool)}


def columns(metadata: ModelMetadata) -> dict[str, type]:
    """The predicted labels, joined, and the probability of each label."""
    return {"predicted": str, "reason": str, "heat": str} | {f"probability/{name}": float for name in metadata.classes}


def row(prediction: LabelsPrediction, metadata: ModelMetadata) -> dict[str, Any]:
    """The values of `columns`."""
    probabilities = {f"probability/{name}": x for name, x in prediction.rounded(metadata).items()}
    return {"predicted": SEPARATOR.join(prediction.names(metadata)), **probabilities}


def caption(prediction: LabelsPrediction, metadata: ModelMetadata) -> Caption:
    """The labels; the colour is that of the most probable one."""
    text = ", ".join(" ".join(name.split()) for name in prediction.names(metadata)) or "no label"
    return Caption(text[:LONGEST_NAME], explained(prediction), float(prediction.probability_K.max()))


def response(prediction: LabelsPrediction, metadata: ModelMetadata) -> dict[str, Any]:
    """The fields of `Prediction`."""
    return {"labels": prediction.names(metadata), "probabilities": prediction.rounded(metadata)}


def served_columns(metadata: ModelMetadata) -> dict[str, type]:
    """The labels, joined, and the probability of each label."""
    return {"predicted": str} | {f"probability/{name}": float for name in metadata.classes}


def served_row(prediction: LabelsPrediction, metadata: ModelMetadata) -> dict[str, Any]:
    """The values of `served_columns`."""
    return row(prediction, metadata)


def counted(prediction: LabelsPrediction, metadata: ModelMetadata) -> tuple[list[str], float | None]:
    """The labels; a set of them has no single confidence."""
    return prediction.names(metadata), None


def explained(prediction: LabelsPrediction) -> int:
    """The most probable label."""
    return int(prediction.probability_K.argmax())


def evidence(arrays: Arrays, output: int) -> NDArray[Any]:
    """The probability of the label."""
    return np.asarray(arrays["probability"][:, output])
