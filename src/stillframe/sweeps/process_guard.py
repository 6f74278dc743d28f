"""Runs a command and leaves no process of it behind.

`python -m stillframe.sweeps.process_guard SECONDS PARENT -- COMMAND...`

SIGTERM or SIGKILL to `dvc` leaves its stage running. So the command gets a session of its own, this process becomes
the reaper of all that descend from it, and ends them when it is asked to stop, when time is up, or when the process
that started it is gone. It imports only psutil, so that it starts in a tenth of a second.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from types import FrameType

import psutil

PR_SET_CHILD_SUBREAPER = 36
GRACE_S = 45.0  # a training saves its state at its next step
TIME_IS_UP = 124


def descendants() -> list[psutil.Process]:
    """The processes below this one that have not ended; those that have are taken out of the process table."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    running = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                running.append(process)
    return running


def end_all(grace_s: float) -> None:
    """SIGTERM to everything below this process, SIGKILL to what is left after `grace_s`."""
    deadline = time.monotonic() + grace_s
    for process in descendants():
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    while descendants() and time.monotonic() < deadline:
        time.sleep(0.05)
    # Killing a process hands its children to this one (the subreaper): repeat until none is left.
    while left := descendants():
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        time.sleep(0.02)


def main(limit_s: float, parent: int, command: list[str]) -> int:
    """Run the command; its exit code, 128 + signal when asked to stop, 124 when time was up."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    received: list[int] = []

    def note(signum: int, frame: FrameType | None) -> None:
        received.append(signum)

    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, note)

    # Until it ends, or a reason comes to end it.
    deadline = time.monotonic() + limit_s if limit_s else float("inf")
    process = subprocess.Popen(command, start_new_session=True)
    code: int | None = None
    while code is None and not received and os.getppid() == parent and time.monotonic() < deadline:
        try:
            code = process.wait(timeout=0.1)
        except subprocess.TimeoutExpired:
            continue
    # Also after a normal end: what the command left running in the background goes, too.
    end_all(GRACE_S)
    if code is not None:
        return code if code >= 0 else 128 - code
    return 128 + received[0] if received else (TIME_IS_UP if os.getppid() == parent else 128 + signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), int(sys.argv[2]), sys.argv[4:]))  # sys.argv[3] is "--"
