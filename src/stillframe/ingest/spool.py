"""The spool: what was read of the source, one Arrow file a chunk, named after its key and its own checksum."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from stillframe.hashing import short_sha256
from stillframe.ingest.ingest_config import IngestConfig
from stillframe.ingest.listing import SourceRow
from stillframe.ingest.target import load_target
from stillframe.paths import replacing

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
        ("sums", pa.list_(pa.float64())),  # per channel over the prepared image or its tiles, of values 0..255
        ("squares", pa.list_(pa.float64())),
        ("target_stamps", pa.list_(pa.int64())),  # size and time of each file of the target, in turn
    ]
)
PART = (
    pa.field("top", pa.int32()),  # px of the upright image; 0 when it was resized as a whole
    pa.field("left", pa.int32()),
    pa.field("image", pa.large_binary()),  # as the store keeps it
)
VIDEO = (
    pa.field("image", pa.large_binary()),  # all frames that any row needs, packed
    pa.field("start", pa.float64()),  # s, of the part of the file that is used
    pa.field("end", pa.float64()),
)


def schema(config: IngestConfig) -> pa.Schema:
    """The columns of a chunk: what was found of each file, its target, and the prepared images."""
    if config.clip is not None:
        return pa.schema([*SCHEMA, *VIDEO])
    target = load_target(config.target)
    part = pa.struct([*PART, *target.part_columns])
    return pa.schema([*SCHEMA, *target.columns, pa.field("parts", pa.list_(part))])


@dataclass(frozen=True)
class Chunk:
    """Some samples that one process takes on; picklable.

    Attributes:
        key: sha256 over everything that decides the outcome.
        folder: the source.
        spool: where the outcome is written.
        rows: the samples, sorted by id.
        config: what is done with them.
        idx_files: unpacked idx files by the name that ids begin with; empty for files.
    """

    key: str
    folder: Path
    spool: Path
    rows: tuple[SourceRow, ...]
    config: IngestConfig
    idx_files: dict[str, Path]

    @property
    def started(self) -> Path:
        """The mark of a chunk that a process has begun and not ended."""
        return self.spool / f"{self.key}.started"


def write_chunk(records: list[dict[str, Any]], chunk: Chunk) -> None:
    """Write a chunk's records to the spool under their checksum."""
    columns, sink = schema(chunk.config), pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, columns) as stream:
        stream.write_batch(pa.RecordBatch.from_pylist(records, schema=columns))
    content = sink.getvalue()
    with replacing(chunk.spool / f"{chunk.key}.{short_sha256(content)}.arrow") as temporary:
        temporary.write_bytes(content)
    chunk.started.unlink(missing_ok=True)


def finished(chunk: Chunk) -> Path | None:
    """The chunk's file in the spool if it is whole; a damaged one is deleted."""
    for path in chunk.spool.glob(f"{chunk.key}.*.arrow"):
        if path.name.split(".")[1] == short_sha256(path.read_bytes()):
            return path
        path.unlink()
    return None


def read_records(chunk: Chunk, columns: list[str]) -> Iterator[dict[str, Any]]:
    """Some columns of the records of a finished chunk, in order of id."""
    with pa.memory_map(str(finished_path(chunk))) as source:
        yield from pa.ipc.open_stream(source).read_all().select(columns).to_pylist()


def finished_path(chunk: Chunk) -> Path:
    """The chunk's file, which must be there."""
    path = next(chunk.spool.glob(f"{chunk.key}.*.arrow"), None)
    assert path is not None, f"chunk {chunk.key} is missing from the spool"
    return path


def load(chunks: list[Chunk], indices: Iterable[int], column: str) -> dict[int, Any]:
    """One column of the spool at some indices (in the order of all rows)."""
    index_N = np.array(sorted(set(indices)), dtype=np.int64)
    loaded: dict[int, Any] = {}
    first = 0
    for chunk in chunks:
        inside = index_N[(index_N >= first) & (index_N < first + len(chunk.rows))]
        if len(inside):
            with pa.memory_map(str(finished_path(chunk))) as source:
                values = pa.ipc.open_stream(source).read_all()[column]
                loaded |= {int(index): values[int(index) - first].as_py() for index in inside}
        first += len(chunk.rows)
    return loaded
