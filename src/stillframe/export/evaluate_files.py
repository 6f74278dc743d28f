"""Exported files on raw source images: their scores, their distance from the trained network, their speed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stillframe.export.source_samples import SourceSample, read_target
from stillframe.inference.onnx_model import OnnxModel
from stillframe.inference.predictor import Predictor, predict_strips
from stillframe.inference.stream import read_batches
from stillframe.ingest.decode import DecodedImage, Pixels
from stillframe.ingest.read_image import SourceImages
from stillframe.store.split import Split
from stillframe.tasks import find_task
from stillframe.tasks.base_output import Distance

if TYPE_CHECKING:
    from stillframe.tasks.base_output import Arrays, Output, Strip

MAX_SECONDS = 2.0  # of one measurement of speed
BATCH_BYTES = 64 << 20  # of pixels in one measurement of speed
BATCH_PX = 1 << 21  # of the images of a batch whose outputs are as large as they are


@dataclass
class FileEvaluation:
    """What one model says of the samples.

    Attributes:
        rows: one a sample, with the columns that the task's `Evaluation.statistics` needs.
        distance: from the reference, over all samples.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    distance: Distance = Distance(0.0, 0, 0)

    @property
    def predictions(self) -> pd.DataFrame:
        """The rows as a table."""
        return pd.DataFrame(self.rows)


def evaluate_files(
    models: Sequence[Predictor],
    reference: Predictor | None,
    samples: Sequence[SourceSample],
    split: Split,
    images: SourceImages,
    *,
    batch_size: int,
    threads: int,
) -> list[FileEvaluation]:
    """Predict source images with each model; every image is read once, whatever the number of models.

    Args:
        models: what is evaluated.
        reference: whose predictions theirs are compared with; None: they are not.
        samples: the source images.
        split: which has their targets.
        images: reads them.
        batch_size: images predicted together, where predictions are small.
        threads: that read.

    Raises:
        ValueError: an image cannot be read any more; names it and the reason.
    """
    evaluations, first = [FileEvaluation() for _ in models], models[0]
    output = find_task(first.metadata.task).output
    size, by_id = 1 if output.full_size else batch_size, {sample.id: sample for sample in samples}
    everyone = [*models, *([reference] if reference is not None else [])]
    for batch in read_batches([sample.id for sample in samples], images, batch_size=size, threads=threads):
        for name, image in batch:
            if isinstance(image, str):
                path = images.folder / name
                raise ValueError(f"{path}: {image}: it is not what was prepared: `dvc repro preprocess`")
        pixels = [image.image for _, image in batch if isinstance(image, DecodedImage)]
        outputs = [predict_strips(model, pixels) for model in everyone]
        for (name, _), *strips in zip(batch, *outputs, strict=True):
            target, parts = read_target(split, by_id[name]), [list[dict[str, Any]]() for _ in models]
            for strip in zip(*strips, strict=True):  # in step: a row of tiles of a large image at a time
                _compare(strip, target, output, parts, evaluations, first, compare=reference is not None)
            for evaluation, rows in zip(evaluations, parts, strict=True):
                evaluation.rows.append(rows[0] if len(rows) == 1 else output.join_rows(rows))
    return evaluations


def _compare(
    strips: Sequence[Strip],
    target: Arrays,
    output: Output,
    parts: Sequence[list[dict[str, Any]]],
    evaluations: Sequence[FileEvaluation],
    model: Predictor,
    *,
    compare: bool,
) -> None:
    """Take in one strip of a sample, as each model (and last the reference) predicts it."""
    if model.metadata.overlap is not None:
        top, arrays = strips[0]
        height, width = arrays[output.blended].shape[-2:]
        target = {name: value[top : top + height, :width] if value.ndim else value for name, value in target.items()}
    for evaluation, rows, (_, arrays) in zip(evaluations, parts, strips, strict=False):
        rows.append(output.scored_row(arrays, target, model.metadata.classes))
        if compare:
            strip, total = output.distance(arrays, strips[-1][1], target), evaluation.distance
            changed, compared = total.changed + strip.changed, total.compared + strip.compared
            evaluation.distance = Distance(max(total.largest, strip.largest), changed, compared)


@dataclass(frozen=True)
class Speed:
    """Of one file on this machine: latency in ms of one image, images per second in batches."""

    latency_ms_p50: float
    latency_ms_p99: float
    images_per_s: float


def measure_speed(file: OnnxModel, image: Pixels, *, runs: int, batch_size: int) -> Speed:
    """Time a file on one image (or clip), and on a batch of copies of it; the first calls are not counted."""
    batch_size = max(1, min(batch_size, BATCH_BYTES // image.nbytes))  # clips of large frames are large
    single = list(_seconds(file, image[None], runs))
    batches = list(_seconds(file, np.repeat(image[None], batch_size, axis=0), max(3, runs // batch_size)))
    p50, p99 = np.percentile(single, [50, 99])
    per_second = batch_size / float(np.median(batches))
    return Speed(round(1e3 * float(p50), 3), round(1e3 * float(p99), 3), round(per_second, 1))


def _seconds(file: OnnxModel, image_NHWC: Pixels, runs: int) -> Iterator[float]:
    """Seconds of each call; at least three calls, and no more once `MAX_SECONDS` have passed."""
    file.run(image_NHWC)
    count, total = 0, 0.0
    while count < runs and (count < 3 or total < MAX_SECONDS):
        start = time.perf_counter()
        file.run(image_NHWC)
        seconds = time.perf_counter() - start
        count, total = count + 1, total + seconds
        yield seconds
