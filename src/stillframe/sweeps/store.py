"""What a sweep leaves on disk: sweeps/<name>/sweep.json and trials/<number>/{trial.json, r0/...}.

A trial is a setting; its repeats (seeds, folds) are runs of the DAG. Any process may read; only the trial's own writes.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from stillframe.paths import read_json, write_json

# States of a trial: running, finished, failed, pruned (by the search), stopped (by a signal).
DONE = ("finished", "pruned")  # what the same command does not run again


@dataclass(frozen=True)
class Repeat:
    """One run of the DAG.

    Attributes:
        metrics: "val/f1_macro", "test/accuracy", "train/seconds", "train/parameters", ...; {} until it finished.
        ran: stages that ran; the others came from the cache.
        experiment: DVC's name of it (`dvc exp apply NAME`); commit: what it points at.
    """

    repeat: int
    seed: int
    fold: int | None
    state: str
    run_id: str | None = None
    experiment: str | None = None
    commit: str | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    ran: list[str] = field(default_factory=list)
    seconds: float = 0.0
    error: str = ""


@dataclass(frozen=True)
class Trial:
    """One setting with its repeats.

    Attributes:
        overrides: what the sweep set for this trial, in Hydra's grammar.
        values: mean over the repeats of each objective; [] until it finished.
    """

    number: int
    overrides: list[str]
    state: str
    values: list[float] = field(default_factory=list)
    repeats: list[Repeat] = field(default_factory=list)
    started: float = 0.0
    seconds: float = 0.0
    error: str = ""
    slot: int | None = None
    host: str = ""
    pid: int = 0
    gpus: str = ""

    def metric(self, name: str) -> list[float]:
        """A metric's value in each finished repeat."""
        finished = [repeat for repeat in self.repeats if repeat.state == "finished"]
        return [repeat.metrics[name] for repeat in finished if name in repeat.metrics]

    def mean(self, name: str) -> float:
        """Mean of a metric over the finished repeats; NaN when there is none."""
        values = self.metric(name)
        return sum(values) / len(values) if values else math.nan


@dataclass(frozen=True)
class Sweep:
    """A sweep's folder and facts."""

    folder: Path
    facts: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Sweep:
        """Open a sweep.

        Raises:
            FileNotFoundError: there is none.
        """
        if not (folder / "sweep.json").exists():
            raise FileNotFoundError(f"{folder} is no sweep: {sweep_names(folder.parent)}")
        return cls(folder.absolute(), read_json(folder / "sweep.json"))

    def write(self, **changes: Any) -> Sweep:
        """Change facts on disk."""
        new = replace(self, facts={**self.facts, **changes})
        write_json(self.folder / "sweep.json", new.facts)
        return new

    @property
    def objectives(self) -> list[str]:
        """Names of what is optimised, e.g. ["val/f1_macro"]."""
        return list(self.facts["objectives"])

    @property
    def directions(self) -> list[str]:
        """Maximize or minimize, one an objective."""
        return list(self.facts["directions"])

    def trial_folder(self, number: int) -> Path:
        """A trial's folder."""
        return self.folder / "trials" / f"{number:04d}"

    def save(self, trial: Trial) -> Trial:
        """Write a trial's facts."""
        write_json(self.trial_folder(trial.number) / "trial.json", _finite(asdict(trial)))
        return trial

    def trial(self, number: int) -> Trial | None:
        """A trial's facts, or None before it began."""
        path = self.trial_folder(number) / "trial.json"
        if not path.exists():
            return None
        facts = read_json(path)
        repeats = [Repeat(**repeat) for repeat in facts.pop("repeats")]
        for repeat in repeats:  # null in JSON, see `_finite`
            repeat.metrics.update({name: math.nan for name, value in repeat.metrics.items() if value is None})
        return Trial(**facts, repeats=repeats)

    def trials(self) -> list[Trial]:
        """All trials that began, by number."""
        numbers = sorted(int(path.parent.name) for path in self.folder.glob("trials/*/trial.json"))
        return [trial for number in numbers if (trial := self.trial(number)) is not None]

    def best(self) -> Trial | None:
        """The best finished trial by the first objective."""
        done = [trial for trial in self.trials() if trial.state == "finished" and trial.values]
        sign = 1 if self.directions[0] == "maximize" else -1
        return max(done, key=lambda trial: sign * trial.values[0], default=None)


def sweep_names(root: Path) -> str:
    """For an error: which sweeps there are."""
    names = sorted(path.parent.name for path in root.glob("*/sweep.json"))
    return f"there are {', '.join(names)}" if names else "there are none yet: python -m stillframe.sweep -m ..."


def find_sweep(name: str | None, root: Path = Path("sweeps")) -> Sweep:
    """A sweep by its name or its folder; without one the sweep that was started last.

    Raises:
        FileNotFoundError: there is none; the message names those that there are.
    """
    if name is not None:
        folder = Path(name)
        return Sweep.read(folder if (folder / "sweep.json").exists() else root / name)
    paths = sorted(root.glob("*/sweep.json"), key=lambda path: path.stat().st_mtime)
    if not paths:
        raise FileNotFoundError(sweep_names(root))
    return Sweep.read(paths[-1].parent)


def _finite(value: Any) -> Any:
    """NaN and infinity as null: JSON has neither."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
