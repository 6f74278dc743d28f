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
        known = sorted({value for value in self.values.values() if isinstance(value, float)})
        if not self.numeric or not known or known[0] <= 0 or known[-1] < 4 * known[0]:
            return False
        low, middle, high = known[0], statistics.median(known), known[-1]
        place = math.log(middle / low) / math.log(high / low)
        return abs(place - 0.5) < abs((middle - low) / (high - low) - 0.5)

    def shown(self, number: int) -> str:
        """A trial's value as text, numbers with three digits."""
        value = self.values.get(number)
        if not isinstance(value, float):
            return "–" if value is None else value
        return f"{value:.0f}" if value == int(value) and abs(value) < 1e6 else f"{value:.3g}"


@dataclass(frozen=True)
class Candidate:
    """A finished trial in its place.

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
    """What is known of a sweep, computed once and only when asked for."""

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        self.trials = sweep.trials()
        self.objective = sweep.objectives[0]
        self.more_is_better = sweep.directions[0] == "maximize"
        self._answers: dict[tuple[int, int], pd.DataFrame | None] = {}
        usable = [trial for trial in self.trials if trial.state == "finished" and _known(trial.values)]
        sign = -1 if self.more_is_better else 1
        self.finished = sorted(usable, key=lambda trial: (sign * trial.values[0], trial.number))
        self.others = [trial for trial in self.trials if trial not in usable]

    def answers(self, trial: Trial, repeat: int) -> pd.DataFrame | None:
        """What a run said of its validation images, by id; None when that was not kept."""
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
        first, second = (self.answers(trial, one.repeat) for one in _done(trial)[:2])
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
            known = [trial for trial in self.finished if math.isfinite(trial.mean(cost))]
            points = [(trial.values[0], trial.mean(cost)) for trial in known]
            front = comparison.pareto(points, [self.more_is_better, False])
            for trial, on_it in zip(known, front, strict=True):
                if on_it:
                    out.setdefault(trial.number, []).append(cost)
        return out

    def spread(self, trial: Trial, metric: str | None = None) -> Spread:
        """A metric over the repeats; of a single run over the validation images where that can be resampled."""
        name = metric or self.objective
        values = trial.metric(name)
        if len(values) > 1:
            found = comparison.spread_of(values, self.overlap)
            return _within(found, 0.0) if self.metric(name).percent else found
        table = self.answers(trial, _done(trial)[0].repeat) if values else None
        metric_name = self._resampled(name, [table])
        if not metric_name or table is None:
            return Spread(len(values), values[0] if values else math.nan, math.nan, math.nan, math.nan)
        scorer = make_scorer(self.task, table, self.task.evaluation.names_shown([table]))
        return comparison.sample_spread(scorer, len(table), metric_name, resamples=RESAMPLES, seed=0)

    def _resampled(self, name: str, tables: Sequence[pd.DataFrame | None]) -> str:
        """The metric of that name, without its split, where it has an interval over the validation images; else ""."""
        split, _, metric = name.partition("/")
        kept = [table for table in tables if table is not None]
        if split != "val" or not kept:
            return ""
        names = self.task.evaluation.names_shown(kept)
        return metric if metric in comparison.comparable_metrics(self.task, kept[0], names) else ""

    def difference(self, first: Trial, second: Trial, metric: str | None = None) -> Difference:
        """First less second in a metric (the first objective), over what both have seen."""
        name = metric or self.objective
        ours, theirs = ({one.repeat: one for one in _done(trial)} for trial in (first, second))
        both = sorted(set(ours) & set(theirs))
        pairs = [self.shared(first, second, at) for at in both]
        if not pairs or any(pair is None for pair in pairs):
            return Difference(math.nan, math.nan, math.nan, "not seen on the same validation images")
        if len(both) > 1:
            values = [[having[at].metrics.get(name, math.nan) for at in both] for having in (ours, theirs)]
            found = comparison.paired_repeats(values[0], values[1], self.overlap)
            return _within(found, -1.0) if self.metric(name).percent else found
        tables = list(pairs[0] or ())
        metric_name = self._resampled(name, tables)
        if not metric_name:
            gap = ours[both[0]].metrics.get(name, math.nan) - theirs[both[0]].metrics.get(name, math.nan)
            return Difference(gap, math.nan, math.nan, "one run each, and no interval of this score")
        names = self.task.evaluation.names_shown(tables)
        a, b = (make_scorer(self.task, table, names) for table in tables)
        return comparison.paired_difference(a, b, len(tables[0]), metric_name, resamples=RESAMPLES, seed=0)

    def shared(self, first: Trial, second: Trial, repeat: int) -> tuple[pd.DataFrame, pd.DataFrame] | None:
        """What both said of the same validation images; None when the images differ or the answers were not kept."""
        a, b = self.answers(first, repeat), self.answers(second, repeat)
        if a is None or b is None or not a.index.equals(b.index):
            return None
        names = self.task.evaluation.names_shown([a, b])
        return None if comparison.count_target_mismatches(self.task, a, b, names) else (a, b)

    @cached_property
    def axes(self) -> list[Axis]:
        """The parameters whose values differ between trials, in the order of the command line."""
        given = {trial.number: settings(trial.overrides) for trial in self.trials}
        keys = list(dict.fromkeys(key for values in given.values() for key in values))
        varied = [key for key in keys if len({values.get(key) for values in given.values()}) > 1]
        names = short_names(varied)
        return [_axis(key, names[key], {at: values.get(key) for at, values in given.items()}) for key in varied]

    @cached_property
    def common(self) -> list[str]:
        """Overrides that all trials share."""
        varied = {axis.key for axis in self.axes}
        first = settings(self.trials[0].overrides) if self.trials else {}
        return [f"{key}={value}" for key, value in first.items() if key not in varied]

    def setting(self, number: int) -> str:
        """What is particular to a trial, in a line."""
        words = [f"{axis.name}={axis.shown(number)}" for axis in self.axes if axis.values.get(number) is not None]
        return " ".join(words) or "as configured"


Bounded = TypeVar("Bounded", Spread, Difference)


def _within(given: Bounded, least: float) -> Bounded:
    """Student's t knows nothing of 100 %: no score lies beyond it, no difference of two either."""
    if math.isnan(given.low):
        return given
    return replace(given, low=max(least, given.low), high=min(1.0, given.high))


def _known(values: list[float]) -> bool:
    return bool(values) and values[0] is not None and math.isfinite(values[0])


def _done(trial: Trial) -> list[Repeat]:
    return [one for one in trial.repeats if one.state == "finished"]


def settings(overrides: list[str]) -> dict[str, str]:
    """`["+optim.lr=0.1", "~evaluate.slices"]` as {"optim.lr": "0.1", "evaluate.slices": "(removed)"}."""
    out = {}
    for word in overrides:
        key, equals, value = word.partition("=")
        out[key.lstrip("+~")] = value if equals and not key.startswith("~") else "(removed)"
    return out


def short_names(keys: list[str]) -> dict[str, str]:
    """`optim.lr` as `lr`, as long as no other key ends so."""
    ends = Counter(key.rpartition(".")[2] for key in keys)
    return {key: key if ends[key.rpartition(".")[2]] > 1 else key.rpartition(".")[2] for key in keys}


def _axis(key: str, name: str, given: dict[int, str | None]) -> Axis:
    numbers = {at: None if value is None else _number(value) for at, value in given.items()}
    if all(value is None or math.isfinite(value) for value in numbers.values()):
        return Axis(key, name, dict(numbers), True)
    return Axis(key, name, dict(given), False)


def _number(word: str) -> float:
    """NaN for what is no number."""
    try:
        return float(word)
    except ValueError:
        return math.nan
