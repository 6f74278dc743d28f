"""The export stage from end to end: make the file, ask it about the raw test files, hold it against the model."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stillframe.config import DataConfig
from stillframe.export import parity
from stillframe.export.variants import ExportContext, choose, make
from stillframe.inference.onnx_model import ModelOutputs, OnnxModel
from stillframe.inference.trained_model import TrainedModel
from stillframe.ingest.read_image import SourceImages
from stillframe.ingest.workers import cores
from stillframe.paths import read_json, write_json
from stillframe.store.split import Split
from stillframe.tasks import find_task

MODEL, TABLE = "model.onnx", "export.json"


@dataclass(frozen=True)
class ExportPaths:
    """The folders that the stage reads and writes."""

    source: Path
    test: Path
    evaluated: Path
    out: Path


class Exporter:
    """One trained model on its way into files.

    Attributes:
        shop: what the files are made from.
        out: the stage's folder.
    """

    def __init__(self, shop: ExportContext, data: DataConfig, places: ExportPaths) -> None:
        self.shop, self.facts, self.section = shop, shop.facts, shop.section
        self.task = find_task(read_json(shop.trained / "model.json")["task"])
        self.test, self.evaluated, self.out = places.test, places.evaluated, places.out
        self.threads = self.section.threads or cores()
        self.originals = SourceImages(places.source, data, self.out / "unpacked")

    def model(self, said: pd.DataFrame) -> ModelOutputs:
        """What the model says of the raw test files.

        Where prepared images are kept raw these are evaluate's own answers; where they were kept as JPEG the net is
        asked once more, about pictures prepared from the source: a second compression is no fault of the file's.
        """
        if Split(self.test).encoding == "raw":
            return ModelOutputs(np.stack(said["probabilities"].to_list()), said["predicted"].to_numpy(dtype=np.int64))
        net = TrainedModel(self.shop.trained, self.facts, threads=self.threads)
        return self.ask(net, list(said["id"]))

    def ask(self, file: parity.Predictor, ids: list[str]) -> ModelOutputs:
        """What a file, or the net, says of source images."""
        return parity.answers(file, self.originals, ids, batch=self.section.batch_size, threads=self.threads)

    def begin(self) -> None:
        """Read what evaluate wrote (FileNotFoundError: it has not run)."""
        self.said = parity.model_answers(self.evaluated)
        self.label_N, self.right = self.said["label"].to_numpy(dtype=np.int64), self.model(self.said)

    def judged(self) -> dict[str, int]:
        """How many answers were compared, for export.json; the last number is what `export.bound` is a share of."""
        return {"images": len(self.said)}

    def model_metrics(self) -> dict[str, float]:
        """The model's scores, by evaluate's answers."""
        return parity.scores(self.task, self.said[["label", "predicted"]], self.facts.classes)

    def weigh(self, files: list[OnnxModel]) -> list[dict[str, Any]]:
        """Of each file: scores over the raw test files, distance from the model."""
        section, classes, rows = self.section, self.facts.classes, []
        for file in files:
            answers = self.ask(file, list(self.said["id"]))
            predictions = pd.DataFrame({"label": self.label_N, "predicted": answers.decision_N})
            options = {"resamples": section.bootstrap, "seed": self.shop.seed}
            rows.append(
                {
                    "metrics": parity.scores(self.task, predictions, classes),
                    "intervals": parity.intervals(self.task, predictions, classes, **options),
                    **parity.difference(answers, self.right),
                }
            )
        return rows

    def at_once(self) -> int:
        """Images in a call of which images per second are measured."""
        return self.section.batch_size

    def example(self) -> NDArray[np.uint8]:
        """A raw test image (of a video one clip), of which the speed is measured."""
        image = self.originals(str(self.said["id"].iloc[0])).image
        return image if image.ndim < 5 else image[0]

    def validate(self, file: OnnxModel) -> dict[str, float]:
        """A file's scores over the raw validation files: what a choice between files may look at."""
        table = Split(self.shop.lesson.val).table.drop_duplicates("source_id")  # a video has a row a view
        answers = self.ask(file, list(table["source_id"]))
        predictions = pd.DataFrame({"label": table["label"].to_numpy(), "predicted": answers.decision_N})
        return parity.scores(self.task, predictions, self.facts.classes)

    def _rows(self, paths: list[Path]) -> list[dict[str, Any]]:
        """The rows of the table: size, speed, scores, distance from the model."""
        section, image = self.section, self.example()
        files = [OnnxModel(path, threads=self.threads) for path in paths]
        rows = []
        for file, weighed in zip(files, self.weigh(files), strict=True):
            path = file.path
            speed = parity.speed(file, image, runs=section.latency_runs, batch=self.at_once())
            facts = {"name": path.stem, "file": path.name, "bytes": path.stat().st_size}
            row = {**facts, **asdict(speed), **weighed}
            rows.append(row if section.choose != "smallest_within" else {**row, "validation": self.validate(file)})
        return rows

    def ship(self) -> dict[str, Any]:
        """Make, weigh and choose; returns what export.json holds.

        Raises:
            ValueError: the fp32 file's answers are further from the model's than `export.bound` allows; with the
                numbers, which are in export.json too.
        """
        self.begin()
        rows = self._rows(make(self.shop, self.out))
        table: dict[str, Any] = {
            "chosen": choose(rows, self.section),
            "variants": rows,
            "model": {"metrics": self.model_metrics()},
            "bound": asdict(self.section.bound),
            **self.judged(),
            **({"frames": self.facts.frames} if self.facts.frames > 1 else {}),  # of a clip
            "threads": self.threads,
            "batch_size": self.at_once(),
        }
        (chosen,) = (row for row in rows if row["name"] == table["chosen"])
        (self.out / chosen["file"]).replace(self.out / MODEL)
        chosen["file"] = MODEL
        shutil.rmtree(self.out / "unpacked", ignore_errors=True)
        write_json(self.out / TABLE, table)
        fault = parity.refusal(rows[0], self.judged(), self.section.bound)
        if fault:
            lead = next(iter(rows[0]["metrics"]))
            raise ValueError(
                f"{self.out / rows[0]['file']} does not answer as the model does: {fault} (export.bound; "
                f"{lead} of the file {rows[0]['metrics'][lead]:.4f}, of the model "
                f"{table['model']['metrics'][lead]:.4f}; all numbers: {self.out / TABLE})"
            )
        return table
