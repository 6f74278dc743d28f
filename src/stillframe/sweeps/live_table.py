"""The sweep while it runs: a table in a terminal, a line a trial elsewhere."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from stillframe.sweeps.store import Sweep, Trial

EVERY_S = 0.5
LONGEST_TABLE = 12  # trials in the live table


def line(trial: Trial, sweep: Sweep) -> str:
    """A trial in one line."""
    scores = "  ".join(f"{name} {value:.4f}" for name, value in zip(sweep.objectives, trial.values, strict=False))
    what = scores or (trial.error.splitlines()[-1] if trial.error else "")
    return f"trial {trial.number:3d}  {trial.state:9s} {' '.join(trial.overrides)}  {what}".rstrip()


def summary(trials: list[Trial], sweep: Sweep, total: int | None, seconds: float) -> str:
    """Counts, the best so far, the time left."""
    counts = Counter(trial.state for trial in trials)
    done = sum(count for state, count in counts.items() if state not in ("running", "stopped"))
    parts = [f"{done} of {total if total is not None else '?'} done", f"{counts['running']} running"]
    parts += [f"{counts[state]} {state}" for state in ("pruned", "failed", "stopped") if counts[state]]
    best = sweep.best()
    if best is not None:
        parts.append(f"best {sweep.objectives[0]} {best.values[0]:.4f} (trial {best.number})")
    if total is not None and 0 < done < total:
        parts.append(f"about {_clock(seconds / done * (total - done))} left")
    return "  ".join(parts)


def _clock(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes}:{rest:02d}"


def table(trials: list[Trial], sweep: Sweep) -> Table:
    """The best finished trials, and those that run."""
    sign = -1 if sweep.directions[0] == "maximize" else 1

    def rank(trial: Trial) -> tuple[int, float]:
        first = {"running": 0, "finished": 1}.get(trial.state, 2)
        return first, sign * trial.values[0] if trial.values else -trial.started

    out = Table("trial", "state", "setting", *sweep.objectives, "s", box=None, pad_edge=False)
    for trial in sorted(trials, key=rank)[:LONGEST_TABLE]:
        seconds = trial.seconds or time.time() - trial.started
        cells = [f"{value:.4f}" for value in trial.values] or [""] * len(sweep.objectives)
        out.add_row(str(trial.number), trial.state, " ".join(trial.overrides), *cells, f"{seconds:.0f}")
    return out


class LiveTable:
    """Shows the trials while the sweep runs, as a context manager with a thread that reads the sweep's folder."""

    def __init__(self, sweep: Sweep, total: int | None) -> None:
        self.sweep, self.total = sweep, total
        self.console = Console(stderr=True)
        self.started, self.stop = time.time(), threading.Event()
        self.by_number = {trial.number: trial.state for trial in sweep.trials() if trial.state != "running"}
        self.thread = threading.Thread(target=self._work, name="live", daemon=True)

    def __enter__(self) -> LiveTable:
        self.thread.start()
        return self

    def __exit__(self, *problem: object) -> None:
        self.stop.set()
        self.thread.join(timeout=10)

    def _draw(self) -> Group:
        trials = self.sweep.trials()
        spent = time.time() - self.started
        return Group(table(trials, self.sweep), Text(summary(trials, self.sweep, self.total, spent)))

    def _lines(self) -> None:
        for trial in self.sweep.trials():
            if self.by_number.get(trial.number) != trial.state:
                self.by_number[trial.number] = trial.state
                self.console.print(line(trial, self.sweep), highlight=False, soft_wrap=True)

    def _work(self) -> None:
        if not self.console.is_terminal:
            while not self.stop.wait(EVERY_S):
                self._lines()
            self._lines()
            return
        with Live(self._draw(), console=self.console, refresh_per_second=4, transient=True) as live:
            while not self.stop.wait(EVERY_S):
                live.update(self._draw())
