"""Pass 1: every file read and decoded once, in parallel, in chunks that land whole in the spool or not at all.

A finished chunk is one Arrow file named after what went into it (paths, sizes, times, parameters) and after its own
checksum, so that a run that was killed goes on where it stopped and ends with the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from stillframe.config import ClipConfig, DataConfig
from stillframe.ingest import idx
from stillframe.ingest.decode import DecodedImage, InvalidImage, decode, resize, to_channels
from stillframe.ingest.image_hash import fingerprints
from stillframe.ingest.masks import cuts as mask_cuts
from stillframe.ingest.masks.files import mask_stamps
from stillframe.ingest.read_image import content_of
from stillframe.ingest.sources import Listing, SourceRow, to_path
from stillframe.ingest.video import clip_rows
from stillframe.paths import replacing
from stillframe.store.encoding import encode
from stillframe.store.frame_sampling import check

CHUNK_FILES, CHUNK_IDX, CHUNK_FILMS = 64, 4000, 16  # samples a chunk
CHUNK_TILED = 4  # the tiles of an image are as large as the image, and more
RAW_UP_TO = 256  # px: with data.store = auto smaller images are kept raw, larger ones as JPEG
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("reason", pa.string()),  # "" when the file can be used
        ("sha256", pa.string()),  # of the file's bytes; "" when it could not be read
        ("bytes", pa.int64()),
        ("time_ns", pa.int64()),  # modification time when it was read
        ("pixels", pa.string()),  # hash of the decoded pixels
        ("phash", pa.uint64()),
        ("thumb", pa.binary()),  # uint8 64 x 64, gray
        ("mode", pa.string()),
        ("format", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("channels", pa.int32()),
        ("frames", pa.int32()),
        ("turned", pa.bool_()),
        ("notes", pa.string()),
        ("sums", pa.list_(pa.float64())),  # per channel over the prepared image, of values 0..255
        ("squares", pa.list_(pa.float64())),
        ("image", pa.large_binary()),  # resized; raw or JPEG
    ]
)


@dataclass(frozen=True)
class IngestConfig:
    """The parameters that decide what a chunk holds."""

    image_size: int
    resize: str
    channels: str
    encoding: str  # "raw", "jpeg" or "none" (an audit keeps no images)
    min_px: int
    max_megapixels: float
    masks: bool = False  # a mask is read with each image
    overlap: float | None = None  # of tiles; None: the image is resized
    clip: ClipConfig | None = None  # the files are videos

    @classmethod
    def of(cls, data: DataConfig, *, keep_images: bool = True) -> IngestConfig:
        """From section `data`."""
        frames = (check(data.clip).stored or data.clip.frames) if data.clip is not None else 1
        small = data.image_size**2 * frames <= RAW_UP_TO**2
        encoding = data.store if data.store != "auto" else ("raw" if small else "jpeg")
        limits = (data.min_px, data.max_megapixels)
        masks = (data.masks is not None, data.masks.overlap if data.masks is not None else None)
        kept = encoding if keep_images else "none"
        return cls(data.image_size, data.resize, data.channels, kept, *limits, *masks, data.clip)

    @property
    def schema(self) -> pa.Schema:
        """The columns of a chunk."""
        if self.clip is not None:
            return pa.schema([*SCHEMA, ("start", pa.float64()), ("end", pa.float64())])  # s, of the part that is used
        return pa.schema([*SCHEMA, *mask_cuts.COLUMNS]) if self.masks else SCHEMA


@dataclass(frozen=True)
class Chunk:
    """Some samples that one process takes on; picklable.

    Attributes:
        key: sha256 over everything that decides the outcome.
        folder: the source.
        spool: where the outcome is written.
        rows: the samples, sorted by id.
        rule: what is done with them.
        idx_files: unpacked idx files by the name that ids begin with; empty for files.
    """

    key: str
    folder: Path
    spool: Path
    rows: tuple[SourceRow, ...]
    rule: IngestConfig
    idx_files: dict[str, Path]

    @property
    def started(self) -> Path:
        """The mark of a chunk that a process has begun and not ended."""
        return self.spool / f"{self.key}.started"


@cache
def code() -> str:
    """What the outcome of a chunk depends on beside its files and the rule: this code, and the decoders' versions."""
    here = Path(__file__).parents[1]
    digest = hashlib.sha256()
    own = ("ingest/chunks", "ingest/read_image", "ingest/decode", "ingest/image_hash", "ingest/idx")
    store = ("store/encoding", "store/frame_sampling", "store/frame_times")
    masks = ("ingest/masks/files", "ingest/masks/cuts", "ingest/masks/tiles")
    videos = ("reader", "decode", "views", "clip_rows")
    for name in (*own, *store, *masks, *(f"ingest/video/{video}" for video in videos)):
        digest.update((here / f"{name}.py").read_bytes())
    for package in ("pillow", "simplejpeg", "opencv-python-headless", "numpy", "pycocotools", "av"):
        digest.update(version(package).encode())
    return digest.hexdigest()


def stamp(folder: Path, row: SourceRow) -> tuple[int, int]:
    """Size (bytes) and modification time (ns) of a sample's file; (-1, -1) when there is none to read."""
    if row.problem.startswith("path"):
        return -1, -1  # outside the source: not looked at
    try:
        seen = to_path(folder, row.file or row.id).stat()
    except (OSError, ValueError):
        return -1, -1
    return seen.st_size, seen.st_mtime_ns


def chunks(listing: Listing, rows: list[SourceRow], folder: Path, spool: Path, rule: IngestConfig) -> list[Chunk]:
    """Cut the rows (sorted by id) into chunks with their keys."""
    folder, spool = folder.absolute(), spool.absolute()
    spool.mkdir(parents=True, exist_ok=True)
    files: dict[str, Path] = {}
    stamps: dict[str, tuple[int, int]] = {}
    if listing.format == "idx":
        for path in idx.image_files(folder):
            name = path.name.removesuffix(".gz")
            files[name] = idx.unpacked(path, spool)
            stamps[name] = (path.stat().st_size, path.stat().st_mtime_ns)
    size = CHUNK_IDX if files else CHUNK_FILES if rule.clip is None else CHUNK_FILMS
    if rule.overlap is not None:
        size = CHUNK_TILED
    out = []
    for first in range(0, len(rows), size):
        part = tuple(rows[first : first + size])
        marks = [stamps[row.id.split("#")[0]] if files else stamp(folder, row) for row in part]
        masks = [(asdict(row.mask), mask_stamps(folder, row.mask)) if row.mask else None for row in part]
        named = [(row.id, row.problem, row.start, row.end) for row in part]
        ids = [(*name, *mark, mask) for name, mark, mask in zip(named, marks, masks, strict=True)]
        text = json.dumps([code(), asdict(rule), ids], sort_keys=True)
        out.append(Chunk(hashlib.sha256(text.encode()).hexdigest()[:32], folder, spool, part, rule, files))
    return out


def finished(chunk: Chunk) -> Path | None:
    """The chunk's file in the spool if it is whole; a damaged one is deleted."""
    for path in chunk.spool.glob(f"{chunk.key}.*.arrow"):
        if path.name.split(".")[1] == hashlib.sha256(path.read_bytes()).hexdigest()[:32]:
            return path
        path.unlink()
    return None


def process(chunk: Chunk, decoder: Callable[..., DecodedImage] = decode) -> None:
    """Read, decode and judge a chunk's samples by themselves, and write the outcome to the spool."""
    import cv2

    cv2.setNumThreads(1)  # the processes are the parallelism
    chunk.started.touch()
    keep([examine(row, chunk, decoder) for row in chunk.rows], chunk)


def keep(records: list[dict[str, Any]], chunk: Chunk) -> None:
    """Write a chunk's records to the spool under their checksum."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, chunk.rule.schema) as stream:
        stream.write_batch(pa.RecordBatch.from_pylist(records, schema=chunk.rule.schema))
    content = sink.getvalue()
    name = f"{chunk.key}.{hashlib.sha256(content).hexdigest()[:32]}.arrow"
    with replacing(chunk.spool / name) as temporary:
        temporary.write_bytes(content)
    chunk.started.unlink(missing_ok=True)


def examine(row: SourceRow, chunk: Chunk, decoder: Callable[..., DecodedImage] = decode) -> dict[str, Any]:
    """One record of the rule's schema for one sample."""
    record: dict[str, Any] = {
        **{
            "id": row.id,
            "reason": row.problem,
            "sha256": "",
            "bytes": -1,
            "time_ns": -1,
            "pixels": "",
            "phash": 0,
            "thumb": b"",
        },
        **{"mode": "", "format": "", "width": 0, "height": 0, "channels": 0, "frames": 0, "turned": False, "notes": ""},
        **{"sums": [], "squares": [], "image": b""},
        **(mask_cuts.EMPTY if chunk.rule.masks else {}),
    }
    if chunk.rule.clip is not None:
        record |= {"start": row.start, "end": row.start}
    try:
        if chunk.rule.clip is not None:
            _check_may_be_opened(row)
            path = to_path(chunk.folder, row.file or row.id)
            clip_rows.examine_clip(row, path, chunk.rule.clip, chunk.rule, record)
            return record
        picture, content = _read(row, chunk, record, decoder)
    except InvalidImage as refusal:
        record["reason"] = record["reason"] or str(refusal)
        return record
    except (OSError, ValueError) as error:
        record["reason"] = record["reason"] or f"unreadable: {getattr(error, 'strerror', None) or error}"
        return record
    record["pixels"], record["phash"], thumb = fingerprints(picture.image)
    record["thumb"] = thumb.tobytes()
    for name in ("mode", "format", "width", "height", "frames", "turned"):
        record[name] = getattr(picture, name)
    record["notes"] = "; ".join(picture.notes)
    if row.mask is not None:
        mask_cuts.examine_mask(row, chunk.folder, chunk.rule, record, picture, content)
    else:
        _prepare(picture, chunk.rule, record)
    return record


def _read(
    row: SourceRow, chunk: Chunk, record: dict[str, Any], decoder: Callable[..., DecodedImage]
) -> tuple[DecodedImage, bytes]:
    """The picture of a row and its file's bytes (none of an idx file)."""
    rule = chunk.rule
    if chunk.idx_files:
        name, index = row.id.split("#")
        image = idx.pixels(chunk.idx_files[name], int(index))
        record["sha256"] = hashlib.sha256(image.tobytes()).hexdigest()
        if min(image.shape[:2]) < rule.min_px:
            raise InvalidImage(
                f"too small: {image.shape[1]} x {image.shape[0]} px, less than data.min_px = {rule.min_px}"
            )
        return DecodedImage(image, "L", "IDX", image.shape[1], image.shape[0]), b""
    _check_may_be_opened(row)
    path = to_path(chunk.folder, row.id)
    content, seen = content_of(path, rule.max_megapixels)
    record["bytes"], record["time_ns"] = seen.st_size, seen.st_mtime_ns
    record["sha256"] = hashlib.sha256(content).hexdigest()
    return decoder(content, min_px=rule.min_px, max_megapixels=rule.max_megapixels), content


def _check_may_be_opened(row: SourceRow) -> None:
    if row.problem and not row.problem.startswith(("label", "mask", "weight", "split", "conflict")):
        raise InvalidImage(row.problem)


def _prepare(picture: DecodedImage, rule: IngestConfig, record: dict[str, Any]) -> None:
    """Fill in the prepared image and its sums."""
    image = resize(picture.image, rule.image_size, rule.resize)
    if rule.channels != "auto":
        image = to_channels(image, 1 if rule.channels == "gray" else 3)
    record["channels"] = image.shape[2]
    if rule.encoding == "none":
        return
    values = image.reshape(-1, image.shape[2]).astype(np.float64)
    record["sums"], record["squares"] = values.sum(axis=0).tolist(), (values * values).sum(axis=0).tolist()
    record["image"] = encode(image, rule.encoding)


def records(chunk: Chunk, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """The records of a finished chunk, in order of id."""
    path = finished_name(chunk)
    with pa.memory_map(str(path)) as source:
        table = pa.ipc.open_stream(source).read_all()
        yield from (table.select(columns) if columns else table).to_pylist()


def finished_name(chunk: Chunk) -> Path:
    """The chunk's file, which must be there."""
    found = next(chunk.spool.glob(f"{chunk.key}.*.arrow"), None)
    assert found is not None, f"chunk {chunk.key} is missing from the spool"
    return found
