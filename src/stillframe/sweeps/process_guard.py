"""Runs a command and leaves no process of it behind.

`python -m stillframe.sweeps.process_guard SECONDS PARENT -- COMMAND...`

SIGTERM or SIGKILL to `dvc` leaves its stage running. So the command gets a session of its own, this process becomes
the reaper of all that descend from it, and ends them when it is asked to stop, when time is up, or when the process
that wanted it is gone. It imports nothing but the standard library: its start costs what an empty Python costs.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

PR_SET_CHILD_SUBREAPER = 36
GRACE_S = 45.0  # a training saves its state at its next step
TIME_IS_UP = 124


def descendants(of: int) -> list[int]:
    """Process ids below a process, from /proc."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            after = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if after[0] != "Z":
            children.setdefault(int(after[1]), []).append(int(stat.parent.name))
    found: list[int] = []
    todo = [of]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def end_all(grace_s: float) -> None:
    """SIGTERM to everything below this process, SIGKILL to what is left after `grace_s`."""
    deadline = time.monotonic() + grace_s
    for pid in descendants(os.getpid()):
        _send(pid, signal.SIGTERM)
    while (left := descendants(os.getpid())) and time.monotonic() < deadline:
        _reap()
        time.sleep(0.05)
    for pid in left:
        _send(pid, signal.SIGKILL)
    while descendants(os.getpid()):
        _reap()
        time.sleep(0.02)


def _send(pid: int, signum: int) -> None:
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        return


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def main(limit_s: float, parent: int, command: list[str]) -> int:
    """Run the command; its exit code, 128 + signal when asked to stop, 124 when time was up."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    asked: list[int] = []

    def note(signum: int, frame: FrameType | None) -> None:
        asked.append(signum)

    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, note)
    deadline = time.monotonic() + limit_s if limit_s else float("inf")
    process = subprocess.Popen(command, start_new_session=True)
    code: int | None = None
    while code is None and not asked and os.getppid() == parent and time.monotonic() < deadline:
        try:
            code = process.wait(timeout=0.1)
        except subprocess.TimeoutExpired:
            continue
    end_all(GRACE_S)
    if code is not None:
        return code if code >= 0 else 128 - code
    return 128 + asked[0] if asked else (TIME_IS_UP if os.getppid() == parent else 128 + signal.SIGTERM)


if __name__ == "__main__":
    at = sys.argv.index("--")
    sys.exit(main(float(sys.argv[1]), int(sys.argv[2]), sys.argv[at + 1 :]))
