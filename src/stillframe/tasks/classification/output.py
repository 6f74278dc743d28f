"""Predictions of classes: calibrated probabilities, and the class by the frozen threshold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from stillframe.model_metadata import ModelMetadata
from stillframe.tasks.base_output import Caption, Distance
from stillframe.tasks.response import HeatMap, ImageFile

if TYPE_CHECKING:
    from stillframe.tasks.base_output import Arrays, Strip

noun, full_size, unit, difference = "label", False, "images", "probability"
blended = file_column = ""
DIGITS = 6  # of written probabilities
LONGEST_NAME = 40  # characters of a class in a video


@dataclass(frozen=True)
class ClassPrediction:
    """The prediction for one image or video.

    Attributes:
        probability_K: calibrated, sums to 1.
        index: of the predicted class.
    """

    probability_K: NDArray[np.floating[Any]]
    index: int


class Prediction(BaseModel):
    """The answer about one image."""

    name: str = Field(examples=["cell.png"])
    decision: str = Field(description="the class, by the frozen threshold", examples=["defective"])
    index: int = Field(description="of the class")
    probability: float = Field(description="of that class, calibrated")
    probabilities: dict[str, float] = Field(description="by class, calibrated")
    file: ImageFile
    heat_map: HeatMap | None


schema = Prediction


def decode(strips: Iterable[Strip], height: int, width: int, metadata: ModelMetadata) -> ClassPrediction:
    """The prediction; an image's size does not matter."""
    ((_, arrays),) = strips
    return ClassPrediction(arrays["probabilities"], int(arrays["decisions"]))


def average_views(arrays: Arrays, metadata: ModelMetadata) -> Arrays:
    """The prediction of the mean of the views' logits, as in evaluate.

    Up to a constant for each view its logits divided by the temperature are the logarithms of its probabilities.
    """
    probability_VK = np.maximum(arrays["probabilities"].astype(np.float64), np.finfo(np.float32).tiny)
    log_K = np.log(probability_VK).mean(0)
    share_K = np.exp(log_K - log_K.max())
    probability_K = share_K / share_K.sum()
    index = probability_K.argmax() if metadata.threshold is None else probability_K[1] >= metadata.threshold
    return {"probabilities": probability_K.astype(arrays["probabilities"].dtype), "decisions": np.int64(index)}


def distance(first: Arrays, second: Arrays, target: Arrays) -> Distance:
    """Largest difference of a probability, and whether the class differs."""
    largest = float(np.abs(first["probabilities"] - second["probabilities"]).max())
    return Distance(largest, int(first["decisions"] != second["decisions"]), 1)


def scored_row(arrays: Arrays, target: Arrays, classes: Sequence[str]) -> dict[str, Any]:
    """Columns label and predicted."""
    return {"label": int(target["label"]), "predicted": int(arrays["decisions"])}


def columns(metadata: ModelMetadata) -> dict[str, type]:
    """The predicted class, its probability, and the probability of each class."""
    first = {"predicted": str, "confidence": float, "reason": str, "heat": str}
    return first | {f"probability/{name}": float for name in metadata.classes}


def row(prediction: ClassPrediction, metadata: ModelMetadata) -> dict[str, Any]:
    """The values of `columns`."""
    values = [round(float(value), DIGITS) for value in prediction.probability_K]
    first = {"predicted": metadata.classes[prediction.index], "confidence": values[prediction.index]}
    return first | {f"probability/{name}": value for name, value in zip(metadata.classes, values, strict=True)}


def caption(prediction: ClassPrediction, metadata: ModelMetadata) -> Caption:
    """Class and probability."""
    name, share = metadata.classes[prediction.index], float(prediction.probability_K[prediction.index])
    return Caption(f"{' '.join(name.split())[:LONGEST_NAME]}  {round(100 * share)} %", prediction.index, share)


def response(prediction: ClassPrediction, metadata: ModelMetadata) -> dict[str, Any]:
    """The fields of `Prediction`."""
    values = [round(float(value), DIGITS) for value in prediction.probability_K]
    return {
        "decision": metadata.classes[prediction.index],
        "index": prediction.index,
        "probability": values[prediction.index],
        "probabilities": dict(zip(metadata.classes, values, strict=True)),
    }


def served_columns(metadata: ModelMetadata) -> dict[str, type]:
    """The decision, its probability, and the probability of each class."""
    return {"decision": str, "probability": float} | {f"probability/{name}": float for name in metadata.classes}


def served_row(prediction: ClassPrediction, metadata: ModelMetadata) -> dict[str, Any]:
    """The values of `served_columns`."""
    values = [float(value) for value in prediction.probability_K]
    first = {"decision": metadata.classes[prediction.index], "probability": values[prediction.index]}
    return first | {f"probability/{name}": value for name, value in zip(metadata.classes, values, strict=True)}


def counted(prediction: ClassPrediction, metadata: ModelMetadata) -> tuple[list[str], float | None]:
    """The class and its probability."""
    return [metadata.classes[prediction.index]], round(float(prediction.probability_K[prediction.index]), DIGITS)


def explained(prediction: ClassPrediction) -> int:
    """The predicted class."""
    return prediction.index


def evidence(arrays: Arrays, output: int) -> NDArray[Any]:
    """The probability of the class."""
    return np.asarray(arrays["probabilities"][:, output])
