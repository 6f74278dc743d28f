"""What is kept of predicted class maps: a sample of pixels to tune on, then counts of each image, one at a time.

The logits of a split, (N, K, H, W), are never in memory: an image is finished, counted and let go.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stillframe.drawing.class_map import encode_class_map
from stillframe.ingest.tiles import TileRows
from stillframe.store.split import Split
from stillframe.tasks.calibration import bin_sums
from stillframe.tasks.class_scores import rates
from stillframe.tasks.segmentation import IGNORE
from stillframe.tasks.segmentation.pixel_scores import boundary_f1, decide_pixels, pixel_confusion
from stillframe.tasks.vector_collector import SOURCE_COLUMNS

if TYPE_CHECKING:
    from stillframe.tasks.base_evaluation import Array

BATCH_PX = 1 << 21  # of the images predicted at a time: 32 of 256 px, 8 of 512 px
SAMPLED_ROWS = 256  # of the validation split, that pixels are sampled from
SAMPLED_PIXELS = 200_000  # of all of them together
THINNED = 1 << 16  # pixels of a row that count for the confidence before calibration, about


def fitting_batch(split: Split, configured: int) -> int:
    """Fewer images at a time where they are large: batch sizes are set with small images in mind."""
    return min(configured, max(1, BATCH_PX // (split.height * split.width)))


def pixel_softmax(logits_BKHW: NDArray[np.float32], temperature: float = 1.0) -> NDArray[np.float32]:
    """Probabilities over the classes, axis 1."""
    shifted = (logits_BKHW - logits_BKHW.max(1, keepdims=True)) / np.float32(temperature)
    np.exp(shifted, out=shifted)
    return np.asarray(shifted / shifted.sum(1, keepdims=True))


@dataclass(frozen=True)
class PixelSampler:
    """Keeps the logits of some pixels of some rows, evenly spread: columns label and logits (list of K)."""

    seed: int = 0

    def batch_size(self, split: Split, configured: int) -> int:
        """See `fitting_batch`."""
        return fitting_batch(split, configured)

    def rows(self, split: Split, rank: int, world: int) -> NDArray[np.int64]:
        """Evenly spread rows, dealt in turn."""
        count = min(SAMPLED_ROWS, len(split))
        spread = np.linspace(0, max(0, len(split) - 1), count).round().astype(np.int64)
        return np.asarray(np.unique(spread)[rank::world])

    def start(self, split: Split) -> SampledPixels:
        """No pixels yet."""
        return SampledPixels(self.seed, max(1, SAMPLED_PIXELS // max(1, min(SAMPLED_ROWS, len(split)))))

    def merge(self, results: list[Any], split: Split) -> pd.DataFrame:
        """All pixels, in the order of their rows."""
        rows = sorted((row for result in results for row in result), key=lambda row: int(row[0]))
        label = np.concatenate([np.empty(0, np.int64), *(label_P for _, label_P, _ in rows)])
        return pd.DataFrame({"label": label, "logits": [logits_K for *_, logits_PK in rows for logits_K in logits_PK]})


@dataclass
class SampledPixels:
    """Row, labels (P,) and logits (P, K) of the pixels drawn from it."""

    seed: int
    pixels_of_row: int
    drawn: list[tuple[int, NDArray[np.int64], NDArray[np.float32]]] = field(default_factory=list)

    def add(self, outputs: dict[str, Array], target: dict[str, Array], index_B: Array) -> None:
        """Draw pixels of each row; by a seed of its own, so that no process's order matters."""
        for row, truth_HW, logits_KHW in zip(index_B.tolist(), target["mask"], outputs["logits"], strict=True):
            valid = np.flatnonzero(truth_HW != IGNORE)
            if not len(valid):
                continue
            rng = np.random.default_rng([self.seed, row])
            pixel = valid[np.sort(rng.choice(len(valid), size=min(self.pixels_of_row, len(valid)), replace=False))]
            logits_PK = logits_KHW.reshape(len(logits_KHW), -1)[:, pixel].T
            self.drawn.append((row, truth_HW.ravel()[pixel].astype(np.int64), logits_PK))

    def result(self) -> list[tuple[int, NDArray[np.int64], NDArray[np.float32]]]:
        """All rows of this process."""
        return self.drawn


@dataclass(frozen=True)
class ImageCollector:
    """Keeps the counts of each image, and its class map as a PNG.

    Columns: index (its first row), id, label, source_width, source_height, source_mode, slices, height, width (px, of
    the class map), accuracy, iou, f1, confidence (mean over its pixels), cell (true class * K + predicted class, those
    that occur), pixels (of each cell), boundary (F1 of each class), bins and bins_before (`bin_sums` as a flat list,
    after and before calibration), png.

    Attributes:
        classes: names.
        temperature: that logits are divided by.
        threshold: probability of class 1 from which on it is predicted (two classes); None: the most probable class.
        bins: of confidence.
        masks: whether PNGs are made; else the column is "".
    """

    classes: tuple[str, ...]
    temperature: float
    threshold: float | None
    bins: int
    masks: bool

    def batch_size(self, split: Split, configured: int) -> int:
        """See `fitting_batch`."""
        return fitting_batch(split, configured)

    def rows(self, split: Split, rank: int, world: int) -> NDArray[np.int64]:
        """All rows of the images rank, rank + world, ...; those of one image follow each other."""
        number_N = image_numbers(split)
        order = np.argsort(number_N, kind="stable")
        if split.tiled:  # from top to bottom, as `TileRows` takes them
            order = np.lexsort((split.table["left"], split.table["top"], number_N))
        return np.asarray(order[number_N[order] % world == rank], dtype=np.int64)

    def start(self, split: Split) -> ImageState:
        """No image yet."""
        return ImageState(self, split)

    def merge(self, results: list[Any], split: Split) -> pd.DataFrame:
        """One row an image, in the split's order."""
        rows = sorted((row for result in results for row in result), key=lambda row: int(row["index"]))
        first = np.unique(image_numbers(split), return_index=True)[1]
        assert [row["index"] for row in rows] == sorted(first.tolist()), "each image is counted once"
        table = split.table.iloc[[row["index"] for row in rows]].reset_index(drop=True)
        source = {"id": table["origin" if split.tiled else "id"], "label": table["label"]}
        source |= {column: table[column] for column in SOURCE_COLUMNS}
        counted = pd.DataFrame(rows)
        if counted.empty:
            return pd.DataFrame({"index": np.empty(0, np.int64), **source})
        return pd.concat([counted[["index"]], pd.DataFrame(source), counted.drop(columns="index")], axis=1)


def image_numbers(split: Split) -> NDArray[np.int64]:
    """The number of the image that each row is, or is a tile of; by first appearance."""
    if not split.tiled:
        return np.arange(len(split), dtype=np.int64)
    return np.asarray(pd.factorize(split.table["origin"])[0], dtype=np.int64)


class ImageState:
    """Images as their rows come; of tiles the blended probabilities of one image at a time."""

    def __init__(self, collector: ImageCollector, split: Split) -> None:
        self.collector, self.size, self.counted = collector, split.height, list[dict[str, Any]]()
        self.number_N = image_numbers(split)
        self.first = np.unique(self.number_N, return_index=True)[1]
        self.corner_N2 = split.table[["top", "left"]].to_numpy(np.int64) if split.tiled else None
        self.open: dict[int, TiledImage] = {}

    def add(self, outputs: dict[str, Array], target: dict[str, Array], index_B: Array) -> None:
        """Count a batch of images, or of tiles."""
        logits_BKHW, truth_BHW = outputs["logits"], target["mask"].astype(np.uint8)
        probability_BKHW = pixel_softmax(logits_BKHW, self.collector.temperature)
        for i, row in enumerate(index_B.tolist()):
            number, before = int(self.number_N[row]), self._uncalibrated_bins(logits_BKHW[i], truth_BHW[i])
            if self.corner_N2 is None:
                image = ImageCounts(self.collector, truth_BHW[i])
                image.before += before
                image.add_rows(0, probability_BKHW[i])
                self._finish(number, image)
                continue
            if number not in self.open:
                corners = [(int(top), int(left)) for top, left in self.corner_N2[self.number_N == number]]
                self.open[number] = TiledImage(self.collector, corners, self.size)
            tiles = self.open[number]
            top, left = self.corner_N2[row].tolist()
            tiles.image.before += before
            if tiles.add(probability_BKHW[i], truth_BHW[i], top, left):
                self._finish(number, self.open.pop(number).image)

    def _uncalibrated_bins(self, logits_KHW: NDArray[np.float32], truth_HW: NDArray[np.uint8]) -> Array:
        """`bin_sums` at temperature 1, of pixels on a grid."""
        step = max(1, round((truth_HW.size / THINNED) ** 0.5))
        truth, share = truth_HW[::step, ::step], pixel_softmax(logits_KHW[None, :, ::step, ::step])[0]
        valid = truth != IGNORE
        return bin_sums(share.max(0)[valid], (share.argmax(0) == truth)[valid], self.collector.bins)

    def _finish(self, number: int, image: ImageCounts) -> None:
        """The row of an image whose pixels have all been counted."""
        collector, classes, truth_HW = self.collector, len(self.collector.classes), image.truth_HW
        counts_KK = pixel_confusion(truth_HW, image.predicted_HW, classes)
        cell, pixels = np.flatnonzero(counts_KK), int(counts_KK.sum())
        self.counted.append(
            {
                "index": int(self.first[number]),
                "height": truth_HW.shape[0],
                "width": truth_HW.shape[1],
                **image_scores(counts_KK),
                "confidence": image.confidence / pixels if pixels else float("nan"),
                "cell": cell.tolist(),
                "pixels": counts_KK.ravel()[cell].tolist(),
                "boundary": boundary_f1(truth_HW, image.predicted_HW, classes).tolist(),
                "bins": image.bins.ravel().tolist(),
                "bins_before": image.before.ravel().tolist(),
                "png": encode_class_map(image.predicted_HW, collector.classes) if collector.masks else b"",
            }
        )

    def result(self) -> list[dict[str, Any]]:
        """The rows of this process's images."""
        assert not self.open, "an image without all of its tiles"
        return self.counted


def image_scores(counts_KK: NDArray[np.int64]) -> dict[str, float]:
    """accuracy, iou and f1 of one image: means over the classes in its target or prediction; NaN without pixels."""
    right, actual, predicted = np.diagonal(counts_KK), counts_KK.sum(1), counts_KK.sum(0)
    if not counts_KK.any():
        return dict.fromkeys(("accuracy", "iou", "f1"), float("nan"))
    values = rates(right, actual, predicted)
    return {"accuracy": float(values["accuracy"]), **{kind: float(np.nanmean(values[kind])) for kind in ("iou", "f1")}}


class ImageCounts:
    """What is counted of an image, rows of pixels by rows of pixels from top to bottom."""

    def __init__(self, collector: ImageCollector, truth_HW: NDArray[np.uint8]) -> None:
        self.collector, self.truth_HW = collector, truth_HW
        self.predicted_HW = np.zeros(truth_HW.shape, dtype=np.uint8)
        self.bins, self.before, self.confidence = np.zeros((3, collector.bins)), np.zeros((3, collector.bins)), 0.0

    def add_rows(self, top: int, probability_KHW: NDArray[np.float32]) -> None:
        """Take the probabilities of the rows from `top` on."""
        rows = slice(top, top + probability_KHW.shape[1])
        truth_HW, predicted_HW = self.truth_HW[rows], decide_pixels(probability_KHW, self.collector.threshold)
        self.predicted_HW[rows] = predicted_HW
        valid, likely_HW = truth_HW != IGNORE, probability_KHW.argmax(0)
        self.bins += bin_sums(probability_KHW.max(0)[valid], (likely_HW == truth_HW)[valid], self.collector.bins)
        chosen_HW = np.take_along_axis(probability_KHW, predicted_HW[None].astype(np.int64), axis=0)[0]
        self.confidence += float(chosen_HW[valid].sum(dtype=np.float64))


class TiledImage:
    """An image of which some tiles have been predicted: the memory of one row of them."""

    def __init__(self, collector: ImageCollector, corners: list[tuple[int, int]], size: int) -> None:
        height, width = (max(corner[axis] for corner in corners) + size for axis in (0, 1))
        self.strips = TileRows(len(collector.classes), height, width, size, corners)
        self.image = ImageCounts(collector, np.full((height, width), IGNORE, dtype=np.uint8))
        self.row: list[NDArray[np.float32]] = []

    def add(self, probability_KHW: NDArray[np.float32], truth_HW: NDArray[np.uint8], top: int, left: int) -> bool:
        """Take the next tile; whether it was the last one."""
        strips, size = self.strips, len(truth_HW)
        assert strips.rows[strips.added][len(self.row)] == (top, left), "tiles come from top to bottom"
        self.image.truth_HW[top : top + size, left : left + size] = truth_HW
        self.row.append(probability_KHW)
        if len(self.row) == len(strips.rows[strips.added]):
            self.image.add_rows(*strips.add(np.stack(self.row)))
            self.row = []
        return strips.added == len(strips.rows)
