"""Masks from a file, or from the net itself: of an image as evaluate counted it, or at the image's own size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from stillframe.inference.model_metadata import ModelMetadata
from stillframe.inference.onnx_model import Image, ModelOutputs, check
from stillframe.ingest.decode import scaled
from stillframe.ingest.tiles import TileRows, cut, grid
from stillframe.tasks.segmentation import IGNORE
from stillframe.tasks.segmentation.pixel_scores import decide_pixels

MASK = "mask"  # of `ModelMetadata.answer`
TILE_PX = 1 << 20  # pixels of tiles asked at a time, about
Floats = NDArray[np.float32]


class BatchPredictor(Protocol):
    """What answers images of one size together: `Exported`, `Trained`."""

    @property
    def facts(self) -> ModelMetadata:
        """What decides its answers."""

    def batch(self, image_NHWC: NDArray[np.uint8]) -> ModelOutputs:
        """Probabilities (N, K, S, S) and decisions (N, S, S)."""


@dataclass(frozen=True)
class Mask:
    """The answer for an image, at its own size.

    Attributes:
        answer_HW: uint8, class indices; IGNORE where nothing is said: what `data.resize` crop cuts away.
        share_K: of each class in the pixels about which something is said.
        confidence: mean probability of the answers, calibrated.
    """

    answer_HW: NDArray[np.uint8]
    share_K: Floats
    confidence: float


def as_evaluated(file: BatchPredictor, image: Image) -> Iterator[tuple[int, Floats, NDArray[np.uint8]]]:
    """The answer to a decoded image at the size at which masks are scored, from above to below.

    Yields:
        The first row of a part, its probabilities (K, rows, W) and answers (rows, W). Of an image that is resized as a
        whole the one part of size x size px.
    """
    check(image)
    facts = file.facts
    if facts.overlap is None:
        said = file.batch(image[None])
        yield 0, np.asarray(said.probability_NK[0], dtype=np.float32), said.decision_N[0].astype(np.uint8)
        return
    for top, probability_KHW in _in_tiles(file, image, facts.overlap):
        yield top, probability_KHW, decide_pixels(probability_KHW, facts.threshold)


def _in_tiles(file: BatchPredictor, image: Image, overlap: float) -> Iterator[tuple[int, Floats]]:
    size, (height, width) = file.facts.size, image.shape[:2]
    at_once = max(1, TILE_PX // (size * size))
    strips = TileRows(len(file.facts.classes), height, width, size, grid(height, width, size, overlap))
    for row in strips.rows:
        tiles_NHWC = np.stack([cut(image, top, left, size, 0) for top, left in row])
        parts = [
            file.batch(tiles_NHWC[first : first + at_once]).probability_NK for first in range(0, len(row), at_once)
        ]
        yield strips.add(np.concatenate(parts))


def mask_of(file: BatchPredictor, image: Image) -> Mask:
    """The answer to a decoded image at its own size (ValueError: an array that is no image).

    Probabilities of a resized image are brought to its own size, bilinear, and decided there: contours do not show the
    steps of the size at which the net worked.
    """
    facts, (height, width) = file.facts, image.shape[:2]
    answer_HW = np.full((height, width), IGNORE, dtype=np.uint8)
    count_K, confidence = np.zeros(len(facts.classes), dtype=np.int64), 0.0
    for top, probability_KHW, part_HW in as_evaluated(file, image):
        rows = columns = slice(None)
        if facts.overlap is None:
            probability_KHW, rows, columns = unframed(probability_KHW, height, width, facts)
            part_HW, sure = _enlarged(probability_KHW, rows.stop - rows.start, columns.stop - columns.start, facts)
        else:
            rows = slice(top, top + part_HW.shape[0])
            sure = float(np.take_along_axis(probability_KHW, part_HW[None].astype(np.int64), axis=0).sum())
        answer_HW[rows, columns] = part_HW
        count_K += np.bincount(part_HW.ravel(), minlength=len(count_K))
        confidence += sure
    pixels = max(1, int(count_K.sum()))
    return Mask(answer_HW, (count_K / pixels).astype(np.float32), confidence / pixels)


def unframed(probability_KHW: Floats, height: int, width: int, facts: ModelMetadata) -> tuple[Floats, slice, slice]:
    """What of a square answer is about the image, and about which rows and columns of it it is."""
    size, how = facts.size, facts.resize
    if how == "squash":
        return probability_KHW, slice(0, height), slice(0, width)
    new_height, new_width = scaled(height, width, size, how)
    if how == "pad":
        top, left = (size - new_height) // 2, (size - new_width) // 2
        part = probability_KHW[:, top : top + new_height, left : left + new_width]
        return part, slice(0, height), slice(0, width)
    places = []
    for new, side in ((new_height, height), (new_width, width)):
        begin = (new - size) // 2
        places.append(slice(round(begin * side / new), max(1, round((begin + size) * side / new))))
    return probability_KHW, places[0], places[1]


def _enlarged(
    probability_KHW: Floats, height: int, width: int, facts: ModelMetadata
) -> tuple[NDArray[np.uint8], float]:
    """The decisions (height, width), and the sum of their probabilities; one class at a time, for memory's sake."""
    if facts.threshold is not None:
        one = _to(probability_KHW[1], height, width)
        answer = (one >= facts.threshold).astype(np.uint8)
        return answer, float(np.where(answer == 1, one, 1 - one).sum())
    best = _to(probability_KHW[0], height, width)
    answer = np.zeros((height, width), dtype=np.uint8)
    for at in range(1, len(probability_KHW)):
        value = _to(probability_KHW[at], height, width)
        more = value > best
        best[more], answer[more] = value[more], at
    return answer, float(best.sum(dtype=np.float64))


def _to(plane_HW: Floats, height: int, width: int) -> Floats:
    if plane_HW.shape == (height, width):
        return np.array(plane_HW)
    return np.asarray(cv2.resize(plane_HW, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.float32)
