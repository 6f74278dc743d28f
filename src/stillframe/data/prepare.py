"""Preprocessing from end to end: survey, judge, split, write; memory does not grow with the pixels of the data set."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from stillframe.config import Data
from stillframe.data import audit, judge, survey, workers
from stillframe.data.audit import Audit
from stillframe.data.decode import decode, to_channels
from stillframe.data.judge import Verdict
from stillframe.data.progress import bar
from stillframe.data.sources import Row, read_source
from stillframe.data.split import split_hash
from stillframe.data.store import SplitWriter
from stillframe.data.survey import Chunk, Rule
from stillframe.paths import fresh_folder
from stillframe.sample import SPLITS, Card

BATCH = 512  # rows a record batch, at most
BATCH_BYTES = 1 << 25


class Stop(ValueError):
    """Judging found a reason to stop; carries the audit as far as it got, and the rows."""

    def __init__(self, message: str, findings: Audit, frame: pd.DataFrame) -> None:
        super().__init__(message)
        self.findings, self.frame = findings, frame


def survey_and_judge(
    folder: Path, data: Data, *, seed: int, spool: Path, keep_images: bool = True, decoder: workers.Decoder = decode
) -> tuple[Verdict, Audit, list[Chunk]]:
    """List, read and judge a source; nothing is written but the spool.

    Args:
        folder: the source.
        data: section `data`.
        seed: of the split.
        spool: a folder for the finished chunks.
        keep_images: whether the chunks hold the prepared images.
        decoder: bytes -> `Picture`; another one is for tests.

    Raises:
        Stop: the data cannot be used; with the reason and the figures.
        ValueError: the source cannot be listed, or a parameter does not fit it.
    """
    listing = read_source(folder, data)
    used, names, left, classes = judge.name_classes(listing.rows, data)
    parts = survey.chunks(listing, used, folder, spool, Rule.of(data, keep_images=keep_images))
    workers.survey_all(parts, workers=data.workers, backend=data.backend, decoder=decoder)
    frame = _frame(used, names, parts)

    def thumbs(wanted: list[int]) -> Mapping[int, bytes]:
        return load(parts, wanted, "thumb")

    try:
        verdict = judge.judge(frame, data, classes=classes, seed=seed, left_out=sum(left.values()), thumbs=thumbs)
    except ValueError as error:
        raise Stop(str(error), audit.of_files(data.name, listing, left, frame, str(error)), frame) from None
    return verdict, audit.of_verdict(data.name, listing, left, verdict), parts


def _frame(rows: list[Row], names: dict[str, str], parts: list[Chunk]) -> pd.DataFrame:
    """Rows and findings side by side, sorted by id."""
    columns = [name for name in survey.SCHEMA.names if name not in ("image", "thumb", "sums", "squares")]
    tables = []
    for part in parts:
        with pa.memory_map(str(survey.finished_name(part))) as source:
            tables.append(pa.ipc.open_stream(source).read_all().select(columns).to_pandas())
    frame = pd.concat(tables, ignore_index=True) if tables else survey.SCHEMA.empty_table().to_pandas()[columns]
    frame["label"] = [row.label for row in rows]
    frame["name"] = [names.get(row.label, "") for row in rows]
    frame["split"] = pd.Series([row.split for row in rows], dtype=object)
    frame["group"] = pd.Series([row.group for row in rows], dtype=object)
    frame["weight"] = [row.weight for row in rows]
    frame["slices"] = [json.dumps(row.slices, sort_keys=True, ensure_ascii=False) for row in rows]
    for name in ("reason", "name", "label", "id", "pixels"):
        frame[name] = frame[name].astype(object)
    assert frame["id"].tolist() == [row.id for row in rows]
    return cast("pd.DataFrame", frame)


def load(parts: list[Chunk], wanted: Iterable[int], column: str) -> dict[int, Any]:
    """One column of the spool at some positions (in the order of all rows)."""
    positions = np.array(sorted(set(wanted)), dtype=np.int64)
    out: dict[int, Any] = {}
    first = 0
    for part in parts:
        inside = positions[(positions >= first) & (positions < first + len(part.rows))]
        if len(inside):
            with pa.memory_map(str(survey.finished_name(part))) as source:
                values = pa.ipc.open_stream(source).read_all()[column]
                out |= {int(where): values[int(where) - first].as_py() for where in inside}
        first += len(part.rows)
    return out


def check_unchanged(verdict: Verdict, parts: list[Chunk]) -> None:
    """Raise ValueError when a file is no longer the one that was read."""
    frame = verdict.frame
    rows = [row for part in parts for row in part.rows]
    changed = [
        row.id
        for row, size, time_ns in zip(rows, frame["bytes"], frame["time_ns"], strict=True)
        if size >= 0 and survey.stamp(parts[0].folder, row) != (size, time_ns)
    ]
    if changed:
        raise ValueError(
            f"{len(changed)} source file(s) changed while the stage ran, e.g. {changed[0]}: "
            f"run `dvc repro` again when they rest"
        )


def channels_of(data: Data, verdict: Verdict) -> int:
    """1 when every kept image is gray by its mode, else 3; or what `data.channels` says."""
    if data.channels != "auto":
        return 1 if data.channels == "gray" else 3
    return int(verdict.kept["channels"].max())


def write(out: Path, data: Data, verdict: Verdict, parts: list[Chunk]) -> Card:
    """Write the three splits (rows sorted by id) and card.json into `out`."""
    channels, rule = channels_of(data, verdict), Rule.of(data)
    kept = verdict.kept
    size = data.image_size
    sums = np.zeros((2, channels))
    with ExitStack() as stack, bar("writing splits", len(kept)) as advance:
        writers = {
            name: stack.enter_context(
                SplitWriter(out / name, height=size, width=size, channels=channels, encoding=rule.encoding)
            )
            for name in SPLITS
        }
        limit = max(1, min(BATCH, BATCH_BYTES // (size**2 * channels)))
        waiting: dict[str, list[dict[str, Any]]] = {name: [] for name in SPLITS}
        for split, row, record in _stored(verdict, parts, channels, rule):
            waiting[split].append(row)
            if split == "train":
                sums += [record["sums"], record["squares"]]  # one value for all channels when the file is gray
            if len(waiting[split]) == limit:
                writers[split].write(waiting[split])
                advance(limit)
                waiting[split] = []
        for split, rest in waiting.items():
            writers[split].write(rest)
            advance(len(rest))
    card = _card(data, verdict, channels, sums)
    card.write(out / "card.json")
    return card


def _stored(
    verdict: Verdict, parts: list[Chunk], channels: int, rule: Rule
) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Split, row for the store, and survey record of every kept sample, in order of id."""
    number = {name: index for index, name in enumerate(verdict.classes)}
    columns = ["split", "name", "weight", "group", "width", "height", "mode", "slices", "reason"]
    judged = verdict.frame[columns].itertuples(index=False)
    for part in parts:
        for record, seen in zip(
            survey.records(part, ["id", "channels", "sums", "squares", "image"]), judged, strict=False
        ):
            if seen.reason:
                continue
            image = record["image"]
            if rule.encoding == "raw" and record["channels"] != channels:
                shape = (rule.image_size, rule.image_size, record["channels"])
                image = to_channels(np.frombuffer(image, dtype=np.uint8).reshape(shape), channels).tobytes()
            row = {"id": record["id"], "label": number[str(seen.name)], "weight": seen.weight, "group": seen.group}
            row |= {"source_id": record["id"], "source_width": seen.width, "source_height": seen.height}
            yield str(seen.split), {**row, "source_mode": seen.mode, "slices": seen.slices, "image": image}, record


def _card(data: Data, verdict: Verdict, channels: int, sums: NDArray[np.float64]) -> Card:
    kept = verdict.kept
    table = kept.groupby(["split", "name"]).size()
    pixels = float((kept["split"] == "train").sum()) * data.image_size**2
    mean = sums[0] / pixels / 255.0
    deviation = np.sqrt(np.maximum(sums[1] / pixels / 255.0**2 - mean**2, 0.0))
    return Card(
        name=data.name,
        classes=verdict.classes,
        counts={split: {name: int(table.get((split, name), 0)) for name in verdict.classes} for split in SPLITS},
        channels=channels,
        height=data.image_size,
        width=data.image_size,
        mean=[round(float(value), 6) for value in mean],
        std=[round(float(value), 6) for value in deviation],
        slices=data.columns.slices,
        split_hash=split_hash(zip(kept["id"], kept["split"], strict=True)),
    )


def prepare(folder: Path, data: Data, *, seed: int, out: Path, work: Path, decoder: workers.Decoder = decode) -> Audit:
    """The whole stage: `out` gets the splits, card.json, audit.json, audit.html and quarantine.csv.

    Args:
        folder: the source, read in place.
        data: section `data`.
        seed: of the split.
        out: written from scratch, and only when the data can be used.
        work: keeps finished chunks until the stage succeeds, and the quarantine.csv of a stage that stopped.
        decoder: bytes -> `Picture`; another one is for tests.

    Raises:
        FileNotFoundError: no source.
        ValueError: the data cannot be used; the message says why, with figures.
    """
    from stillframe.data import audit_page

    spool = work / "preprocess"
    try:
        verdict, findings, parts = survey_and_judge(folder, data, seed=seed, spool=spool, decoder=decoder)
    except Stop as stop:
        audit.write_quarantine(work / "quarantine.csv", stop.frame)
        raise ValueError(f"{stop}\n  what is wrong with each file: {work / 'quarantine.csv'}") from None
    check_unchanged(verdict, parts)
    fresh_folder(out)
    card = write(out, data, verdict, parts)
    audit_page.write_page(out / "audit.html", findings, verdict, card, parts, Rule.of(data))
    findings.write(out / "audit.json")
    audit.write_quarantine(out / "quarantine.csv", verdict.frame)
    check_unchanged(verdict, parts)
    (work / "quarantine.csv").unlink(missing_ok=True)
    shutil.rmtree(spool)
    return findings
