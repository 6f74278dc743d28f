"""What a file is worth: its answers over the raw test files, its distance from the model, its size and its speed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stillframe.config import ParityBound
from stillframe.evaluation.write_tables import rounded_intervals, rounded_scores
from stillframe.inference.model_metadata import ModelMetadata
from stillframe.inference.onnx_model import ModelOutputs, OnnxModel
from stillframe.inference.stream import answer_all
from stillframe.ingest.read_image import SourceImages
from stillframe.tasks.base import Task

LONGEST_S = 2.0  # of one measurement of speed
BATCH_BYTES = 64 << 20  # of pixels that one measurement asks about


@dataclass(frozen=True)
class Speed:
    """Of one file on this machine: latency in ms of one image, images per second in batches."""

    latency_ms_p50: float
    latency_ms_p99: float
    images_per_s: float


class Predictor(Protocol):
    """What answers decoded images: `OnnxModel`, `Trained`."""

    facts: ModelMetadata

    def __call__(self, images: Sequence[NDArray[np.uint8]]) -> ModelOutputs:
        """Answer decoded images of any sizes."""


def answers(file: Predictor, originals: SourceImages, ids: Sequence[str], *, batch: int, threads: int) -> ModelOutputs:
    """What a file says of source images.

    Raises:
        ValueError: an image cannot be read any more; names it and the reason.
    """
    probability_NK = np.empty((len(ids), len(file.facts.classes)), dtype=np.float32)
    decision_N = np.empty(len(ids), dtype=np.int64)
    for at, one in enumerate(answer_all(ids, originals, file, batch=batch, threads=threads)):
        if one.reason or one.probability_K is None:
            raise ValueError(
                f"{originals.folder / one.name}: {one.reason}: it is not what was prepared: `dvc repro preprocess`"
            )
        probability_NK[at], decision_N[at] = one.probability_K, one.decision
    return ModelOutputs(probability_NK, decision_N)


def scores(task: Task, predictions: pd.DataFrame, classes: Sequence[str]) -> dict[str, float]:
    """The scores of the table, as evaluate computes them."""
    values = rounded_scores(task, predictions, classes)
    return {name: values[name] for name in task.evaluation.SLICE_METRICS[:2]}


def intervals(
    task: Task, predictions: pd.DataFrame, classes: Sequence[str], *, resamples: int, seed: int
) -> dict[str, list[float]]:
    """95 % bootstrap intervals of `scores`; {} without resamples."""
    bounds = rounded_intervals(task, predictions, classes, resamples=resamples, seed=seed)
    return {name: list(bounds[name]) for name in task.evaluation.SLICE_METRICS[:2] if name in bounds}


def difference(said: ModelOutputs, model: ModelOutputs) -> dict[str, Any]:
    """`max_probability_difference` and `changed_decisions` of a file's answers from the model's."""
    return {
        "max_probability_difference": float(np.abs(said.probability_NK - model.probability_NK).max()),
        "changed_decisions": int((said.decision_N != model.decision_N).sum()),
    }


def refusal(found: dict[str, Any], judged: dict[str, int], bound: ParityBound) -> str:
    """Why the differences are more than the bound allows; "" when they are not.

    Args:
        found: a row of the table.
        judged: what was compared; the last number is that of the decisions.
        bound: `export.bound`.
    """
    changed, largest = found["changed_decisions"], found["max_probability_difference"]
    unit, count = list(judged.items())[-1]
    what = "decisions" if unit == "images" else unit
    faults = []
    if largest > bound.probability:
        faults.append(f"the largest probability difference is {largest:.2g}, at most {bound.probability:g} is allowed")
    if changed > bound.decisions * count:
        faults.append(f"{changed} of {count:,} {what} differ, at most {bound.decisions:g} of them may")
    return "; ".join(faults)


def speed(file: OnnxModel, image: NDArray[np.uint8], *, runs: int, batch: int) -> Speed:
    """Time a file on one image (or clip), and on a batch of copies of it; the first calls are not counted."""
    batch = max(1, min(batch, BATCH_BYTES // image.nbytes))  # clips of large frames are large
    one_NHWC, many_NHWC = image[None], np.repeat(image[None], batch, axis=0)
    single = _times(file, one_NHWC, runs)
    several = _times(file, many_NHWC, max(3, runs // batch))
    low, high = np.percentile(single, [50, 99])
    return Speed(round(1e3 * float(low), 3), round(1e3 * float(high), 3), round(batch / float(np.median(several)), 1))


def _times(file: OnnxModel, image_NHWC: NDArray[np.uint8], runs: int) -> list[float]:
    """Seconds of each call; at least three calls, and no more once `LONGEST_S` have passed."""
    file.batch(image_NHWC)
    taken: list[float] = []
    while len(taken) < runs and (len(taken) < 3 or sum(taken) < LONGEST_S):
        begun = time.perf_counter()
        file.batch(image_NHWC)
        taken.append(time.perf_counter() - begun)
    return taken


def model_answers(evaluated: Path) -> pd.DataFrame:
    """What the model said of the test split: id, label, predicted, probabilities (evaluate's predictions)."""
    path = evaluated / "predictions.parquet"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: run `dvc repro evaluate`")
    return pd.read_parquet(path, columns=["id", "label", "predicted", "probabilities"])
