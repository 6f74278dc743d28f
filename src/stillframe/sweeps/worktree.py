"""Worktrees: clones that trials take turns in. They share git's objects and DVC's cache with the user's checkout."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from stillframe.sweeps.git_snapshot import git, someone

FOLDER = Path(".work/sweep")
POLL_S = 0.2


@dataclass(frozen=True)
class Worktree:
    """One clone, used by one trial at a time."""

    number: int
    folder: Path
    root: Path

    def start_from(self, commit: str) -> None:
        """Make the checkout what `commit` says; what DVC made for the last trial stays, for DVC to compare."""
        (self.folder / ".dvc" / "tmp" / "rwlock").unlink(missing_ok=True)  # half-written where a `dvc` was killed
        git(self.folder, "checkout", "--quiet", "--force", "--detach", commit)

    def commit(self, parent: str, message: str) -> str:
        """Commit what lies here on top of `parent`; the commit's id."""
        git(self.folder, "add", "-A")
        tree = git(self.folder, "write-tree")
        return git(self.folder, "commit-tree", tree, "-p", parent, "-m", message, env=someone(self.folder))

    def publish(self, commit: str, baseline: str, name: str) -> None:
        """Push a trial's commit to where DVC looks for experiments on `baseline`."""
        ref = f"refs/exps/{baseline[:2]}/{baseline[2:]}/{name}"
        git(self.folder, "push", "--quiet", "--force", "origin", f"{commit}:{ref}")


def cache_of(root: Path) -> Path:
    """DVC's cache of a checkout: cache.dir where it is set, else .dvc/cache."""
    for name in ("config.local", "config"):
        parser = configparser.ConfigParser()
        parser.read(root / ".dvc" / name)
        if parser.has_option("cache", "dir"):
            return (root / ".dvc" / parser.get("cache", "dir")).resolve()
    return root / ".dvc" / "cache"


def _clone(folder: Path, root: Path) -> None:
    """Clone the checkout, with its DVC cache; what a crash left incomplete (no .ready) is cloned anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    git(root, "clone", "--quiet", "--shared", "--no-checkout", str(root), str(folder))
    git(folder, "config", "gc.auto", "0")  # it would start in the middle of a trial
    local = folder / ".dvc" / "config.local"
    local.parent.mkdir(exist_ok=True)
    cache = cache_of(root)
    cache.mkdir(parents=True, exist_ok=True)
    # Links, because copies of the data for each worktree would fill the disk.
    local.write_text(f"[cache]\n    dir = {cache}\n    type = reflink,hardlink,symlink\n", encoding="utf-8")
    (folder / ".ready").touch()
    (folder / ".git" / "info" / "exclude").write_text("/.ready\n/.dvc/config.local\n", encoding="utf-8")


@contextmanager
def take(root: Path, slots: int) -> Iterator[Worktree]:
    """A worktree that no other process uses; waits until one is free. Its lock is gone when the process dies."""
    folder = root / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        for number in range(slots):
            lock = FileLock(folder / f"slot-{number}.lock")  # the kernel's: it goes with its process, never stale
            try:
                lock.acquire(blocking=False)
            except Timeout:
                continue
            try:
                worktree = Worktree(number, folder / f"slot-{number}", root)
                if not (worktree.folder / ".ready").exists():
                    _clone(worktree.folder, root)
                yield worktree
                return
            finally:
                lock.release()
        time.sleep(POLL_S)


@contextmanager
def alone(folder: Path, key: str) -> Iterator[bool]:
    """True for the first that comes with `key` while it works; the others wait, and then get False.

    Two trials that need the same upstream result at the same moment would both compute it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / f"{key}.done"
    if done.exists():
        yield False
        return
    with FileLock(folder / f"{key}.lock"):
        if done.exists():
            yield False
            return
        yield True
        done.touch()


def environment(worktree: Worktree, gpus: str | None, threads: int, extra: dict[str, str]) -> dict[str, str]:
    """For the processes of a trial: the worktree's own code, its devices, its share of the cores."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "GIT_"))}
    env["PYTHONPATH"] = os.pathsep.join([str(worktree.folder / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    env["STILLFRAME_THREADS"] = str(threads)
    if gpus is not None:
        env["CUDA_VISIBLE_DEVICES"] = gpus
    return env | extra


def run_guarded(worktree: Worktree, command: list[str], env: dict[str, str], log: Path, timeout_s: float) -> int:
    """Run a command in the worktree, output to `log`; its exit code. Nothing of it outlives this process."""
    guard = [sys.executable, "-m", "stillframe.sweeps.process_guard", str(timeout_s), str(os.getpid()), "--"]
    with log.open("ab") as file:
        process = subprocess.Popen(
            [*guard, *command], cwd=worktree.folder, env=env, stdout=file, stderr=subprocess.STDOUT
        )
        try:
            return process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise
