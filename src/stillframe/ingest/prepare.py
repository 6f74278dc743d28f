"""Preprocessing from end to end: survey, judge, split, write; memory does not grow with the pixels of the data set."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from stillframe.config import DataConfig
from stillframe.ingest import audit, chunks, validate, workers
from stillframe.ingest.audit import Audit
from stillframe.ingest.chunks import Chunk, IngestConfig
from stillframe.ingest.decode import decode, to_channels
from stillframe.ingest.masks import classes as mask_classes
from stillframe.ingest.masks import rows as mask_rows
from stillframe.ingest.sources import SourceRow, read_source
from stillframe.ingest.split_assignment import split_hash
from stillframe.ingest.validate import DatasetReport
from stillframe.ingest.video import clip_rows
from stillframe.paths import fresh_folder
from stillframe.progress import bar
from stillframe.store import frame_sampling as clips
from stillframe.store.columns import TargetColumn
from stillframe.store.split import SplitWriter
from stillframe.types import SPLITS, DatasetCard

BATCH = 512  # rows a record batch, at most
BATCH_BYTES = 1 << 25


class IngestError(ValueError):
    """Judging found a reason to stop; carries the audit as far as it got, and the rows."""

    def __init__(self, message: str, findings: Audit, frame: pd.DataFrame) -> None:
        super().__init__(message)
        self.findings, self.frame = findings, frame


def survey_and_judge(
    folder: Path,
    data: DataConfig,
    *,
    seed: int,
    spool: Path,
    keep_images: bool = True,
    decoder: workers.Decoder = decode,
) -> tuple[DatasetReport, Audit, list[Chunk]]:
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
    used, names, left, classes = validate.name_classes(listing.rows, data)
    parts = chunks.chunks(listing, used, folder, spool, IngestConfig.of(data, keep_images=keep_images))
    workers.survey_all(parts, workers=data.workers, backend=data.backend, decoder=decoder)
    frame = _frame(used, names, parts)
    if data.masks is not None:
        classes = mask_classes.name_masks(frame, used, data, folder)

    def thumbs(wanted: list[int]) -> Mapping[int, bytes]:
        return load(parts, wanted, "thumb")

    try:
        verdict = validate.judge(frame, data, classes=classes, seed=seed, left_out=sum(left.values()), thumbs=thumbs)
    except ValueError as error:
        raise IngestError(str(error), audit.of_files(data.name, listing, left, frame, str(error)), frame) from None
    return verdict, audit.of_verdict(data.name, listing, left, verdict), parts


def _frame(rows: list[SourceRow], names: dict[str, str], parts: list[Chunk]) -> pd.DataFrame:
    """Rows and findings side by side, sorted by id."""
    schema = parts[0].rule.schema if parts else chunks.SCHEMA
    columns = [
        name for name in schema.names if name not in ("image", "thumb", "sums", "squares", "cuts", "start", "end")
    ]
    tables = []
    for part in parts:
        with pa.memory_map(str(chunks.finished_name(part))) as source:
            tables.append(pa.ipc.open_stream(source).read_all().select(columns).to_pandas())
    frame = pd.concat(tables, ignore_index=True) if tables else schema.empty_table().to_pandas()[columns]
    frame["label"] = [row.label for row in rows]
    frame["name"] = [names.get(row.label, "") for row in rows]
    frame["split"] = pd.Series([row.split for row in rows], dtype=object)
    frame["group"] = pd.Series([row.group for row in rows], dtype=object)
    frame["weight"] = [row.weight for row in rows]
    frame["slices"] = [json.dumps(row.slices, sort_keys=True, ensure_ascii=False) for row in rows]
    if parts and parts[0].rule.clip is not None:
        frame["file"] = [row.file or row.id for row in rows]  # parts of one file never lie in two splits
    frame["answer"] = frame["name"]  # what copies of one image must agree in
    frame["holds"] = [[name] if name else [] for name in frame["name"]]
    for name in ("reason", "name", "answer", "label", "id", "pixels"):
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
            with pa.memory_map(str(chunks.finished_name(part))) as source:
                values = pa.ipc.open_stream(source).read_all()[column]
                out |= {int(where): values[int(where) - first].as_py() for where in inside}
        first += len(part.rows)
    return out


def check_unchanged(verdict: DatasetReport, parts: list[Chunk]) -> None:
    """Raise ValueError when a file is no longer the one that was read."""
    frame = verdict.frame
    rows = [row for part in parts for row in part.rows]
    changed = [
        row.id
        for row, size, time_ns in zip(rows, frame["bytes"], frame["time_ns"], strict=True)
        if size >= 0 and chunks.stamp(parts[0].folder, row) != (size, time_ns)
    ]
    if "mask_stamps" in frame:
        changed += mask_rows.changed(parts[0].folder, rows, frame["mask_stamps"])
    if changed:
        raise ValueError(
            f"{len(changed)} source file(s) changed while the stage ran, e.g. {changed[0]}: "
            f"run `dvc repro` again when they rest"
        )


def channels_of(data: DataConfig, verdict: DatasetReport) -> int:
    """1 when every kept image is gray by its mode, else 3; or what `data.channels` says."""
    if data.channels != "auto":
        return 1 if data.channels == "gray" else 3
    return int(verdict.kept["channels"].max())


def write(out: Path, data: DataConfig, verdict: DatasetReport, parts: list[Chunk]) -> DatasetCard:
    """Write the three splits (rows sorted by id) and card.json into `out`."""
    channels, rule = channels_of(data, verdict), IngestConfig.of(data)
    kept = verdict.kept
    size = data.image_size
    sums, px = np.zeros((2, channels)), {name: np.zeros(len(verdict.classes), np.int64) for name in SPLITS}
    lengths: list[float] = []  # of the train videos, s
    targets = [TargetColumn("label", "int"), *([TargetColumn("mask", "map")] if rule.masks else [])]
    with ExitStack() as stack, bar("writing splits", len(kept)) as advance:
        writers = {
            name: stack.enter_context(
                SplitWriter(
                    out / name,
                    height=size,
                    width=size,
                    channels=channels,
                    encoding=rule.encoding,
                    targets=targets,
                    tiles=rule.overlap is not None,
                    frames=_frames(data, name),
                )
            )
            for name in SPLITS
        }
        limit = max(1, min(BATCH, BATCH_BYTES // (size**2 * channels * _frames(data, "train"))))
        waiting: dict[str, list[dict[str, Any]]] = {name: [] for name in SPLITS}
        for split, rows, record, px_K in _stored(verdict, parts, channels, rule):
            if split == "train":
                sums += [record["sums"], record["squares"]]  # one value for all channels when the file is gray
                lengths += [record["end"] - record["start"]] if rule.clip is not None else []
            if px_K is not None:
                px[split] += px_K
            for row in rows:
                waiting[split].append(row)
                if len(waiting[split]) == limit:
                    writers[split].write(waiting[split])
                    waiting[split] = []
            advance(1)
        for split, rest in waiting.items():
            writers[split].write(rest)
    card = _card(data, verdict, channels, sums, writers["train"].rows, px)
    card = replace(card, seconds=round(float(np.median(lengths)), 3)) if lengths else card
    card.write(out / "card.json")
    return card


def _frames(data: DataConfig, split: str) -> int:
    """Frames of a row of a split; 1 of images."""
    if data.clip is None:
        return 1
    return (data.clip.stored or data.clip.frames) if split == "train" else data.clip.frames


def _stored(
    verdict: DatasetReport, parts: list[Chunk], channels: int, rule: IngestConfig
) -> Iterator[tuple[str, list[dict[str, Any]], dict[str, Any], NDArray[np.int64] | None]]:
    """Split, rows for the store, survey record, and pixels of the classes of every kept sample, in order of id."""
    number = {name: index for index, name in enumerate(verdict.classes)}
    columns = ["split", "name", "weight", "group", "width", "height", "mode", "slices", "reason"]
    judged = verdict.frame[columns + (["lut"] if rule.masks else [])].itertuples(index=False)
    wanted = ["id", "channels", "sums", "squares", "cuts" if rule.masks else "image"]
    wanted += ["start", "end"] if rule.clip is not None else []
    for part in parts:
        for record, seen in zip(chunks.records(part, wanted), judged, strict=False):
            if seen.reason:
                continue
            for cut in record["cuts"] if rule.masks else [record] if rule.clip is None else []:
                cut["image"] = _coloured(cut["image"], record["channels"], channels, rule)
            row = {"id": record["id"], "label": number[str(seen.name)], "weight": seen.weight, "group": seen.group}
            row |= {"source_id": record["id"], "source_width": seen.width, "source_height": seen.height}
            row |= {"source_mode": seen.mode, "slices": seen.slices}
            if rule.masks:
                lut: Any = seen.lut
                rows, px_K = mask_rows.rows_of(row, record["cuts"], lut, len(number), rule)
                yield str(seen.split), rows, record, px_K
            elif rule.clip is not None:
                rows = clip_rows.rows_of(row, record, str(seen.split), rule.clip, channels, rule)
                yield str(seen.split), rows, record, None
            else:
                yield str(seen.split), [{**row, "image": record["image"]}], record, None


def _coloured(image: bytes, found: int, channels: int, rule: IngestConfig) -> bytes:
    """A stored image with the data set's number of channels."""
    if rule.encoding != "raw" or found == channels:
        return image
    shape = (rule.image_size, rule.image_size, found)
    return to_channels(np.frombuffer(image, dtype=np.uint8).reshape(shape), channels).tobytes()


def _card(
    data: DataConfig,
    verdict: DatasetReport,
    channels: int,
    sums: NDArray[np.float64],
    train_rows: int,
    px: dict[str, NDArray[np.int64]],
) -> DatasetCard:
    kept = verdict.kept
    table = kept.explode("holds").groupby(["split", "holds"]).size()
    pixels = float(train_rows) * _frames(data, "train") * data.image_size**2
    mean = sums[0] / pixels / 255.0
    deviation = np.sqrt(np.maximum(sums[1] / pixels / 255.0**2 - mean**2, 0.0))
    return DatasetCard(
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
        pixels={split: dict(zip(verdict.classes, px_K.tolist(), strict=True)) for split, px_K in px.items()}
        if data.masks is not None
        else {},
        frames=_frames(data, "test"),
        clip=clips.facts(data.clip) if data.clip is not None else None,
    )


def prepare(
    folder: Path, data: DataConfig, *, seed: int, out: Path, work: Path, decoder: workers.Decoder = decode
) -> Audit:
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
    from stillframe.ingest import audit_page

    spool = work / "preprocess"
    try:
        verdict, findings, parts = survey_and_judge(folder, data, seed=seed, spool=spool, decoder=decoder)
    except IngestError as stop:
        audit.write_quarantine(work / "quarantine.csv", stop.frame)
        raise ValueError(f"{stop}\n  what is wrong with each file: {work / 'quarantine.csv'}") from None
    check_unchanged(verdict, parts)
    fresh_folder(out)
    card = write(out, data, verdict, parts)
    audit_page.write_page(out / "audit.html", findings, verdict, card, parts, IngestConfig.of(data))
    findings.write(out / "audit.json")
    audit.write_quarantine(out / "quarantine.csv", verdict.frame)
    check_unchanged(verdict, parts)
    (work / "quarantine.csv").unlink(missing_ok=True)
    shutil.rmtree(spool)
    return findings
