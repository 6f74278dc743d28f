"""What files that answer masks are worth: asked about the raw test files beside the net itself, image by image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stillframe.config import DataConfig
from stillframe.export import parity
from stillframe.export.exporter import Exporter, ExportPaths
from stillframe.export.variants import ExportContext
from stillframe.inference.masks import BatchPredictor, as_evaluated
from stillframe.inference.onnx_model import OnnxModel
from stillframe.inference.stream import read_all
from stillframe.inference.trained_model import TrainedModel
from stillframe.ingest.tiles import cut
from stillframe.store.split import Split
from stillframe.tasks.segmentation import IGNORE
from stillframe.tasks.segmentation.collectors import BATCH_PX, image_numbers
from stillframe.tasks.segmentation.gallery import truth_of
from stillframe.tasks.segmentation.pixel_scores import pixel_confusion

MaskPart = tuple[int, NDArray[np.float32], NDArray[np.uint8]]


@dataclass
class ParityCounts:
    """What is counted of a file's masks, and of their distance from the model's.

    Attributes:
        cells: of each image, true class * K + answered class of those pairs that occur, and their pixels.
        furthest: largest difference of a probability.
        changed: pixels that are answered otherwise.
    """

    classes: int
    cells: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = field(default_factory=list)
    furthest: float = 0.0
    changed: int = 0

    def __post_init__(self) -> None:
        self.image_KK = np.zeros((self.classes, self.classes), dtype=np.int64)

    def part(self, truth_HW: NDArray[np.uint8], said: MaskPart, model: MaskPart) -> None:
        """Count a part of an image."""
        (top, probability_KHW, answer_HW), (_, of_model_KHW, model_HW) = said, model
        truth = truth_HW[top : top + len(answer_HW), : answer_HW.shape[1]]
        self.image_KK += pixel_confusion(truth, answer_HW, self.classes)
        self.changed += int(((answer_HW != model_HW) & (truth != IGNORE)).sum())
        self.furthest = max(self.furthest, float(np.abs(probability_KHW - of_model_KHW).max()))

    def end(self) -> None:
        """The image is done."""
        cell = np.flatnonzero(self.image_KK)
        self.cells.append((cell, self.image_KK.ravel()[cell]))
        self.image_KK = np.zeros_like(self.image_KK)

    def predictions(self) -> pd.DataFrame:
        """The counts as columns of predictions, without contours and confidences."""
        return pd.DataFrame({"cell": [cell for cell, _ in self.cells], "pixels": [pixels for _, pixels in self.cells]})


class MaskExporter(Exporter):
    """One trained model that answers masks, on its way into files; held against the net over the raw test files."""

    def begin(self) -> None:
        """Read evaluate's counts (FileNotFoundError: it has not run)."""
        path = self.evaluated / "predictions.parquet"
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing: run `dvc repro evaluate`")
        self.said = pd.read_parquet(path, columns=["index", "id", "cell", "pixels"])
        self.pixels = sum(int(sum(pixels)) for pixels in self.said["pixels"])

    def judged(self) -> dict[str, int]:
        """Images, and pixels that are counted."""
        return {"images": len(self.said), "pixels": self.pixels}

    def model_metrics(self) -> dict[str, float]:
        """The model's scores over the prepared test images: evaluate's own."""
        return parity.scores(self.task, self.said[["cell", "pixels"]], self.facts.classes)

    def weigh(self, files: list[OnnxModel]) -> list[dict[str, Any]]:
        """Of each file: scores over the raw test files, distance from the net itself; every image is read once."""
        classes, split = self.facts.classes, Split(self.test)
        model = TrainedModel(self.shop.trained, self.facts, threads=self.threads)
        counted = [ParityCounts(len(classes)) for _ in files]
        for row, image in zip(self.said["index"].tolist(), self._images(list(self.said["id"])), strict=True):
            asked: list[BatchPredictor] = [model, *files]
            truth_HW, answers = truth_of(split, row), [as_evaluated(one, image) for one in asked]
            for right, *said in zip(*answers, strict=True):  # in step: a part of a large image at a time
                for count, part in zip(counted, said, strict=True):
                    count.part(truth_HW, part, right)
            for count in counted:
                count.end()
        return [self._row(count) for count in counted]

    def _row(self, count: ParityCounts) -> dict[str, Any]:
        predictions, classes = count.predictions(), self.facts.classes
        options = {"resamples": self.section.bootstrap, "seed": self.shop.seed}
        return {
            "metrics": parity.scores(self.task, predictions, classes),
            "intervals": parity.intervals(self.task, predictions, classes, **options),
            "max_probability_difference": count.furthest,
            "changed_decisions": count.changed,
        }

    def at_once(self) -> int:
        """`export.batch_size`, or about two megapixels of what the net is shown: its answers are as large."""
        return min(self.section.batch_size, max(1, BATCH_PX // self.facts.size**2))

    def example(self) -> NDArray[np.uint8]:
        """A raw test image; of images that are cut into tiles the first tile."""
        image, size = super().example(), self.facts.size
        return image if self.facts.overlap is None else cut(image, 0, 0, size, 0)

    def validate(self, file: OnnxModel) -> dict[str, float]:
        """A file's scores over the raw validation files."""
        split, count = Split(self.shop.lesson.val), ParityCounts(len(self.facts.classes))
        first = np.unique(image_numbers(split), return_index=True)[1]
        ids = list(split.table["origin" if split.tiled else "id"].iloc[first])
        for row, image in zip(first.tolist(), self._images(ids), strict=True):
            truth_HW = truth_of(split, row)
            for part in as_evaluated(file, image):
                count.part(truth_HW, part, part)
            count.end()
        return parity.scores(self.task, count.predictions(), self.facts.classes)

    def _images(self, ids: list[str]) -> Iterator[NDArray[np.uint8]]:
        """The decoded raw images (ValueError: one cannot be read any more)."""
        for name, picture in read_all(ids, self.originals, threads=self.threads):
            if isinstance(picture, str):
                raise ValueError(
                    f"{self.originals.folder / name}: {picture}: it is not what was prepared: `dvc repro preprocess`"
                )
            yield picture.image


SHIPMENTS: dict[str, type[Exporter]] = {"label": Exporter, "mask": MaskExporter}


def shipment_of(shop: ExportContext, data: DataConfig, places: ExportPaths) -> Exporter:
    """The shipment for what the model answers."""
    return SHIPMENTS[shop.facts.answer](shop, data, places)
