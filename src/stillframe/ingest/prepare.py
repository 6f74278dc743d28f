"""Preprocessing from end to end: read, validate, split, write; memory does not grow with the pixels of the data set."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pandas as pd
import pyarrow as pa

from stillframe.config import DataConfig
from stillframe.ingest import audit, chunks, spool, validate, workers
from stillframe.ingest.audit import Audit
from stillframe.ingest.decode import decode
from stillframe.ingest.ingest_config import IngestConfig
from stillframe.ingest.listing import SourceRow
from stillframe.ingest.sources import read_source
from stillframe.ingest.spool import Chunk
from stillframe.ingest.target import Target
from stillframe.ingest.validate import DatasetReport
from stillframe.ingest.write_splits import write
from stillframe.paths import fresh_folder
from stillframe.types import DatasetCard

LARGE = ("thumb", "sums", "squares", "parts", "image", "start", "end")  # columns of the spool that are read when needed


class IngestError(ValueError):
    """Validation found a reason to stop; carries the audit as far as it got, and the rows."""

    def __init__(self, message: str, findings: Audit, frame: pd.DataFrame) -> None:
        super().__init__(message)
        self.findings, self.frame = findings, frame


def survey_and_validate(
    folder: Path,
    data: DataConfig,
    target: Target,
    *,
    seed: int,
    work: Path,
    keep_images: bool = True,
    decoder: workers.Decoder = decode,
) -> tuple[DatasetReport, Audit, list[Chunk]]:
    """List, read and validate a source; nothing is written but the spool.

    Args:
        folder: the source.
        data: section `data`.
        target: what the task knows of its targets.
        seed: of the split.
        work: a folder for the finished chunks.
        keep_images: whether the chunks hold the prepared images.
        decoder: bytes -> `DecodedImage`; another one is for tests.

    Raises:
        IngestError: the data cannot be used; with the reason and the figures.
        ValueError: the source cannot be listed, or a parameter does not fit it.
    """
    listing = read_source(folder, data, target)
    rows, left_out = target.select(listing.rows, data)
    config = IngestConfig.of(data, target, keep_images=keep_images)
    parts = chunks.make_chunks(listing, rows, folder, work, config)
    workers.survey_all(parts, workers=data.workers, backend=data.backend, decoder=decoder)
    frame = _frame(rows, target, config, parts)
    description = target.describe(frame, rows, data, folder)

    def thumbs(indices: list[int]) -> Mapping[int, bytes]:
        return spool.load(parts, indices, "thumb")

    try:
        report = validate.validate(
            frame, data, target, description, seed=seed, left_out=sum(left_out.values()), thumbs=thumbs
        )
    except ValueError as error:
        findings = audit.of_files(data.name, listing, left_out, frame, str(error))
        raise IngestError(str(error), findings, frame) from None
    return report, audit.of_report(data.name, listing, left_out, report, target), parts


def _frame(rows: list[SourceRow], target: Target, config: IngestConfig, parts: list[Chunk]) -> pd.DataFrame:
    """The listed rows beside the columns that the survey has of them, sorted by id."""
    schema = spool.schema(config)
    columns = [name for name in schema.names if name not in LARGE]
    tables = []
    for part in parts:
        with pa.memory_map(str(spool.finished_path(part))) as source:
            tables.append(pa.ipc.open_stream(source).read_all().select(columns).to_pandas())
    frame = pd.concat(tables, ignore_index=True) if tables else schema.empty_table().to_pandas()[columns]
    frame["source_text"] = [target.source_text(row.target) for row in rows]
    frame["split"] = pd.Series([row.split for row in rows], dtype=object)
    frame["group"] = pd.Series([row.group for row in rows], dtype=object)
    frame["weight"] = [row.weight for row in rows]
    frame["slices"] = [json.dumps(row.slices, sort_keys=True, ensure_ascii=False) for row in rows]
    if config.clip is not None:
        frame["file"] = [row.file or row.id for row in rows]  # parts of one file never lie in two splits
    for name in ("reason", "source_text", "id", "pixels"):
        frame[name] = frame[name].astype(object)
    assert frame["id"].tolist() == [row.id for row in rows]
    return cast("pd.DataFrame", frame)


def check_unchanged(report: DatasetReport, target: Target, parts: list[Chunk]) -> None:
    """Raise ValueError when a file is no longer the one that was read."""
    frame, changed = report.frame, []
    rows = [(part.folder, row) for part in parts for row in part.rows]
    stamps = zip(rows, frame["bytes"], frame["time_ns"], frame["target_stamps"], strict=True)
    for (folder, row), size, time_ns, own_stamps in stamps:
        if size >= 0 and chunks.row_stamp(folder, row) != (size, time_ns):
            changed.append(row.id)
        if len(own_stamps):
            pairs = zip(target.files(row.target), own_stamps[::2], own_stamps[1::2], strict=True)
            changed += [file for file, size, time_ns in pairs if chunks.stamp(folder, file) != (size, time_ns)]
    if changed:
        raise ValueError(
            f"{len(changed)} source file(s) changed while the stage ran, e.g. {changed[0]}: "
            f"run `dvc repro` again when they rest"
        )


@dataclass(frozen=True)
class Prepared:
    """The outcome of preprocessing, for the audit page; the spool of `parts` is still there."""

    findings: Audit
    report: DatasetReport
    card: DatasetCard
    parts: list[Chunk]
    config: IngestConfig
    target: Target


def prepare(
    folder: Path,
    data: DataConfig,
    target: Target,
    *,
    seed: int,
    out: Path,
    work: Path,
    page: Callable[[Path, Prepared], None] | None = None,
    decoder: workers.Decoder = decode,
) -> Audit:
    """The whole stage: `out` gets the splits, card.json, audit.json, quarantine.csv and what `page` writes.

    Args:
        folder: the source, read in place.
        data: section `data`.
        target: what the task knows of its targets.
        seed: of the split.
        out: written from scratch, and only when the data can be used.
        work: keeps finished chunks until the stage succeeds, and the quarantine.csv of a stage that stopped.
        page: writes `out`/audit.html while the spool is still there; None: no page.
        decoder: bytes -> `DecodedImage`; another one is for tests.

    Raises:
        FileNotFoundError: no source.
        ValueError: the data cannot be used; the message says why, with figures.
    """
    # 1. Read and judge everything. Nothing is written to `out` before the data is known to be usable.
    unfinished = work / "preprocess"
    try:
        report, findings, parts = survey_and_validate(folder, data, target, seed=seed, work=unfinished, decoder=decoder)
    except IngestError as stop:
        audit.write_quarantine(work / "quarantine.csv", stop.frame)
        raise ValueError(f"{stop}\n  what is wrong with each file: {work / 'quarantine.csv'}") from None
    # 2. Write; a file that changes meanwhile would be stored otherwise than it was judged.
    check_unchanged(report, target, parts)
    fresh_folder(out)
    card = write(out, data, target, report, parts)
    if page is not None:
        page(out / "audit.html", Prepared(findings, report, card, parts, IngestConfig.of(data, target), target))
    findings.write(out / "audit.json")
    audit.write_quarantine(out / "quarantine.csv", report.frame)
    check_unchanged(report, target, parts)
    # 3. Success: what an earlier failure left for the user, and the spool that lets a killed stage go on, can go.
    (work / "quarantine.csv").unlink(missing_ok=True)
    shutil.rmtree(unfinished)
    return findings
