"""`stillframe predict`: files, folders and patterns to a table of predictions."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from stillframe.drawing.encode import encode_image
from stillframe.drawing.heatmap import draw_heatmap
from stillframe.inference.heatmaps import explain_prediction
from stillframe.inference.inputs import InputSource, input_source, safe_name
from stillframe.inference.load_model import open_model
from stillframe.inference.predictor import Predictor, predict_images
from stillframe.inference.stream import InferenceResult, predict_all
from stillframe.inference.video_windows import WindowConfig
from stillframe.inference.writers import format_of, open_table
from stillframe.ingest.listing import to_id
from stillframe.ingest.workers import cores
from stillframe.paths import replacing, write_text
from stillframe.progress import bar
from stillframe.tasks import find_task

MAX_LISTED = 5  # refused files that are named on stderr
LEGEND = "classes.csv"  # beside the files of predictions that are too large for a row


@dataclass(frozen=True)
class PredictSummary:
    """How many images (or windows of videos) were predicted, how many were refused, and in how many seconds."""

    predicted: int
    refused: int
    seconds: float


def predict(
    paths: list[str],
    *,
    model: str | None = None,
    out: str = "csv",
    explain: bool = False,
    annotate: Path | None = None,
    window: float | None = None,
    stride: float | None = None,
    batch: int | None = None,
    threads: int = 0,
    quiet: bool = False,
) -> PredictSummary:
    """Predict images, or videos where the model takes clips, in the order in which they are named.

    Args:
        paths: files, folders, patterns.
        model: as of `open_model`.
        out: csv, jsonl or parquet for stdout, or a file name that ends so; predictions that are images lie in a folder
            beside that file.
        explain: heat maps into a folder beside the output file.
        annotate: a folder for copies of the videos (or images) with the predictions drawn into them.
        window: of videos: s, cuts every one into windows of so many seconds; None: those longer than what evaluate
            looked at, into windows as long as the model's clips.
        stride: of videos: s from the start of a window to that of the next; None: as long as a window.
        batch: images or clips predicted together, at most; None: 32 images, 4 clips.
        threads: of the model, and that read; 0: all cores.
        quiet: no progress bar, no summary.

    Raises:
        FileNotFoundError: no such model.
        ValueError: nothing that looks like an image was found, or an argument does not fit.
    """
    windows, (_, path) = WindowConfig(window, stride), format_of(out)
    if (batch is not None and batch < 1) or threads < 0:
        raise ValueError(f"--batch {batch} --threads {threads}: at least 1, and 0 or more")
    if explain and path is None:
        raise ValueError("--explain writes pictures beside the output: give it a file, --out FILE.csv")
    opened = open_model(model, threads=threads)
    inputs = input_source(opened.metadata, windows, annotate)
    files, ignored = PredictionFiles(opened, out, explain, annotate), Counter[str]()
    total = inputs.total(paths, quick=quiet)
    if not total:
        raise ValueError(f"no {inputs.noun} in {', '.join(paths)}")
    start, counts, refused = time.monotonic(), Counter[bool](), list[str]()
    progress = nullcontext(lambda count: None) if quiet else bar(f"predicting, {inputs.progress_noun}", total)
    with open_table(out, table_columns(opened, inputs)) as write, progress as advance:
        files.start()
        results = predict_items(opened, inputs, paths, ignored, batch=batch, threads=threads or cores())
        for number, result in enumerate(results):
            counts[bool(result.reason)] += 1
            if result.reason and len(refused) < MAX_LISTED:
                refused.append(f"  {result.name.path}: {result.reason}")
            write(row(opened, inputs, result, files.write(result, number)))
            advance(inputs.finish(result))
        inputs.end()
    summary = PredictSummary(counts[False], counts[True], time.monotonic() - start)
    if not quiet:
        _print_summary(summary, inputs.item_noun, refused, ignored)
    return summary


def predict_items(
    model: Predictor,
    inputs: InputSource,
    paths: list[str],
    ignored: Counter[str],
    *,
    batch: int | None = None,
    threads: int,
) -> Iterator[InferenceResult[Any]]:
    """The results for all inputs, in order; predictions as large as images one by one."""
    batch_size = 1 if find_task(model.metadata.task).output.full_size else batch or inputs.batch_size
    items, run = inputs.items(paths, ignored), partial(predict_images, model)
    return predict_all(items, inputs.read, run, batch_size=batch_size, threads=threads)


def table_columns(model: Predictor, inputs: InputSource) -> dict[str, type]:
    """The columns of the table: path, those of the inputs, those of the task."""
    return {"path": str, **inputs.columns, **find_task(model.metadata.task).output.columns(model.metadata)}


def row(
    model: Predictor, inputs: InputSource, result: InferenceResult[Any], files: Mapping[str, str]
) -> dict[str, Any]:
    """One row; without a prediction texts are "" and numbers None."""
    empty = {name: "" if kind is str else None for name, kind in table_columns(model, inputs).items()}
    values: dict[str, Any] = {}
    if result.prediction is not None:
        values = find_task(model.metadata.task).output.row(result.prediction, model.metadata)
    input_values = {"path": to_id(result.name.path), "reason": result.reason, **inputs.values(result.name)}
    return {**empty, **input_values, **values, **files}


class PredictionFiles:
    """Images that are written beside the table: predictions as large as images, heat maps, overlays."""

    def __init__(self, model: Predictor, out: str, explain: bool, annotate: Path | None) -> None:
        """ValueError: the table goes to stdout, or the model has no such images."""
        self.model, self.task = model, find_task(model.metadata.task)
        output, (_, path) = self.task.output, format_of(out)
        columns = output.columns(model.metadata)
        if explain and "heat" not in columns:
            more = "; --annotate FOLDER draws them" if "overlay" in columns else ""
            raise ValueError(f"--explain is about labels: this model answers {output.noun}s{more}")
        if output.file_column and path is None:
            raise ValueError(f"--out {out}: {output.noun}s are written beside the table: give it --out FILE.csv")
        beside = path or Path()
        self.files = beside.with_name(f"{beside.stem}_{output.noun}s") if output.file_column else None
        self.heatmaps = beside.with_name(f"{beside.stem}_heat") if explain else None
        self.overlays = annotate if "overlay" in columns else None

    def start(self) -> None:
        """Write what the values in the files of predictions mean."""
        if self.files is not None:
            self.files.mkdir(parents=True, exist_ok=True)
            write_text(self.files / LEGEND, self.task.output.legend(self.model.metadata))

    def write(self, result: InferenceResult[Any], number: int) -> dict[str, str]:
        """Write the files of the `number`-th result; their names by column."""
        if result.image is None:
            return {}
        output, image, names = self.task.output, result.image.image, {}
        path = Path(result.name.path)
        if self.files is not None:
            name = f"{number:06d}_{safe_name(path.stem)}.png"
            _write(self.files / name, output.encode(result.prediction, self.model.metadata))
            names[output.file_column] = f"{self.files.name}/{name}"
        if self.overlays is not None:
            overlay = self.overlays / f"{number:06d}_{safe_name(path.stem)}.jpg"
            _write(overlay, encode_image(output.draw(image, result.prediction), ".jpg"))
            names["overlay"] = to_id(str(overlay))
        if self.heatmaps is not None:
            name = f"{number:06d}_{safe_name(path.name)}.png"
            prepared, heatmap, _ = explain_prediction(self.model, image, output.explained(result.prediction))
            _write(self.heatmaps / name, encode_image(draw_heatmap(prepared, heatmap)))
            names["heat"] = f"{self.heatmaps.name}/{name}"
        return names


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def _print_summary(summary: PredictSummary, noun: str, refused: list[str], ignored: Counter[str]) -> None:
    """The summary, on stderr."""
    rate = summary.predicted / max(summary.seconds, 1e-9)
    print(f"predict: {summary.predicted:,} {noun} in {summary.seconds:.1f} s ({rate:,.0f} {noun}/s)", file=sys.stderr)
    if summary.refused:
        rest = [f"  and {summary.refused - len(refused):,} more"] if summary.refused > len(refused) else []
        print("\n".join(chain([f"refused: {summary.refused:,}"], refused, rest)), file=sys.stderr)
    if ignored:
        print(f"passed over: {', '.join(f'{why} {count:,}' for why, count in ignored.items())}", file=sys.stderr)
