"""One training at a time in one checkout."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from stillframe.paths import RESUME


@contextmanager
def exclusive(root: Path = RESUME) -> Iterator[None]:
    """One training at a time in one checkout. The lock goes with its process, so it is never stale.

    Raises:
        ValueError: names the process that holds it.
    """
    root.mkdir(parents=True, exist_ok=True)
    path = root / "lock"
    try:
        acquired = FileLock(path).acquire(blocking=False)
    except Timeout:
        holder = path.read_text(encoding="utf-8").strip()
        raise ValueError(f"{path}: another training runs in this folder: {holder}") from None
    with acquired:
        path.write_text(f"pid {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
