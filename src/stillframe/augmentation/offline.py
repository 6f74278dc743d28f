"""Offline copies of train images: planned, drawn by (seed, copy, row), made in parallel, written in order.

Pieces of an unfinished run lie in a spool, each whole and named after its checksum, so that a run that was killed
goes on where it stopped and ends with the same bytes, whatever the number of processes.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stillframe.augmentation import policy, random_draws
from stillframe.config import AugmentConfig
from stillframe.hashing import file_sha256, short_sha256
from stillframe.paths import replacing
from stillframe.progress import bar
from stillframe.store.encoding import encode, encode_clip, encode_map
from stillframe.store.split import FILE, Split, SplitWriter, schema

ORIGIN = "augment.offline"
PIECE = 256  # copies a piece, at most
PIECE_BYTES = 1 << 25
WORTH_S = 5.0  # less than this is left to do: not worth the start of processes
VERSION = 1  # of what a piece holds: a change here makes old pieces useless


@dataclass(frozen=True)
class CopyPlan:
    """Which copies are made: copy `number_M[m]` of train row `row_M[m]`, sorted by row, then number."""

    row_M: NDArray[np.int64]
    number_M: NDArray[np.int64]  # 0-based, per row

    def __len__(self) -> int:
        return len(self.row_M)


@dataclass(frozen=True)
class CopyChunk:
    """Some copies that one process makes; picklable."""

    name: str
    spool: Path
    train: Path
    digest: str  # of the train images
    seed: int
    policy: list[dict[str, dict[str, Any]]]
    plan: CopyPlan


def plan_copies(class_N: NDArray[np.int64], *, copies: int, balance: str, seed: int) -> CopyPlan:
    """Decide how many copies each train row gets.

    Args:
        class_N: class index of each train row; 0 everywhere of targets without classes.
        copies: of every row.
        balance: "oversample" adds copies of each smaller class until it has as many images as the largest, spread
            evenly: the numbers of copies of two rows of a class differ by one at most, and the seed decides which
            rows get the one more.
        seed: of the run.
    """
    count_N = np.full(len(class_N), copies, dtype=np.int64)
    if balance == "oversample" and len(class_N):
        size_K = np.bincount(class_N)
        rank = random_draws.uniform(random_draws.keys(seed, random_draws.OFFLINE - 1, np.arange(len(class_N))), 0, 1)[
            :, 0
        ]
        for index in np.flatnonzero(size_K):
            rows = np.flatnonzero(class_N == index)
            each, rest = divmod(int(size_K.max() - size_K[index]) * (1 + copies), len(rows))
            # evenly; by a seeded random order some rows get the one more
            count_N[rows] += each
            count_N[rows[np.argsort(rank[rows])[:rest]]] += 1
    row_M = np.repeat(np.arange(len(class_N)), count_N)
    first_M = np.repeat(np.cumsum(count_N) - count_N, count_N)
    return CopyPlan(row_M, np.arange(len(row_M)) - first_M)


def class_indices(split: Split) -> NDArray[np.int64]:
    """The class index of each row, from the first "int" column of the targets; 0 everywhere where there is none."""
    name = next((column.name for column in split.targets.values() if column.kind == "int"), None)
    rows = np.arange(len(split))
    return np.zeros_like(rows) if name is None else np.asarray(split.target(name, rows), dtype=np.int64)


def row_classes(split: Split, classes: list[str]) -> list[str]:
    """The classes if each row is of one of them; [] where a row has none or several, such as a vector of booleans."""
    return classes if any(column.kind == "int" for column in split.targets.values()) else []


def make_copies(train: Path, augment: AugmentConfig, *, seed: int, out: Path, work: Path, workers: int = 0) -> CopyPlan:
    """Write the copies of a train split as a split of their own (of no rows when there is nothing to do).

    Args:
        train: folder of the train split.
        augment: section `augment`, checked.
        seed: of the run.
        out: folder of the new split.
        work: keeps finished pieces until all are made.
        workers: processes; 0: one a core once more than a few seconds of work are left.

    Returns:
        The plan: row m of the new split is its copy m.

    Raises:
        ValueError: the train split is damaged.
    """
    split = Split(train)
    plan = plan_copies(class_indices(split), copies=augment.copies, balance=augment.balance, seed=seed)
    meta: dict[str, Any] = {"height": split.height, "width": split.width, "channels": split.channels}
    meta["frames"] = split.frames
    spool = work / "augment"
    meta |= {"encoding": split.encoding, "targets": list(split.targets.values()), "tiles": split.tiled}
    with SplitWriter(out, **meta) as writer:
        pieces = _pieces(train, split, plan, augment, seed, spool)
        _make_all(pieces, workers)
        for piece in pieces:
            writer.write(_read(piece))
    shutil.rmtree(spool, ignore_errors=True)
    return plan


def _pieces(
    train: Path, split: Split, plan: CopyPlan, augment: AugmentConfig, seed: int, spool: Path
) -> list[CopyChunk]:
    """The plan cut up; each piece is named after all that decides what it holds."""
    if not len(plan):
        return []
    digest = file_sha256(train / FILE)
    spool.mkdir(parents=True, exist_ok=True)
    resolved = policy.resolved(augment.offline, ORIGIN)
    whole = json.dumps([VERSION, digest, seed, resolved, policy.version()], sort_keys=True)
    size = max(1, min(PIECE, PIECE_BYTES // (split.height * split.width * split.channels * split.frames)))
    out = []
    for first in range(0, len(plan), size):
        part = CopyPlan(plan.row_M[first : first + size], plan.number_M[first : first + size])
        key = short_sha256(whole.encode() + part.row_M.tobytes() + part.number_M.tobytes())
        entries = [dict(entry) for entry in augment.offline]
        out.append(CopyChunk(key, spool.absolute(), train.absolute(), digest, seed, entries, part))
    return out


def _make_all(pieces: list[CopyChunk], workers: int) -> None:
    """Make what is not in the spool yet; in this process first, then in several if that is worth it."""
    todo = [piece for piece in pieces if _finished(piece) is None]
    with bar("offline copies", sum(len(piece.plan) for piece in pieces)) as advance:
        advance(sum(len(piece.plan) for piece in pieces) - sum(len(piece.plan) for piece in todo))
        # Starting processes costs seconds: measure a few pieces here, and start them if more than that is left.
        begun, done = time.monotonic(), 0
        while todo and workers <= 1:
            advance(_make(todo.pop(0)))
            done += 1
            if workers == 0 and (time.monotonic() - begun) / done * len(todo) > WORTH_S:
                break
        for count in _in_processes(todo, workers):
            advance(count)


def _in_processes(todo: list[CopyChunk], workers: int) -> Iterator[int]:
    if not todo:
        return
    from joblib import Parallel, cpu_count, delayed

    jobs = (delayed(_make)(piece) for piece in todo)
    yield from Parallel(n_jobs=workers or cpu_count(), return_as="generator_unordered", batch_size=1)(jobs)


@lru_cache(maxsize=1)
def _split(train: Path, digest: str) -> Split:
    """The train split, opened once a process."""
    return Split(train)


def _make(piece: CopyChunk) -> int:
    """Make a piece and put it into the spool; returns how many copies it holds."""
    split = _split(piece.train, piece.digest)
    rows, numbers = piece.plan.row_M, piece.plan.number_M
    pixels = _pixels(split, piece)
    table = split.table.iloc[rows].to_dict("records")
    records = [
        {**record, "id": f"{record['id']}#aug{number}", "source_id": record["id"], **columns_of}
        for record, number, columns_of in zip(table, numbers.tolist(), pixels, strict=True)
    ]
    sink = pa.BufferOutputStream()
    columns = schema(split.targets.values(), tiles=split.tiled)
    with pa.ipc.new_stream(sink, columns) as stream:
        stream.write_batch(pa.RecordBatch.from_pylist(records, schema=columns))
    content = sink.getvalue()
    with replacing(piece.spool / f"{piece.name}.{short_sha256(content)}.arrow") as temporary:
        temporary.write_bytes(content)
    return len(records)


def _pixels(split: Split, piece: CopyChunk) -> Iterator[dict[str, bytes]]:
    """The copies (image, and maps if there are some) as the split stores them; without a policy the stored bytes."""
    rows, numbers = piece.plan.row_M, piece.plan.number_M
    maps = [column.name for column in split.targets.values() if column.is_map]
    if not piece.policy:
        yield from ({name: split.arrow[name][int(row)].as_py() for name in ("image", *maps)} for row in rows)
        return
    # The draws of a copy depend on seed, row and number of the copy alone, not on the piece that it lies in.
    key_M = np.empty(len(rows), dtype=np.uint64)
    for number in np.unique(numbers):
        of_number = numbers == number
        key_M[of_number] = random_draws.keys(piece.seed, random_draws.OFFLINE + int(number), rows[of_number])
    item_policy, images = policy.ItemPolicy(piece.policy, ORIGIN), split.images(rows)
    if split.frames > 1:
        yield from ({"image": encode_clip(clip, split.encoding)} for clip in item_policy(images, key_M))
        return
    images, moved = item_policy.with_maps(images, {name: split.target(name, rows) for name in maps}, key_M)
    for i, image in enumerate(images):
        encoded = {name: encode_map(moved[name][i], split.encoding) for name in maps}
        yield {"image": encode(image, split.encoding), **encoded}


def _finished(piece: CopyChunk) -> Path | None:
    """The piece's file in the spool if it is whole; a damaged one is deleted."""
    for path in piece.spool.glob(f"{piece.name}.*.arrow"):
        if path.name.split(".")[1] == file_sha256(path)[:32]:
            return path
        path.unlink()
    return None


def _read(piece: CopyChunk) -> list[dict[str, Any]]:
    path = next(piece.spool.glob(f"{piece.name}.*.arrow"))
    with pa.memory_map(str(path)) as source:
        rows: list[dict[str, Any]] = pa.ipc.open_stream(source).read_all().to_pylist()
    return rows
