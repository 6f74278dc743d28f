"""What is kept of a net's masks: a sample of pixels to tune on, then counts of each picture, one picture at a time.

The logits of a split, (N, K, H, W), are never in memory: a picture is finished, counted and let go.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from stillframe.drawing.class_map import encode_class_map
from stillframe.evaluation.class_scores import confidence_bins
from stillframe.evaluation.pixel_counts import picture_scores
from stillframe.evaluation.pixel_scores import boundary_f1, decide_pixels, pixel_confusion
from stillframe.inference.split_predictor import CollectorState
from stillframe.ingest.tiles import TileRows
from stillframe.store.columns import NO_VALUE as IGNORE
from stillframe.store.split import Split
from stillframe.types import Batch, Prediction

AT_ONCE_PX = 1 << 21  # of the pictures asked at a time: 32 of 256 px, 8 of 512 px
SAMPLED_ROWS = 256  # of the validation split, that pixels are sampled from
SAMPLED_PIXELS = 200_000  # of all of them together
THINNED = 1 << 16  # pixels of a row that count for the confidence before calibration, about
FACTS = ["source_width", "source_height", "source_mode", "slices"]  # columns of the split that are kept as they are


@dataclass(frozen=True)
class PixelSampler:
    """Keeps the logits of some pixels of some rows, evenly spread: columns label and logits (list of K)."""

    seed: int = 0

    def rows(self, split: Split, rank: int, world: int) -> NDArray[np.int64]:
        """Evenly spread rows, dealt in turn."""
        count = min(SAMPLED_ROWS, len(split))
        spread = np.linspace(0, max(0, len(split) - 1), count).round().astype(np.int64)
        return np.asarray(np.unique(spread)[rank::world])

    def begin(self, split: Split) -> CollectorState:
        """No pixels yet."""
        return _Sample(self.seed, max(1, SAMPLED_PIXELS // max(1, min(SAMPLED_ROWS, len(split)))))

    def whole(self, parts: list[Any], split: Split) -> pd.DataFrame:
        """All pixels, in the order of their rows."""
        found = sorted((row for part in parts for row in part), key=lambda row: int(row[0]))
        label = np.concatenate([np.empty(0, np.int64), *(label_P for _, label_P, _ in found)])
        return pd.DataFrame({"label": label, "logits": [one for _, _, logits_PK in found for one in logits_PK]})


class _Sample:
    def __init__(self, seed: int, each: int) -> None:
        self.seed, self.each = seed, each
        self.found: list[tuple[int, NDArray[np.int64], NDArray[np.float32]]] = []

    def add(self, prediction: Prediction, batch: Batch) -> None:
        for at, row in enumerate(prediction.index_B.tolist()):
            truth = batch.target["mask"][at].flatten()
            counted = torch.nonzero(truth != IGNORE).flatten()
            if not len(counted):
                continue
            rng = np.random.default_rng([self.seed, row])
            drawn = np.sort(rng.choice(len(counted), size=min(self.each, len(counted)), replace=False))
            pixel = counted[torch.from_numpy(drawn).to(counted.device)]
            logits_PK = prediction.outputs["logits"][at].flatten(1)[:, pixel].T.float()
            self.found.append((row, truth[pixel].cpu().numpy().astype(np.int64), logits_PK.cpu().numpy()))

    def handed(self) -> list[tuple[int, NDArray[np.int64], NDArray[np.float32]]]:
        return self.found


@dataclass(frozen=True)
class ImageCollector:
    """Keeps the counts of each picture, and its mask as a PNG.

    Columns: index (its first row), id, label, source_width, source_height, source_mode, slices, height, width (px, of
    the mask), accuracy, iou, f1, confidence (mean of the answers), cell (true class * K + answered class, those that
    occur), pixels (of each cell), boundary (F1 of each class), bins and bins_before (counts, sums of confidence, right
    ones by bin, one after the other), png.

    Attributes:
        classes: names.
        temperature: that logits are divided by.
        threshold: probability of class 1 from which on it is the answer (two classes); None: the most probable class.
        bins: of confidence.
        masks: whether PNGs are made; else the column is "".
    """

    classes: tuple[str, ...]
    temperature: float
    threshold: float | None
    bins: int
    masks: bool

    def rows(self, split: Split, rank: int, world: int) -> NDArray[np.int64]:
        """All rows of the pictures rank, rank + world, ...; those of one picture follow each other."""
        number_N = numbered(split)
        order = np.argsort(number_N, kind="stable")
        if split.tiled:  # from above to below, as `TileRows` takes them
            order = np.lexsort((split.table["left"], split.table["top"], number_N))
        return np.asarray(order[number_N[order] % world == rank], dtype=np.int64)

    def begin(self, split: Split) -> CollectorState:
        """No picture yet."""
        return _ImageCounter(self, split)

    def whole(self, parts: list[Any], split: Split) -> pd.DataFrame:
        """One row a picture, in the split's order."""
        found = sorted((row for part in parts for row in part), key=lambda row: int(row["index"]))
        first = np.unique(numbered(split), return_index=True)[1]
        assert [row["index"] for row in found] == sorted(first.tolist()), "each picture is counted once"
        table = split.table.iloc[[row["index"] for row in found]].reset_index(drop=True)
        name = "origin" if split.tiled else "id"
        known = {"id": table[name], "label": table["label"], **{column: table[column] for column in FACTS}}
        counted = pd.DataFrame(found)
        if counted.empty:
            return pd.DataFrame({"index": np.empty(0, np.int64), **known})
        out = pd.concat([counted[["index"]], pd.DataFrame(known), counted.drop(columns="index")], axis=1)
        return out


def numbered(split: Split) -> NDArray[np.int64]:
    """The number of the picture that each row is, or is a tile of; by first appearance."""
    if not split.tiled:
        return np.arange(len(split), dtype=np.int64)
    return np.asarray(pd.factorize(split.table["origin"])[0], dtype=np.int64)


def binned(confidence_P: NDArray[Any], right_P: NDArray[np.bool_], bins: int) -> list[float]:
    """Pixels, sums of confidence and right ones of each bin, one after the other: 3 * bins numbers."""
    bin_P = confidence_bins(confidence_P.astype(np.float64), bins)
    weights = (None, confidence_P, right_P)
    return [float(sum_) for weight in weights for sum_ in np.bincount(bin_P, weights=weight, minlength=bins)]


class _ImageCounter:
    """Pictures as their rows come; of tiles the blended probabilities of one picture at a time."""

    def __init__(self, keep: ImageCollector, split: Split) -> None:
        self.keep, self.size, self.found = keep, split.height, list[dict[str, Any]]()
        self.number_N = numbered(split)
        self.first = np.unique(self.number_N, return_index=True)[1]
        self.place_N2 = split.table[["top", "left"]].to_numpy(np.int64) if split.tiled else None
        self.open: dict[int, _TiledImage] = {}

    def add(self, prediction: Prediction, batch: Batch) -> None:
        logits_BKHW = prediction.outputs["logits"].float()
        probability_BKHW = (logits_BKHW / self.keep.temperature).softmax(1).cpu().numpy()
        for at, row in enumerate(prediction.index_B.tolist()):
            truth_HW = batch.target["mask"][at].cpu().numpy().astype(np.uint8)
            before = self._before(logits_BKHW[at], truth_HW)
            number = int(self.number_N[row])
            if self.place_N2 is None:
                picture = _ImageCounts(self.keep, truth_HW)
                picture.before += before
                picture.part(0, probability_BKHW[at])
                self._finish(number, picture)
                continue
            if number not in self.open:
                places = [(int(top), int(left)) for top, left in self.place_N2[self.number_N == number]]
                self.open[number] = _TiledImage(self.keep, places, self.size)
            tiles = self.open[number]
            top, left = self.place_N2[row].tolist()
            if tiles.add(probability_BKHW[at], truth_HW, before, top, left):
                self._finish(number, self.open.pop(number).picture)

    def _before(self, logits_KHW: Tensor, truth_HW: NDArray[np.uint8]) -> NDArray[np.float64]:
        """`binned` at temperature 1, of pixels on a grid."""
        step = max(1, round((truth_HW.size / THINNED) ** 0.5))
        truth = truth_HW[::step, ::step]
        top = logits_KHW[:, ::step, ::step].softmax(0).max(0)
        confidence, answer = top.values.cpu().numpy(), top.indices.cpu().numpy()
        counted = truth != IGNORE
        return np.array(binned(confidence[counted], answer[counted] == truth[counted], self.keep.bins))

    def _finish(self, number: int, picture: _ImageCounts) -> None:
        keep, classes, truth_HW = self.keep, len(self.keep.classes), picture.truth_HW
        counts = pixel_confusion(truth_HW, picture.answer_HW, classes).ravel()
        cell, pixels = np.flatnonzero(counts), int(counts.sum())
        self.found.append(
            {
                "index": int(self.first[number]),
                "height": truth_HW.shape[0],
                "width": truth_HW.shape[1],
                **picture_scores(cell, counts[cell], classes),
                "confidence": picture.confidence / pixels if pixels else float("nan"),
                "cell": cell.tolist(),
                "pixels": counts[cell].tolist(),
                "boundary": boundary_f1(truth_HW, picture.answer_HW, classes).tolist(),
                "bins": picture.bins.tolist(),
                "bins_before": picture.before.tolist(),
                "png": encode_class_map(picture.answer_HW, keep.classes) if keep.masks else b"",
            }
        )

    def handed(self) -> list[dict[str, Any]]:
        assert not self.open, "a picture without all of its tiles"
        return self.found


class _ImageCounts:
    """What is counted of a picture, part by part from above to below."""

    def __init__(self, keep: ImageCollector, truth_HW: NDArray[np.uint8]) -> None:
        self.keep, self.truth_HW = keep, truth_HW
        self.answer_HW = np.zeros(truth_HW.shape, dtype=np.uint8)
        self.bins, self.before, self.confidence = np.zeros(3 * keep.bins), np.zeros(3 * keep.bins), 0.0

    def part(self, top: int, probability_KHW: NDArray[np.float32]) -> None:
        """Take the probabilities of the rows from `top` on."""
        rows = slice(top, top + probability_KHW.shape[1])
        truth_HW, answer_HW = self.truth_HW[rows], decide_pixels(probability_KHW, self.keep.threshold)
        counted, most_HW = truth_HW != IGNORE, probability_KHW.argmax(0)
        self.answer_HW[rows] = answer_HW
        sure_HW, chosen_HW = (
            np.take_along_axis(probability_KHW, one[None].astype(np.int64), axis=0)[0] for one in (most_HW, answer_HW)
        )
        right = (most_HW == truth_HW)[counted]
        self.bins += binned(sure_HW[counted], right, self.keep.bins)
        self.confidence += float(chosen_HW[counted].sum(dtype=np.float64))


class _TiledImage:
    """A picture of which some tiles have been answered: the memory of one row of them."""

    def __init__(self, keep: ImageCollector, places: list[tuple[int, int]], size: int) -> None:
        height, width = (max(place[axis] for place in places) + size for axis in (0, 1))
        self.strips = TileRows(len(keep.classes), height, width, size, places)
        self.picture = _ImageCounts(keep, np.full((height, width), IGNORE, dtype=np.uint8))
        self.row: list[NDArray[np.float32]] = []

    def add(
        self,
        probability_KHW: NDArray[np.float32],
        truth_HW: NDArray[np.uint8],
        before: NDArray[np.float64],
        top: int,
        left: int,
    ) -> bool:
        """Take the next tile; whether it was the last one."""
        strips, picture, size = self.strips, self.picture, len(truth_HW)
        assert strips.rows[strips.added][len(self.row)] == (top, left), "tiles come from above to below"
        picture.truth_HW[top : top + size, left : left + size] = truth_HW
        picture.before += before
        self.row.append(probability_KHW)
        if len(self.row) == len(strips.rows[strips.added]):
            picture.part(*strips.add(np.stack(self.row)))
            self.row = []
        return strips.added == len(strips.rows)
