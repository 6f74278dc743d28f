"""Running chunks in processes, here (loky) or on a cluster (dask, ray); a crash costs one file, not the run."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from dataclasses import replace
from multiprocessing import get_context
from typing import Any

from stillframe.ingest import chunks, spool
from stillframe.ingest.decode import DecodedImage, decode
from stillframe.ingest.spool import Chunk
from stillframe.progress import bar

Decoder = Callable[..., DecodedImage]


def survey_all(parts: list[Chunk], *, workers: int, backend: str, decoder: Decoder = decode) -> int:
    """Bring every chunk into the spool; returns how many were already there from a run that did not end.

    Args:
        parts: the chunks.
        workers: processes; 0 for one a core.
        backend: "loky", "dask" or "ray"; the last two need a spool on a file system that all machines see.
        decoder: what turns bytes into a `DecodedImage`; picklable.

    Raises:
        ValueError: the backend is not installed.
    """
    todo = [part for part in parts if spool.finished(part) is None]
    for part in todo:
        part.started.unlink(missing_ok=True)
    reused, total = len(parts) - len(todo), sum(len(part.rows) for part in parts)
    with bar("reading images", total) as advance:
        advance(total - sum(len(part.rows) for part in todo))
        # Until all are there: run the pool; if a process of it died, find the file that kills it among the chunks that
        # were begun and not ended; run the rest again. Where a round brought nothing, one chunk is bisected anyway.
        while todo:
            broken = not _run(todo, workers or cores(), backend, decoder, advance)
            left = [part for part in todo if spool.finished(part) is None]
            suspects = [part for part in left if part.started.exists()] if broken else []
            for part in suspects or (left[:1] if len(left) == len(todo) else []):
                spool.write_chunk(_bisect(part, decoder), part)
                advance(len(part.rows))
            todo = [part for part in left if spool.finished(part) is None]
    return reused


def cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _run(todo: list[Chunk], workers: int, backend: str, decoder: Decoder, advance: Callable[[int], None]) -> bool:
    """Run chunks in a pool; False when a process of the pool died."""
    from joblib import Parallel, delayed
    from joblib.externals.loky.process_executor import BrokenProcessPool as LokyBroken

    if workers == 1 and backend == "loky":
        return _run_single(todo, decoder, advance)
    with _backend(backend):
        try:
            jobs = (delayed(_count)(part, decoder) for part in todo)
            for count in Parallel(n_jobs=workers, return_as="generator_unordered", batch_size=1)(jobs):
                advance(count)
        except (LokyBroken, BrokenProcessPool):
            return False
    return True


def _run_single(todo: list[Chunk], decoder: Decoder, advance: Callable[[int], None]) -> bool:
    """One worker process: joblib would run in this process, which a crash of a decoder must not reach."""
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            for part in todo:
                advance(pool.submit(_count, part, decoder).result())
    except BrokenProcessPool:
        return False
    return True


def _count(part: Chunk, decoder: Decoder) -> int:
    chunks.process(part, decoder)
    return len(part.rows)


def _bisect(part: Chunk, decoder: Decoder) -> list[dict[str, Any]]:
    """The records of a chunk that killed its process: halves, each in a process of its own, down to the one file."""
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            return pool.submit(_examine_all, part, decoder).result()
    except BrokenProcessPool:
        if len(part.rows) == 1:
            row = replace(part.rows[0], problem="crash: the decoder died on this file")
            return [chunks.examine(row, part, decoder)]
        middle = len(part.rows) // 2
        return _bisect(replace(part, rows=part.rows[:middle]), decoder) + _bisect(
            replace(part, rows=part.rows[middle:]), decoder
        )


def _examine_all(part: Chunk, decoder: Decoder) -> list[dict[str, Any]]:
    return [chunks.examine(row, part, decoder) for row in part.rows]


def _backend(name: str) -> AbstractContextManager[Any]:
    """The joblib context of a backend; a running dask or ray cluster is used, else one on this machine."""
    from joblib import parallel_config

    try:
        if name == "ray":
            from ray.util.joblib import register_ray  # type: ignore[import-not-found,unused-ignore]

            register_ray()
        elif name == "dask":
            from distributed import Client, get_client  # type: ignore[import-not-found,unused-ignore]

            try:
                get_client()
            except ValueError:
                Client(processes=True, dashboard_address=None, address=os.environ.get("DASK_SCHEDULER_ADDRESS"))
    except ImportError as error:
        raise ValueError(f"data.backend = {name!r} needs {error.name}: pip install 'stillframe[cluster]'") from None
    context: AbstractContextManager[Any] = parallel_config(backend=name)
    return context
