"""The export stage from end to end: make the files, evaluate them on raw test files, compare them with the model."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from stillframe.config import DataConfig, ParityBound
from stillframe.evaluation.write_tables import rounded_intervals, rounded_scores
from stillframe.export.evaluate_files import BATCH_PX, FileEvaluation, evaluate_files, measure_speed
from stillframe.export.source_samples import SourceSample, select, source_samples
from stillframe.export.variants import ExportContext, choose, make_variants
from stillframe.inference.onnx_model import OnnxModel
from stillframe.inference.trained_model import TrainedModel
from stillframe.ingest.decode import Pixels
from stillframe.ingest.read_image import SourceImages
from stillframe.ingest.tiles import cut
from stillframe.ingest.workers import cores
from stillframe.paths import write_json
from stillframe.store.split import Split
from stillframe.tasks import find_task
from stillframe.tasks.base_output import Distance

if TYPE_CHECKING:
    from stillframe.tasks.base_output import Output

MODEL, TABLE = "model.onnx", "export.json"
SCORES = 2  # of a file, in the table


@dataclass(frozen=True)
class ExportPaths:
    """The folders that the stage reads and writes."""

    source: Path
    test: Path
    evaluated: Path
    out: Path


class Exporter:
    """Makes the files of one trained model.

    Attributes:
        context: what the files are made from.
        out: the stage's folder.
    """

    def __init__(self, context: ExportContext, data: DataConfig, paths: ExportPaths) -> None:
        self.context, self.metadata, self.section = context, context.metadata, context.section
        self.task, self.paths, self.out = find_task(self.metadata.task), paths, paths.out
        self.threads = self.section.threads or cores()
        self.images = SourceImages(paths.source, data, self.out / "unpacked")

    def export(self) -> dict[str, Any]:
        """Make, evaluate and choose; returns what export.json holds.

        Raises:
            FileNotFoundError: evaluate has not run.
            ValueError: the fp32 file's predictions are further from the model's than `export.bound` allows; with the
                numbers, which are in export.json too.
        """
        path = self.paths.evaluated / "predictions.parquet"
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing: run `dvc repro evaluate`")
        predictions, split = pd.read_parquet(path), Split(self.paths.test)
        files = [OnnxModel(path, threads=self.threads) for path in make_variants(self.context, self.out)]
        # Evaluate's own predictions are of prepared images, which may be compressed: that is no fault of a file's. So
        # the trained network predicts the raw images, too.
        samples = select(source_samples(split), [str(name) for name in predictions["id"]])
        evaluations = self.evaluate(
            files, samples, split, TrainedModel(self.context.trained, self.metadata, threads=self.threads)
        )
        rows = [self._row(*pair, samples[0]) for pair in zip(files, evaluations, strict=True)]
        if self.section.choose == "smallest_within":  # a choice may look at validation files only
            val = Split(self.context.spec.val)
            for row, validated in zip(rows, self.evaluate(files, source_samples(val), val, None), strict=True):
                row["validation"] = self._scores(validated.predictions)
        unit, compared = self.task.output.unit, evaluations[0].distance.compared
        table: dict[str, Any] = {
            "chosen": choose(rows, self.section, self.task),
            "variants": rows,
            "model": {"metrics": self._scores(predictions)},
            "bound": asdict(self.section.bound),
            "images": len(predictions),
            unit: compared,
            **({"frames": self.metadata.frames} if self.metadata.frames > 1 else {}),  # of a clip
            "threads": self.threads,
            "batch_size": self.batch_size,
        }
        (chosen,) = (row for row in rows if row["name"] == table["chosen"])
        (self.out / chosen["file"]).replace(self.out / MODEL)
        chosen["file"] = MODEL
        shutil.rmtree(self.out / "unpacked", ignore_errors=True)
        write_json(self.out / TABLE, table)
        self._check(rows[0], table["model"]["metrics"], compared)
        return table

    def evaluate(
        self, files: list[OnnxModel], samples: list[SourceSample], split: Split, reference: TrainedModel | None
    ) -> list[FileEvaluation]:
        """Predictions of each file for source images, and their distance from those of the trained network."""
        options = {"batch_size": self.section.batch_size, "threads": self.threads}
        return evaluate_files(files, reference, samples, split, self.images, **options)

    @property
    def batch_size(self) -> int:
        """Images in a call of which images per second are measured; fewer where outputs are as large as images."""
        most = BATCH_PX // self.metadata.size**2 if self.task.output.full_size else self.section.batch_size
        return min(self.section.batch_size, max(1, most))

    def _row(self, file: OnnxModel, evaluation: FileEvaluation, sample: SourceSample) -> dict[str, Any]:
        """A row of the table: size, speed, scores, distance from the model."""
        section, predictions = self.section, evaluation.predictions
        resamples, seed = section.bootstrap, self.context.seed
        bounds = rounded_intervals(self.task, predictions, self.metadata.classes, resamples=resamples, seed=seed)
        metrics = self._scores(predictions)
        speed = measure_speed(file, self._example(sample), runs=section.latency_runs, batch_size=self.batch_size)
        return {
            **{"name": file.path.stem, "file": file.path.name, "bytes": file.path.stat().st_size},
            **asdict(speed),
            **{"metrics": metrics, "intervals": {name: list(bounds[name]) for name in metrics if name in bounds}},
            f"max_{self.task.output.difference}_difference": evaluation.distance.largest,
            "changed_decisions": evaluation.distance.changed,
        }

    def _scores(self, predictions: pd.DataFrame) -> dict[str, float]:
        """The scores of the table, as evaluate computes them."""
        scores = rounded_scores(self.task, predictions, self.metadata.classes)
        return {name: scores[name] for name in self.task.evaluation.SLICE_METRICS[:SCORES]}

    def _example(self, sample: SourceSample) -> Pixels:
        """A raw image (of a video one clip) whose speed is measured; of images that are cut into tiles one tile."""
        image = self.images(sample.id).image
        if self.metadata.overlap is not None:
            return cut(image, 0, 0, self.metadata.size, 0)
        return image if image.ndim < 5 else image[0]

    def _check(self, row: dict[str, Any], model_metrics: dict[str, float], compared: int) -> None:
        """Raise ValueError where the fp32 file is further from the model than `export.bound` allows."""
        output = self.task.output
        largest, changed = row[f"max_{output.difference}_difference"], row["changed_decisions"]
        fault = check_bound(Distance(largest, changed, compared), output, self.section.bound)
        if fault:
            lead, table = next(iter(row["metrics"])), self.out / TABLE
            raise ValueError(
                f"{self.out / row['file']} does not answer as the model does: {fault} (export.bound; "
                f"{lead} of the file {row['metrics'][lead]:.4f}, of the model {model_metrics[lead]:.4f}; "
                f"all numbers: {table})"
            )


def check_bound(distance: Distance, output: Output, bound: ParityBound) -> str:
    """Why differences are more than the bound allows; "" when they are not."""
    faults = []
    if distance.largest > bound.probability:
        largest = f"the largest {output.difference} difference is {distance.largest:.2g}"
        faults.append(f"{largest}, at most {bound.probability:g} is allowed")
    if distance.changed > bound.decisions * distance.compared:
        noun = "decisions" if output.unit == "images" else output.unit
        changed = f"{distance.changed} of {distance.compared:,} {noun} differ"
        faults.append(f"{changed}, at most {bound.decisions:g} of them may")
    return "; ".join(faults)
