"""Stopping a sweep: Ctrl-C, SIGTERM, and a controller or worker that is killed."""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from types import FrameType

import psutil

from stillframe.sweeps.process_guard import GRACE_S
from stillframe.sweeps.store import Sweep, Trial

FOLDER = "STILLFRAME_SWEEP"  # environment variable: the sweep's folder
CONTROLLER = "STILLFRAME_SWEEP_PID"  # environment variable: process id of the command
WAKE = signal.SIGUSR1  # ends a wait for a process, which a mere flag would not; SIGINT may be ignored (`nohup`, `&`)
_working = threading.Event()  # this process is a worker of a launcher


def watch_parent() -> None:
    """In a launcher's worker: end as if by Ctrl-C when the process that started it is killed. No trial outlives it."""
    # The controller itself (Hydra's basic launcher runs the trials in it) has nobody to watch.
    if _working.is_set() or os.environ.get(CONTROLLER) == str(os.getpid()):
        return
    parent, main = os.getppid(), threading.main_thread()
    if threading.current_thread() is main:
        signal.signal(WAKE, signal.default_int_handler)
    _working.set()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        signal.pthread_kill(main.ident or 0, WAKE)

    threading.Thread(target=watch, daemon=True).start()


def leave() -> None:
    """A worker ends with the trial that was stopped: joblib's would catch what is raised, and take the next one."""
    if _working.is_set():
        os._exit(128 + signal.SIGINT)


class StopState:
    """Which signal stopped the command; 0: none."""

    signum = 0


@contextlib.contextmanager
def stoppable(sweep: Sweep) -> Iterator[StopState]:
    """SIGINT and SIGTERM let the running trials save their state before the launcher tears its workers down.

    A second signal does not wait.

    Raises:
        KeyboardInterrupt: in the main thread, once the trials have ended.
    """
    since, stop = time.time(), StopState()
    signals = [each for each in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(each) is not signal.SIG_IGN]

    def note(signum: int, frame: FrameType | None) -> None:
        stop.signum = signum
        for each in signals:
            signal.signal(each, signal.default_int_handler)
        end_trials(sweep, since)
        raise KeyboardInterrupt

    before = {each: signal.signal(each, note) for each in signals}
    try:
        yield stop
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        settle(sweep, since)


def end_trials(sweep: Sweep, since: float, limit_s: float = GRACE_S + 10) -> None:
    """Stop the trials that other processes of this machine began after `since`, and wait until they have ended."""
    # Not the launcher's pool: a worker that is torn down loses the state that its training would save within GRACE_S.
    others = [trial for trial in _running(sweep, since) if trial.pid != os.getpid() and alive(trial)]
    for trial in others:
        with contextlib.suppress(ProcessLookupError):
            os.kill(trial.pid, WAKE)
    deadline = time.monotonic() + limit_s
    while any(map(alive, others)) and time.monotonic() < deadline:
        time.sleep(0.1)


def settle(sweep: Sweep, since: float) -> None:
    """Trials that still say "running", although nobody runs them any more, were stopped."""
    for trial in _running(sweep, since):
        if trial.pid == os.getpid() or not alive(trial):
            sweep.save(replace(trial, state="stopped", seconds=round(time.time() - trial.started, 2)))


def _running(sweep: Sweep, since: float) -> list[Trial]:
    return [trial for trial in sweep.trials() if trial.state == "running" and trial.started >= since]


def alive(trial: Trial) -> bool:
    """Whether the process of a trial is there, on this machine; one that waits to be reaped has ended."""
    if trial.host != platform.node():
        return False
    try:
        return bool(psutil.Process(trial.pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
