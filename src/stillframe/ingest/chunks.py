"""Every file read and decoded once, in parallel, in chunks that land whole in the spool or not at all.

A chunk is named after what goes into it (paths, sizes, times, parameters, code), so that a run that was killed goes on
where it stopped and ends with the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from stillframe.code_fingerprint import code_digest
from stillframe.hashing import short_sha256
from stillframe.ingest import idx, spool, tiles
from stillframe.ingest.decode import DecodedImage, InvalidImage, Pixels, decode, to_channels
from stillframe.ingest.image_hash import fingerprints
from stillframe.ingest.ingest_config import IngestConfig
from stillframe.ingest.listing import Listing, SourceRow, to_path
from stillframe.ingest.read_image import content_of
from stillframe.ingest.spool import Chunk
from stillframe.ingest.target import Region, SurveyedTarget, Target, load_target
from stillframe.ingest.video import clip_rows
from stillframe.store.encoding import encode

CHUNK_FILES, CHUNK_IDX, CHUNK_VIDEOS = 64, 4000, 16  # samples a chunk
CHUNK_TILED = 4  # the tiles of an image are as large as the image, and more
DECODERS = ("pillow", "simplejpeg", "opencv-python-headless", "numpy", "pycocotools", "av")  # packages
NOT_OF_FILES = ("weight", "split", "conflict")  # problems of a row of a table: its file is read all the same


@cache
def code(target: str) -> str:
    """Digest of what decides a chunk's outcome beside its files and its config: code, and versions of the decoders."""
    return code_digest([__name__, target], packages=DECODERS)


def stamp(folder: Path, file: str) -> tuple[int, int]:
    """Size (bytes) and modification time (ns) of a file by its id; (-1, -1) when there is none to read."""
    try:
        status = to_path(folder, file).stat()
    except (OSError, ValueError):
        return -1, -1
    return status.st_size, status.st_mtime_ns


def row_stamp(folder: Path, row: SourceRow) -> tuple[int, int]:
    """The `stamp` of a sample's file; (-1, -1) for one outside the source, which is not looked at."""
    return (-1, -1) if row.problem.startswith("path") else stamp(folder, row.file or row.id)


def target_stamps(folder: Path, row: SourceRow, target: Target) -> list[int]:
    """The `stamp` of each file that a sample's target names, in turn."""
    return [number for file in target.files(row.target) for number in stamp(folder, file)]


def make_chunks(listing: Listing, rows: list[SourceRow], folder: Path, work: Path, config: IngestConfig) -> list[Chunk]:
    """Cut the rows (sorted by id) into chunks with their keys; `work` is the folder of the spool."""
    folder, work, target = folder.absolute(), work.absolute(), load_target(config.target)
    work.mkdir(parents=True, exist_ok=True)
    files: dict[str, Path] = {}
    stamps: dict[str, tuple[int, int]] = {}
    if listing.layout == "idx":
        for path in idx.image_files(folder):
            name = path.name.removesuffix(".gz")
            files[name] = idx.unpacked(path, work)
            stamps[name] = (path.stat().st_size, path.stat().st_mtime_ns)
    # A chunk is the unit of work that a killed run loses: some seconds.
    size = CHUNK_IDX if files else CHUNK_FILES if config.clip is None else CHUNK_VIDEOS
    if config.overlap is not None:
        size = CHUNK_TILED
    chunks = []
    for first in range(0, len(rows), size):
        part = tuple(rows[first : first + size])
        inputs = []
        for row in part:
            own = stamps[row.id.split("#")[0]] if files else row_stamp(folder, row)
            # a target that is not surveyed (a label) may change without the image being decoded again
            value = [row.target, target_stamps(folder, row, target)] if target.columns else None
            inputs.append((row.id, row.problem, row.start, row.end, *own, value))
        text = json.dumps([code(config.target), asdict(config), inputs], sort_keys=True, default=asdict)
        chunks.append(Chunk(short_sha256(text.encode()), folder, work, part, config, files))
    return chunks


def process(chunk: Chunk, decoder: Callable[..., DecodedImage] = decode) -> None:
    """Read, decode and check each of a chunk's samples by itself, and write the records to the spool."""
    import cv2

    cv2.setNumThreads(1)  # the processes are the parallelism
    chunk.started.touch()
    spool.write_chunk([examine(row, chunk, decoder) for row in chunk.rows], chunk)


def examine(row: SourceRow, chunk: Chunk, decoder: Callable[..., DecodedImage] = decode) -> dict[str, Any]:
    """One record of the spool's schema for one sample; what is wrong with its file or target is its `reason`."""
    config = chunk.config
    record = {**_empty_record(config), "id": row.id, "reason": row.problem}
    try:
        if config.clip is not None:
            _check_may_be_opened(row, chunk)
            record |= {"start": row.start, "end": row.start}
            clip_rows.examine_clip(row, to_path(chunk.folder, row.file or row.id), config.clip, config, record)
            return record
        decoded, content = _read(row, chunk, record, decoder)
    except InvalidImage as refusal:
        record["reason"] = record["reason"] or str(refusal)
        return record
    except (OSError, ValueError) as error:
        record["reason"] = record["reason"] or f"unreadable: {getattr(error, 'strerror', None) or error}"
        return record
    # Fingerprints of the decoded pixels, so that the same image in two formats is recognised.
    record["pixels"], record["phash"], thumb = fingerprints(decoded.image)
    record["thumb"] = thumb.tobytes()
    for name in ("mode", "format", "width", "height", "frames", "turned"):
        record[name] = getattr(decoded, name)
    record["notes"] = "; ".join(decoded.notes)
    target, surveyed = load_target(config.target), SurveyedTarget()
    record["target_stamps"] = target_stamps(chunk.folder, row, target)
    if target.survey is not None:
        if record["reason"]:
            return record
        try:
            surveyed = target.survey(row, chunk.folder, config, decoded, content)
        except InvalidImage as refusal:
            record["reason"] = str(refusal)
            return record
    record |= surveyed.columns
    _prepare(decoded.image, surveyed, config, record)
    return record


@cache
def _empty_record(config: IngestConfig) -> dict[str, Any]:
    """What the columns hold of a file that was not read; every value is replaced, never changed."""
    record: dict[str, Any] = {}
    for column in spool.schema(config):
        is_bytes = pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)
        empty = b"" if is_bytes else "" if pa.types.is_string(column.type) else 0
        record[column.name] = [] if pa.types.is_list(column.type) else empty
    return record | {"bytes": -1, "time_ns": -1, "turned": False}


def _read(
    row: SourceRow, chunk: Chunk, record: dict[str, Any], decoder: Callable[..., DecodedImage]
) -> tuple[DecodedImage, bytes]:
    """The decoded image of a row and its file's bytes (none of an idx file)."""
    config = chunk.config
    if chunk.idx_files:
        name, index = row.id.split("#")
        image = idx.pixels(chunk.idx_files[name], int(index))
        record["sha256"] = hashlib.sha256(image.tobytes()).hexdigest()
        if min(image.shape[:2]) < config.min_px:
            raise InvalidImage(
                f"too small: {image.shape[1]} x {image.shape[0]} px, less than data.min_px = {config.min_px}"
            )
        return DecodedImage(image, "L", "IDX", image.shape[1], image.shape[0]), b""
    _check_may_be_opened(row, chunk)
    content, status = content_of(to_path(chunk.folder, row.id), config.max_megapixels)
    record["bytes"], record["time_ns"] = status.st_size, status.st_mtime_ns
    record["sha256"] = hashlib.sha256(content).hexdigest()
    return decoder(content, min_px=config.min_px, max_megapixels=config.max_megapixels), content


def _check_may_be_opened(row: SourceRow, chunk: Chunk) -> None:
    """Raise InvalidImage for a row whose problem is its path or its file, not what a table says of it."""
    if row.problem and not row.problem.startswith((*NOT_OF_FILES, *load_target(chunk.config.target).problems)):
        raise InvalidImage(row.problem)


def _prepare(image_HWC: Pixels, surveyed: SurveyedTarget, config: IngestConfig, record: dict[str, Any]) -> None:
    """Fill in the prepared image (or its tiles) with its target, and the sums over its pixels."""
    size = config.image_size
    regions = [Region(size, config.resize)]
    if config.overlap is not None:
        height, width = image_HWC.shape[:2]
        corners = tiles.grid(height, width, size, config.overlap)
        regions = [Region(size, "", top, left) for top, left in corners]
    channels = {"auto": image_HWC.shape[2], "gray": 1, "rgb": 3}[config.channels]
    record["channels"] = channels
    if config.encoding == "none":
        return
    # In float64, and per file: card.json's mean and deviation are the same for any number of workers.
    sums, record["parts"] = np.zeros((2, channels)), []
    for region in regions:
        image = to_channels(region.image(image_HWC), channels)
        values = image.reshape(-1, channels).astype(np.float64)
        sums += [values.sum(axis=0), (values * values).sum(axis=0)]
        stored = {"top": region.top, "left": region.left, "image": encode(image, config.encoding)}
        record["parts"].append(stored | surveyed.part(region))
    record["sums"], record["squares"] = sums.tolist()
