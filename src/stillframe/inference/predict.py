"""`stillframe predict`: files, folders and patterns to a table of answers."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from stillframe.inference.heatmaps import draw
from stillframe.inference.inputs import ImageInputs, asked_of, plain
from stillframe.inference.load_model import open_model
from stillframe.inference.masks import MASK
from stillframe.inference.stream import InferenceResult, answer_all
from stillframe.inference.video_windows import WindowConfig
from stillframe.inference.writers import format_of, row, sink
from stillframe.ingest.workers import cores
from stillframe.progress import bar

SHOWN = 5  # refused files that are named on stderr


@dataclass(frozen=True)
class PredictSummary:
    """What came of it: images (or videos and windows) answered, files refused, seconds."""

    answered: int
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
    """Answer images, or videos where the model answers clips, in the order in which they are named.

    Args:
        paths: files, folders, patterns.
        model: as of `open_model`.
        out: csv, jsonl or parquet for stdout, or a file name that ends so; masks lie in a folder beside that file.
        explain: heat maps into a folder beside the output file.
        annotate: of videos, and of images with masks: a folder for copies with the answers drawn into them.
        window: of videos: s, cuts every one into windows of so many seconds; None: those longer than what evaluate
            looked at, into windows as long as the model's clips.
        stride: of videos: s from one window's begin to the next; None: as long as a window.
        batch: images or clips asked at a time, at most; None: 32 images, 4 clips.
        threads: of the model, and that read; 0: all cores.
        quiet: no progress bar, no summary.

    Raises:
        FileNotFoundError: no such model.
        ValueError: nothing that looks like an image was found, or an argument does not fit.
    """
    heat, cut = _heat_folder(out, explain), WindowConfig(window, stride)
    if (batch is not None and batch < 1) or threads < 0:
        raise ValueError(f"--batch {batch} --threads {threads}: at least 1, and 0 or more")
    opened = open_model(model, threads=threads)
    if opened.facts.answer == MASK:
        return _masks(opened, paths, out, heat, cut, annotate, threads or cores(), quiet)
    asked, ignored = asked_of(opened.facts, cut, annotate), Counter[str]()
    total = asked.total(paths, quick=quiet)
    if not total:
        raise ValueError(f"no {asked.word} in {', '.join(paths)}")
    begun, counts, refused = time.monotonic(), Counter[bool](), list[str]()
    shown = nullcontext(lambda count: None) if quiet else bar(f"predicting, {asked.step}", total)
    with sink(out, opened.facts.classes, asked.columns) as write, shown as advance:
        names = asked.names(paths, ignored)
        stream = answer_all(names, asked.read, opened, batch=batch or asked.batch, threads=threads or cores())
        for number, one in enumerate(stream):
            counts[bool(one.reason)] += 1
            if one.reason and len(refused) < SHOWN:
                refused.append(f"  {one.name.path}: {one.reason}")
            name = _drawn(opened, one, number, heat)
            write(row(one, one.name.path, name, opened.facts.classes) | asked.place(one.name))
            advance(asked.answered(one))
        asked.end()
    done = PredictSummary(counts[False], counts[True], time.monotonic() - begun)
    if not quiet:
        _say(done, asked.unit, refused, ignored)
    return done


def _masks(
    model: Any,
    paths: list[str],
    out: str,
    heat: Path | None,
    cut: WindowConfig,
    overlays: Path | None,
    threads: int,
    quiet: bool,
) -> PredictSummary:
    from stillframe.inference.mask_predicting import OutputFolders, answer_masks

    if heat is not None:
        raise ValueError("--explain is about labels: this model answers masks; --annotate FOLDER draws them")
    folders, asked, ignored = OutputFolders.of(out, overlays), ImageInputs(model.facts, cut, None), Counter[str]()
    if not asked.total(paths, quick=True):
        raise ValueError(f"no images in {', '.join(paths)}")
    begun, counts, refused = time.monotonic(), Counter[bool](), list[str]()

    def note(path: str, reason: str) -> None:
        counts[bool(reason)] += 1
        if reason and len(refused) < SHOWN:
            refused.append(f"  {path}: {reason}")

    answer_masks(model, paths, out, folders, asked, threads=threads, quiet=quiet, note=note, ignored=ignored)
    done = PredictSummary(counts[False], counts[True], time.monotonic() - begun)
    if not quiet:
        _say(done, asked.unit, refused, ignored)
    return done


def _drawn(model: Any, one: InferenceResult[Any], number: int, heat: Path | None) -> str:
    """Draw a heat map where they are wanted; its file, relative to the output's folder, or ""."""
    if heat is None or one.picture is None:
        return ""
    name = f"{heat.name}/{number:06d}_{plain(Path(one.name.path).name)}.png"
    draw(model, one.picture.image, one.decision, heat.parent / name)
    return name


def _heat_folder(out: str, explain: bool) -> Path | None:
    _, path = format_of(out)
    if not explain:
        return None
    if path is None:
        raise ValueError("--explain writes pictures beside the output: give it a file, --out FILE.csv")
    return path.with_name(f"{path.stem}_heat")


def _say(done: PredictSummary, unit: str, refused: list[str], ignored: Counter[str]) -> None:
    """The summary, on stderr."""
    rate = done.answered / max(done.seconds, 1e-9)
    print(f"predict: {done.answered:,} {unit} in {done.seconds:.1f} s ({rate:,.0f} {unit}/s)", file=sys.stderr)
    if done.refused:
        more = [f"  and {done.refused - len(refused):,} more"] if done.refused > len(refused) else []
        print("\n".join(chain([f"refused: {done.refused:,}"], refused, more)), file=sys.stderr)
    if ignored:
        print(f"passed over: {', '.join(f'{why} {count:,}' for why, count in ignored.items())}", file=sys.stderr)


def rows(paths: list[str], model: Any, *, batch: int | None = None, threads: int = 1) -> Iterator[dict[str, Any]]:
    """The rows of `predict` for an open model, without a file; for use from Python."""
    asked = asked_of(model.facts, WindowConfig(None, None), None)
    names = asked.names(paths, Counter())
    for one in answer_all(names, asked.read, model, batch=batch or asked.batch, threads=threads):
        yield row(one, one.name.path, "", model.facts.classes) | asked.place(one.name)
