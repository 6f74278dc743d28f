"""The trials of a sweep as candidates: what was varied, who leads, and by how much beyond chance."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

import pandas as pd
import yaml

from stillframe.evaluation import comparison
from stillframe.evaluation.bootstrap import make_scorer
from stillframe.evaluation.comparison import Difference, Spread
from stillframe.sweeps.settings import objective_metric
from stillframe.sweeps.store import Repeat, Sweep, Trial
from stillframe.tasks import find_task
from stillframe.tasks.base import Metric, Task

RESAMPLES = 2000
BEST = "best"


@dataclass(frozen=True)
class Axis:
    """A parameter that differs between trials.

    Attributes:
        name: the last part of the key, where no other one ends so.
        values: by the trial's number; None where it does not set the parameter; numbers when all of them are.
    """

    key: str
    name: str
    values: dict[int, float | str | None]
    numeric: bool

    @property
    def log(self) -> bool:
        """Numbers above 0 that span a factor of 4 or more, and spread more evenly on a logarithmic scale."""
        numbers = sorted({value for value in self.values.values() if isinstance(value, float)})
        if not self.numeric or not numbers or numbers[0] <= 0 or numbers[-1] < 4 * numbers[0]:
            return False
        # the scale on which the median lies nearer to the middle of the range
        low, middle, high = numbers[0], statistics.median(numbers), numbers[-1]
        position = math.log(middle / low) / math.log(high / low)
        return abs(position - 0.5) < abs((middle - low) / (high - low) - 0.5)

    def text(self, number: int) -> str:
        """A trial's value as text, numbers with three digits."""
        value = self.values.get(number)
        if not isinstance(value, float):
            return "–" if value is None else value
        return f"{value:.0f}" if value == int(value) and abs(value) < 1e6 else f"{value:.3g}"


@dataclass(frozen=True)
class Candidate:
    """A finished trial with its rank.

    Attributes:
        rank: from 1, by the first objective.
        score: the first objective.
        gap: the score less that of the best, on the same repeats or images; None for the best.
        verdict: "best", or what the gap's interval says.
        fronts: names of the costs with which no other trial beats it.
    """

    rank: int
    trial: Trial
    score: Spread
    gap: Difference | None
    verdict: str
    fronts: list[str] = field(default_factory=list)


class SweepComparison:
    """What a sweep's page compares: ranking, intervals, differences. Each is computed once, on first use."""

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        self.trials = sweep.trials()
        self.objective = sweep.objectives[0]
        self.more_is_better = sweep.directions[0] == "maximize"
        self._answers: dict[tuple[int, int], pd.DataFrame | None] = {}
        # a score may be undefined (null in trial.json), and then the trial has no rank
        usable = [
            trial
            for trial in self.trials
            if trial.state == "finished"
            and trial.values
            and trial.values[0] is not None
            and math.isfinite(trial.values[0])
        ]
        sign = -1 if self.more_is_better else 1
        self.finished = sorted(usable, key=lambda trial: (sign * trial.values[0], trial.number))
        self.others = [trial for trial in self.trials if trial not in usable]

    def answers(self, trial: Trial, repeat: int) -> pd.DataFrame | None:
        """A run's predictions for its validation images, by id; None when the file is gone."""
        key = trial.number, repeat
        if key not in self._answers:
            path = self.sweep.trial_folder(trial.number) / f"r{repeat}" / "val_predictions.parquet"
            table = None
            if path.exists():
                table = pd.read_parquet(path, columns=["index", "id", *self.task.evaluation.COMPARED])
            self._answers[key] = None if table is None else table.set_index("id").sort_index()
        return self._answers[key]

    @cached_property
    def task(self) -> Task:
        """What the trials learn; sweeps of earlier versions have it in the parameters of their trials only."""
        return find_task(self.sweep.facts.get("task") or self._params(self.finished[0])["task"])

    def metric(self, name: str) -> Metric:
        """The metric of an objective, or of a test score (`test/<metric>`)."""
        return objective_metric(name, self.task)

    @cached_property
    def overlap(self) -> float:
        """Validation over train images where the repeats draw other splits (`comparison.spread_of`); else 0."""
        trial = next((trial for trial in self.finished if len(_done(trial)) > 1), None)
        if trial is None:
            return 0.0
        if self.sweep.facts.get("folds", 0) >= 2:
            return comparison.overlap_of_folds(self.sweep.facts["folds"])
        # Repeats that differ in the seed of training alone see the same split: nothing to correct.
        first, second = (self.answers(trial, run.repeat) for run in _done(trial)[:2])
        if first is not None and second is not None and first.index.equals(second.index):
            return 0.0
        val, test = (self._params(trial)["data"].get(f"{split}_fraction", 0.15) for split in ("val", "test"))
        return float(val / max(1.0 - val - test, val))

    def _params(self, trial: Trial) -> dict[str, Any]:
        """params.yaml of a trial's first finished run."""
        path = self.sweep.trial_folder(trial.number) / f"r{_done(trial)[0].repeat}" / "params.yaml"
        values: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
        return values

    @cached_property
    def ranked(self) -> list[Candidate]:
        """The finished trials, the best by the first objective first."""
        out = []
        for rank, trial in enumerate(self.finished, start=1):
            gap = self.difference(trial, self.finished[0]) if rank > 1 else None
            verdict = BEST if gap is None else gap.verdict(self.more_is_better)
            out.append(Candidate(rank, trial, self.spread(trial), gap, verdict, self.fronts.get(trial.number, [])))
        return out

    @cached_property
    def fronts(self) -> dict[int, list[str]]:
        """Trial -> the costs against which it lies on the Pareto front."""
        out: dict[int, list[str]] = {}
        for cost in ("train/seconds", "train/parameters"):
            measured = [trial for trial in self.finished if math.isfinite(trial.mean(cost))]
            points = [(trial.values[0], trial.mean(cost)) for trial in measured]
            front = comparison.pareto(points, [self.more_is_better, False])
            for trial, on_it in zip(measured, front, strict=True):
                if on_it:
                    out.setdefault(trial.number, []).append(cost)
        return out

    def spread(self, trial: Trial, metric: str | None = None) -> Spread:
        """A metric over the repeats; of a single run over the validation images where that can be resampled."""
        name = metric or self.objective
        values = trial.metric(name)
        if len(values) > 1:
            spread = comparison.spread_of(values, self.overlap)
            return _within(spread, 0.0) if self.metric(name).percent else spread
        table = self.answers(trial, _done(trial)[0].repeat) if values else None
        metric_name = self._resampled(name, [table])
        if not metric_name or table is None:
            return Spread(len(values), values[0] if values else math.nan, math.nan, math.nan, math.nan)
        scorer = make_scorer(self.task, table, self.task.evaluation.stand_in_names([table]))
        return comparison.sample_spread(scorer, len(table), metric_name, resamples=RESAMPLES, seed=0)

    def _resampled(self, name: str, tables: Sequence[pd.DataFrame | None]) -> str:
        """The metric of that name, without its split, where it has an interval over the validation images; else ""."""
        split, _, metric = name.partition("/")
        present = [table for table in tables if table is not None]
        if split != "val" or not present:
            return ""
        names = self.task.evaluation.stand_in_names(present)
        return metric if metric in comparison.comparable_metrics(self.task, present[0], names) else ""

    def difference(self, first: Trial, second: Trial, metric: str | None = None) -> Difference:
        """First less second in a metric (the first objective), over the repeats or images that both have."""
        name = metric or self.objective
        ours, theirs = ({run.repeat: run for run in _done(trial)} for trial in (first, second))
        both = sorted(set(ours) & set(theirs))
        pairs = [self.shared(first, second, repeat) for repeat in both]
        if not pairs or any(pair is None for pair in pairs):
            return Difference(math.nan, math.nan, math.nan, "not seen on the same validation images")
        if len(both) > 1:
            values = [[runs[repeat].metrics.get(name, math.nan) for repeat in both] for runs in (ours, theirs)]
            gap = comparison.paired_repeats(values[0], values[1], self.overlap)
            return _within(gap, -1.0) if self.metric(name).percent else gap
        tables = list(pairs[0] or ())
        metric_name = self._resampled(name, tables)
        if not metric_name:
            single = ours[both[0]].metrics.get(name, math.nan) - theirs[both[0]].metrics.get(name, math.nan)
            return Difference(single, math.nan, math.nan, "one run each, and no interval of this score")
        names = self.task.evaluation.stand_in_names(tables)
        a, b = (make_scorer(self.task, table, names) for table in tables)
        return comparison.paired_difference(a, b, len(tables[0]), metric_name, resamples=RESAMPLES, seed=0)

    def shared(self, first: Trial, second: Trial, repeat: int) -> tuple[pd.DataFrame, pd.DataFrame] | None:
        """Predictions of both for the same validation images; None when images or targets differ, or a file is gone."""
        a, b = self.answers(first, repeat), self.answers(second, repeat)
        if a is None or b is None or not a.index.equals(b.index):
            return None
        names = self.task.evaluation.stand_in_names([a, b])
        return None if comparison.count_target_mismatches(self.task, a, b, names) else (a, b)

    @cached_property
    def axes(self) -> list[Axis]:
        """The parameters whose values differ between trials, in the order of the command line."""
        settings_of = {trial.number: settings(trial.overrides) for trial in self.trials}
        keys = list(dict.fromkeys(key for values in settings_of.values() for key in values))
        varied = [key for key in keys if len({values.get(key) for values in settings_of.values()}) > 1]
        names, axes = short_names(varied), []
        for key in varied:
            texts = {number: values.get(key) for number, values in settings_of.items()}
            # numbers on a scale when all values are numbers, else categories
            numbers = {number: None if text is None else _number(text) for number, text in texts.items()}
            numeric = all(value is None or math.isfinite(value) for value in numbers.values())
            axes.append(Axis(key, names[key], dict(numbers) if numeric else dict(texts), numeric))
        return axes

    @cached_property
    def common(self) -> list[str]:
        """Overrides that all trials share."""
        varied = {axis.key for axis in self.axes}
        first = settings(self.trials[0].overrides) if self.trials else {}
        return [f"{key}={value}" for key, value in first.items() if key not in varied]

    def setting(self, number: int) -> str:
        """What is particular to a trial, in a line."""
        parts = [f"{axis.name}={axis.text(number)}" for axis in self.axes if axis.values.get(number) is not None]
        return " ".join(parts) or "as configured"


Bounded = TypeVar("Bounded", Spread, Difference)


def _within(interval: Bounded, least: float) -> Bounded:
    """An interval cut at `least` and 1: Student's t knows no bounds; a share and the difference of two have them."""
    if math.isnan(interval.low):
        return interval
    return replace(interval, low=max(least, interval.low), high=min(1.0, interval.high))


def _done(trial: Trial) -> list[Repeat]:
    return [run for run in trial.repeats if run.state == "finished"]


def settings(overrides: list[str]) -> dict[str, str]:
    """`["+optim.lr=0.1", "~evaluate.slices"]` as {"optim.lr": "0.1", "evaluate.slices": "(removed)"}."""
    out = {}
    for override in overrides:
        key, equals, value = override.partition("=")
        out[key.lstrip("+~")] = value if equals and not key.startswith("~") else "(removed)"
    return out


def short_names(keys: list[str]) -> dict[str, str]:
    """`optim.lr` as `lr`, as long as no other key ends so."""
    ends = Counter(key.rpartition(".")[2] for key in keys)
    return {key: key if ends[key.rpartition(".")[2]] > 1 else key.rpartition(".")[2] for key in keys}


def _number(text: str) -> float:
    """NaN for what is no number."""
    try:
        return float(text)
    except ValueError:
        return math.nan
