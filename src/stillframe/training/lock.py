"""One training at a time in one checkout."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stillframe.paths import RESUME


@contextmanager
def exclusive(root: Path = RESUME) -> Iterator[None]:
    """One training at a time in one checkout. The lock goes with its process, so it is never stale.

    Raises:
        ValueError: names the process that holds it.
    """
    root.mkdir(parents=True, exist_ok=True)
    with (root / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ValueError(f"{root / 'lock'}: another training runs in this folder: {file.read().strip()}") from None
        file.seek(0)
        file.truncate()
        file.write(f"pid {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield
