"""Predictions of class maps: an image's own size, decided from probabilities that are brought to it."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from stillframe.drawing.class_map import UNDECIDED, encode_class_map, overlay_class_map, palette
from stillframe.ingest.decode import scaled
from stillframe.model_metadata import ModelMetadata
from stillframe.tasks.base_output import Caption, Distance
from stillframe.tasks.response import PNG, ImageFile

if TYPE_CHECKING:
    from stillframe.tasks.base_output import Arrays, Strip

noun, full_size, unit, difference = "mask", True, "pixels", "probability"
blended, file_column = "probabilities", "mask"
DIGITS = 6  # of written shares
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class ClassMap:
    """The class map of one image, at its own size.

    Attributes:
        class_HW: uint8, class indices; UNDECIDED where the network saw nothing: what `data.resize` crop cuts away.
        share_K: of each class in the other pixels.
        confidence: mean probability of the predicted classes, calibrated.
    """

    class_HW: NDArray[np.uint8]
    share_K: Floats
    confidence: float


class MaskPrediction(BaseModel):
    """The mask of one image."""

    name: str = Field(examples=["street.jpg"])
    mask: str = Field(
        description="indexed PNG of the image's own size in base64; values are class indices, 255: none",
        json_schema_extra=PNG,
    )
    confidence: float = Field(description="mean probability of the predicted classes, calibrated")
    shares: dict[str, float] = Field(description="of the pixels, by class")
    overlay: str | None = Field(
        description="with explain: the image under its mask, a PNG in base64", json_schema_extra=PNG
    )
    file: ImageFile


schema = MaskPrediction


def decode(strips: Iterable[Strip], height: int, width: int, metadata: ModelMetadata) -> ClassMap:
    """The class map of an image.

    Probabilities of a resized image are brought to its own size, bilinear, and decided there: contours do not show the
    steps of the size at which the network worked.
    """
    class_HW = np.full((height, width), UNDECIDED, dtype=np.uint8)
    pixels_K, confidence = np.zeros(len(metadata.classes), dtype=np.int64), 0.0
    for top, arrays in strips:
        probability_KHW = np.asarray(arrays["probabilities"], dtype=np.float32)
        if metadata.overlap is None:
            probability_KHW, rows, columns = crop_to_image(probability_KHW, height, width, metadata)
            part_HW, total = _enlarged(
                probability_KHW, rows.stop - rows.start, columns.stop - columns.start, metadata.threshold
            )
        else:
            part_HW = arrays["decisions"].astype(np.uint8)
            rows, columns = slice(top, top + len(part_HW)), slice(None)
            total = float(np.take_along_axis(probability_KHW, part_HW[None].astype(np.int64), axis=0).sum())
        class_HW[rows, columns] = part_HW
        pixels_K += np.bincount(part_HW.ravel(), minlength=len(pixels_K))
        confidence += total
    pixels = max(1, int(pixels_K.sum()))
    return ClassMap(class_HW, (pixels_K / pixels).astype(np.float32), confidence / pixels)


def crop_to_image(
    probability_KHW: Floats, height: int, width: int, metadata: ModelMetadata
) -> tuple[Floats, slice, slice]:
    """The part of a square output that shows the image, and the rows and columns of the image that it shows."""
    size, resize = metadata.size, metadata.resize
    if resize == "squash":
        return probability_KHW, slice(0, height), slice(0, width)
    new_height, new_width = scaled(height, width, size, resize)
    if resize == "pad":
        top, left = (size - new_height) // 2, (size - new_width) // 2
        part = probability_KHW[:, top : top + new_height, left : left + new_width]
        return part, slice(0, height), slice(0, width)
    spans = []
    for new, side in ((new_height, height), (new_width, width)):
        start = (new - size) // 2
        spans.append(slice(round(start * side / new), max(1, round((start + size) * side / new))))
    return probability_KHW, spans[0], spans[1]


def _enlarged(
    probability_KHW: Floats, height: int, width: int, threshold: float | None
) -> tuple[NDArray[np.uint8], float]:
    """The classes (height, width), and the sum of their probabilities; one class at a time, for memory's sake."""

    def plane(k: int) -> Floats:
        if probability_KHW.shape[1:] == (height, width):
            return np.array(probability_KHW[k])
        resized = cv2.resize(probability_KHW[k], (width, height), interpolation=cv2.INTER_LINEAR)
        return np.asarray(resized, dtype=np.float32)

    if threshold is not None:
        second = plane(1)
        class_HW = (second >= threshold).astype(np.uint8)
        return class_HW, float(np.where(class_HW == 1, second, 1 - second).sum())
    best, class_HW = plane(0), np.zeros((height, width), dtype=np.uint8)
    for k in range(1, len(probability_KHW)):
        value = plane(k)
        larger = value > best
        best[larger], class_HW[larger] = value[larger], k
    return class_HW, float(best.sum(dtype=np.float64))


def from_blended(values: NDArray[Any], metadata: ModelMetadata) -> Arrays:
    """Probabilities (K, H, W), and the class of each pixel."""
    decided = values.argmax(0) if metadata.threshold is None else values[1] >= metadata.threshold
    return {"probabilities": values, "decisions": decided.astype(np.uint8)}


def distance(first: Arrays, second: Arrays, target: Arrays) -> Distance:
    """Largest difference of a probability; pixels with another class, of those that are counted."""
    counted_HW = target["mask"] != UNDECIDED
    largest = float(np.abs(first["probabilities"] - second["probabilities"]).max())
    changed = int(((first["decisions"] != second["decisions"]) & counted_HW).sum())
    return Distance(largest, changed, int(counted_HW.sum()))


def scored_row(arrays: Arrays, target: Arrays, classes: Sequence[str]) -> dict[str, Any]:
    """Columns cell (true class * K + predicted class, of the pairs that occur) and pixels (how many of each)."""
    counted_HW = target["mask"] != UNDECIDED
    cell = target["mask"][counted_HW].astype(np.int64) * len(classes) + arrays["decisions"][counted_HW]
    cells, pixels = np.unique(cell, return_counts=True)
    return {"cell": cells, "pixels": pixels}


def join_rows(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The sums of the strips' pixels."""
    cell, pixels = (np.concatenate([row[name] for row in rows]) for name in ("cell", "pixels"))
    cells, inverse = np.unique(cell, return_inverse=True)
    return {"cell": cells, "pixels": np.bincount(inverse, weights=pixels).astype(np.int64)}


def columns(metadata: ModelMetadata) -> dict[str, type]:
    """The file of the mask, and the share of each class."""
    first = {"mask": str, "overlay": str, "confidence": float, "reason": str}
    return first | {f"share/{name}": float for name in metadata.classes}


def row(prediction: ClassMap, metadata: ModelMetadata) -> dict[str, Any]:
    """The values of `columns`."""
    shares = {f"share/{name}": round(value, DIGITS) for name, value in _shares(prediction, metadata).items()}
    return {"confidence": round(prediction.confidence, DIGITS), **shares}


def _shares(prediction: ClassMap, metadata: ModelMetadata) -> dict[str, float]:
    return {name: float(share) for name, share in zip(metadata.classes, prediction.share_K, strict=True)}


def encode(prediction: ClassMap, metadata: ModelMetadata) -> bytes:
    """An indexed PNG with the names of the classes."""
    return encode_class_map(prediction.class_HW, metadata.classes)


def legend(metadata: ModelMetadata) -> str:
    """Which value of a mask is which class, with its colour; 255 is no class."""
    text, colors = io.StringIO(), palette()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["value", "class", "colour"])
    rows = [*enumerate(metadata.classes), (UNDECIDED, "")]
    lines.writerows([value, name, "#" + bytes(colors[value]).hex()] for value, name in rows)
    return text.getvalue()


def draw(image_HWC: NDArray[np.uint8], prediction: ClassMap) -> NDArray[np.uint8]:
    """The image under its mask."""
    return overlay_class_map(image_HWC, prediction.class_HW)


def caption(prediction: ClassMap, metadata: ModelMetadata) -> Caption:
    """The class with the most pixels."""
    index = int(prediction.share_K.argmax())
    share = float(prediction.share_K[index])
    return Caption(f"{metadata.classes[index]}  {round(100 * share)} % of the pixels", index, share)


def response(prediction: ClassMap, metadata: ModelMetadata) -> dict[str, Any]:
    """The fields of `MaskPrediction`."""
    return {
        "mask": base64.b64encode(encode(prediction, metadata)).decode(),
        "confidence": round(prediction.confidence, DIGITS),
        "shares": {name: round(share, DIGITS) for name, share in _shares(prediction, metadata).items()},
    }


def served_columns(metadata: ModelMetadata) -> dict[str, type]:
    """The mask as indexed PNG, and the share of each class."""
    return {"mask": bytes, "confidence": float} | {f"share/{name}": float for name in metadata.classes}


def served_row(prediction: ClassMap, metadata: ModelMetadata) -> dict[str, Any]:
    """The values of `served_columns`."""
    shares = {f"share/{name}": share for name, share in _shares(prediction, metadata).items()}
    return {"mask": encode(prediction, metadata), "confidence": prediction.confidence, **shares}


def counted(prediction: ClassMap, metadata: ModelMetadata) -> tuple[list[str], float | None]:
    """The classes that the mask shows, and its confidence."""
    return [name for name, share in _shares(prediction, metadata).items() if share > 0], prediction.confidence
