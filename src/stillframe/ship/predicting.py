"""`stillframe predict`: files, folders and patterns to a table of answers."""

from __future__ import annotations

import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from stillframe.data.decode import Picture, Refused
from stillframe.data.progress import bar
from stillframe.data.reading import read_image
from stillframe.data.workers import cores
from stillframe.ship.found import Found, find
from stillframe.ship.heat import draw
from stillframe.ship.opening import open_model
from stillframe.ship.stream import answer_all
from stillframe.ship.writing import format_of, row, sink

BATCH = 32
SHOWN = 5  # refused files that are named on stderr


@dataclass(frozen=True)
class Done:
    """What came of it: images answered, files refused, seconds."""

    answered: int
    refused: int
    seconds: float


def predict(
    paths: list[str],
    *,
    model: str | None = None,
    out: str = "csv",
    explain: bool = False,
    batch: int = BATCH,
    threads: int = 0,
    quiet: bool = False,
) -> Done:
    """Answer images, in the order in which they are named.

    Args:
        paths: files, folders, patterns.
        model: as of `open_model`.
        out: csv, jsonl or parquet for stdout, or a file name that ends so.
        explain: heat maps into a folder beside the output file.
        batch: images asked at a time, at most.
        threads: of the model, and that read; 0: all cores.
        quiet: no progress bar, no summary.

    Raises:
        FileNotFoundError: no such model.
        ValueError: nothing that looks like an image was found, or an argument does not fit.
    """
    heat = _heat_folder(out, explain)
    if batch < 1 or threads < 0:
        raise ValueError(f"--batch {batch} --threads {threads}: at least 1, and 0 or more")
    opened = open_model(model, threads=threads)
    ignored: Counter[str] = Counter()
    total = sum(1 for _ in find(paths, Counter()))
    if not total:
        raise ValueError(f"no images in {', '.join(paths)}")
    begun, answered, bad = time.monotonic(), 0, 0
    classes, refused = opened.facts.classes, list[str]()
    shown = nullcontext(lambda count: None) if quiet else bar("predicting", total)
    with sink(out, classes) as write, shown as advance:
        stream = answer_all(find(paths, ignored), _reader(opened), opened, batch=batch, threads=threads or cores())
        for number, one in enumerate(stream):
            answered += not one.reason
            bad += bool(one.reason)
            if one.reason and len(refused) < SHOWN:
                refused.append(f"  {one.name.path}: {one.reason}")
            name = ""
            if heat is not None and one.picture is not None:
                name = f"{heat.name}/{number:06d}_{_plain(one.name.path)}.png"
                draw(opened, one.picture.image, one.decision, heat.parent / name)
            write(row(one, one.name.path, name, classes))
            advance(1)
    done = Done(answered, bad, time.monotonic() - begun)
    if not quiet:
        _say(done, refused, ignored)
    return done


def _reader(model: Any) -> Any:
    facts = model.facts

    def read(found: Found) -> Picture:
        if found.problem:
            raise Refused(found.problem)
        return read_image(Path(found.path), min_px=facts.min_px, max_megapixels=facts.max_megapixels)

    return read


def _heat_folder(out: str, explain: bool) -> Path | None:
    _, path = format_of(out)
    if not explain:
        return None
    if path is None:
        raise ValueError("--explain writes pictures beside the output: give it a file, --out FILE.csv")
    return path.with_name(f"{path.stem}_heat")


def _plain(path: str) -> str:
    """A file's name as part of another's: letters, digits, dots and dashes."""
    return re.sub(r"[^\w.-]+", "_", Path(path).name)[:80]


def _say(done: Done, refused: list[str], ignored: Counter[str]) -> None:
    """The summary, on stderr."""
    rate = done.answered / max(done.seconds, 1e-9)
    print(f"predict: {done.answered:,} images in {done.seconds:.1f} s ({rate:,.0f} images/s)", file=sys.stderr)
    if done.refused:
        more = [f"  and {done.refused - len(refused):,} more"] if done.refused > len(refused) else []
        print("\n".join(chain([f"refused: {done.refused:,}"], refused, more)), file=sys.stderr)
    if ignored:
        print(f"passed over: {', '.join(f'{why} {count:,}' for why, count in ignored.items())}", file=sys.stderr)


def rows(paths: list[str], model: Any, *, batch: int = BATCH, threads: int = 1) -> Iterator[dict[str, Any]]:
    """The rows of `predict` for an open model, without a file; for use from Python."""
    for one in answer_all(find(paths, Counter()), _reader(model), model, batch=batch, threads=threads):
        yield row(one, one.name.path, "", model.facts.classes)
