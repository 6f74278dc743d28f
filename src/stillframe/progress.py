"""A progress bar on a terminal, a plain line from time to time elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EVERY_S = 5.0  # between two plain lines


@contextmanager
def bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yield a function that is told how many more are done; everything goes to stderr."""
    if not sys.stderr.isatty():
        yield _plain(what, total)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(what, total=total)
        yield lambda count: progress.advance(task, count)


def _plain(what: str, total: int) -> Callable[[int], None]:
    begun = last = time.monotonic()
    done = 0

    def advance(count: int) -> None:
        nonlocal done, last
        done += count
        now = time.monotonic()
        if now - last >= EVERY_S or (done >= total and count):
            print(f"{what}: {done:,} of {total:,} ({now - begun:.0f} s)", file=sys.stderr, flush=True)
            last = now

    return advance
