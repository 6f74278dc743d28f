"""How many processes a stage needs, and how they are started and ended. No torch here: the parent stays thin."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import FrameType

from stillframe.config import TrainerConfig

PR_SET_PDEATHSIG = 1
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
GRACE_S = 60.0


def visible_gpus() -> int:
    """GPUs that this process may use, without asking torch."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return len([device for device in chosen.split(",") if device.strip() not in ("", "-1")])
    return len([path for path in Path("/dev").glob("nvidia[0-9]*")])


def processes(trainer: TrainerConfig) -> int:
    """Processes on this node: `trainer.devices`, or with 0 all GPUs, or one CPU process."""
    if trainer.devices:
        return trainer.devices
    return max(1, visible_gpus()) if trainer.accelerator != "cpu" else 1


def keep_memory() -> None:
    """Let glibc keep the large buffers that each step asks for anew.

    Returned to the system at every step they are zeroed page by page by the kernel again: a fifth of the CPU time of a
    depthwise net's step. Elsewhere than on glibc nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for threshold, size in ((M_MMAP_THRESHOLD, 1 << 30), (M_TRIM_THRESHOLD, (1 << 31) - 1)):
            mallopt(threshold, size)


def already_launched() -> bool:
    """Whether torchrun or SLURM has started this process as one of several."""
    return "TORCHELASTIC_RUN_ID" in os.environ or int(os.environ.get("SLURM_NTASKS", "1")) > 1


def die_with_parent(parent: int) -> None:
    """Have the kernel end this process when `parent` (a pid) ends, by SIGKILL too. Linux only; elsewhere nothing."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it ended before it could be watched
        os._exit(128 + signal.SIGTERM)


def torchrun(module: str, workers: int, arguments: Sequence[str] = ()) -> int:
    """Run `python -m module` in `workers` processes and return an exit code; leaves none of them behind.

    SIGTERM, SIGINT and SIGUSR1 are passed on to the whole group; the code is then 128 + signal.
    """
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={workers}",
        "-m",
        module,
        *arguments,
    ]
    environment = {"OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) // workers)), **os.environ}
    bound = partial(die_with_parent, os.getpid())
    group = subprocess.Popen(command, start_new_session=True, preexec_fn=bound, env=environment)
    signals: list[int] = []

    def pass_on(signum: int, frame: FrameType | None) -> None:
        signals.append(signum)
        if group.poll() is None:
            os.killpg(group.pid, signum)

    before = {signum: signal.signal(signum, pass_on) for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    try:
        while True:
            try:
                code = group.wait(timeout=GRACE_S if signals else None)
                break
            except subprocess.TimeoutExpired:
                os.killpg(group.pid, signal.SIGKILL)
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        _end(group)
    return 128 + signals[0] if signals else code


def _end(group: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(group.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
