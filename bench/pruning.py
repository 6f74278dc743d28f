"""What pruning saves on a real search, at what score: `python -m bench.pruning` (half an hour on two cores).

Sixteen settings of the textbook CNN on Fashion-MNIST, drawn at random with one seed, so that both searches try the same
ones: once all trained to the end, once with the median pruner. Each search is a sweep through its door in a clone of
its own, so that neither finds the other's results in a cache; an interrupted measurement goes on. The table goes into
docs/benchmarks.md between its markers.
"""

from __future__ import annotations

import argparse
import os
import re
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import optuna
from bench.measuring import ROOT, call, machine, quiet_environment
from bench.rows_sweeps import at_once, sweep
from bench.scores import PAGE, params_of, raw_folder
from bench.scores import ROWS as EXPERIMENTS

WORK = ROOT / ".work" / "pruning"
BEGIN, END = "<!-- pruning:begin -->", "<!-- pruning:end -->"
TRIALS, EPOCHS, JOBS = 16, 4, 2
SPACE = [
    "optim.lr=tag(log, interval(1e-5, 1e-1))",
    "optim.weight_decay=tag(log, interval(1e-5, 1e-1))",
    "trainer.batch_size=256,1024",
    "augment=none,small",
]
FIXED = [
    "data=fashion_mnist",
    "optim=adamw",
    "model=textbook_cnn",
    f"trainer.max_epochs={EPOCHS}",
    "trainer.early_stopping=null",
    "validate.tta=none",
    "sweep.until=validate",
    "sweep.objective=val/accuracy",
    "hydra/sweeper=optuna",
    "hydra.sweeper.sampler=random",
    f"hydra.sweeper.trials={TRIALS}",
    "hydra.sweeper.prune_startup=4",
]


@dataclass(frozen=True)
class Searched:
    """One search."""

    pruner: str
    trials: list[dict[str, Any]]
    epochs: int
    seconds: float  # of all trials, as if one after the other

    @property
    def best(self) -> dict[str, Any]:
        """The best finished trial."""
        done = [trial for trial in self.trials if trial["state"] == "finished"]
        return max(done, key=lambda trial: trial["values"][0])

    @property
    def pruned(self) -> int:
        """Trials that were ended midway."""
        return sum(trial["state"] == "pruned" for trial in self.trials)


def search(pruner: str, raw: Path) -> Searched:
    """Run it, or what is left of it."""
    folder = WORK / pruner
    env = quiet_environment(1, folder / "src")
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        call("git", "clone", "-q", "--no-hardlinks", ROOT, folder, cwd=ROOT, env=env)
    words = [*FIXED, f"data.path={raw}", *SPACE, f"hydra.sweeper.pruner={pruner}", *at_once(JOBS)]
    trials, _ = sweep(folder, env, "search", *words)
    assert len(trials) == TRIALS, f"{folder}/sweeps/search has {len(trials)} trials"
    epochs = [EPOCHS if trial["state"] == "finished" else _epochs(folder, trial["number"]) for trial in trials]
    return Searched(pruner, trials, sum(epochs), sum(trial["seconds"] for trial in trials))


def _epochs(folder: Path, number: int) -> int:
    """Epochs that a pruned training reported."""
    storage = f"sqlite:///{folder / 'sweeps/search/study.db'}"
    (name,) = optuna.get_all_study_names(storage)
    return len(optuna.load_study(study_name=name, storage=storage).trials[number].intermediate_values)


def table(whole: Searched, cut: Searched) -> str:
    """The section of the page."""
    rows = [
        f"| {one.pruner} | {TRIALS} | {one.pruned} | {one.epochs} | {one.seconds:.0f} | {one.best['values'][0]:.4f} "
        f"(trial {one.best['number']}) |"
        for one in (whole, cut)
    ]
    space = ", ".join(f"`{word}`" for word in SPACE)
    lines = [
        f"Measured {date.today()} with `python -m bench.pruning`; {machine()}; {JOBS} trials at once, one thread each.",
        "",
        f"{TRIALS} settings from {space}, drawn by one seed, {EPOCHS} epochs of Fashion-MNIST's "
        "54,000 train images each. The same settings with and without pruning:",
        "",
        "| pruner | trials | ended midway | epochs | seconds, all trials | best val/accuracy |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
        f"Pruning ran {cut.epochs / whole.epochs:.2f} x the epochs and took {cut.seconds / whole.seconds:.2f} x the "
        f"time; the best scores differ by {cut.best['values'][0] - whole.best['values'][0]:+.4f}.",
    ]
    return "\n".join(lines)


def write(section: str) -> None:
    """Put the section between its markers."""
    page = PAGE.read_text(encoding="utf-8")
    if BEGIN not in page:
        page = page.rstrip() + f"\n\n## What pruning saves\n\n{BEGIN}\n{END}\n"
    replaced = re.sub(f"{BEGIN}.*{END}", lambda _: f"{BEGIN}\n{section}\n{END}", page, flags=re.DOTALL)
    PAGE.write_text(replaced, encoding="utf-8")


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--no-page", action="store_true", help="print only")
    options = parser.parse_args()
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    (textbook,) = [row for row in EXPERIMENTS if row.name == "fashion_mnist_cnn"]
    raw = raw_folder(params_of(textbook, 0, []))
    section = table(search("none", raw), search("median", raw))
    print(section)
    if not options.no_page:
        write(section)


if __name__ == "__main__":
    main()
