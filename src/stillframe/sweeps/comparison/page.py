"""`stillframe compare`: one HTML page a person can decide from."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pandas as pd

from stillframe.evaluation.comparison import SAME, UNKNOWN, WORSE
from stillframe.reporting import page as report_page
from stillframe.reporting import text as report_text
from stillframe.reporting.templates import environment
from stillframe.sweeps.comparison import text
from stillframe.sweeps.comparison.candidates import BEST, Candidate, SweepComparison
from stillframe.sweeps.comparison.disagreement import Disagreement
from stillframe.sweeps.comparison.figures import title_of
from stillframe.sweeps.settings import COSTS
from stillframe.sweeps.store import Trial

HERE = Path(__file__).parent
MOST_ROWS = 100
OPEN_ROWS = 15  # of the leaderboard; the others unfold
MOOD = {BEST: "good", SAME: "same", WORSE: "bad", UNKNOWN: "doubt"}


def render(findings: SweepComparison, apart: Disagreement, drawn: dict[str, str], shares_note: str) -> str:
    """The page as HTML.

    Args:
        findings: of the sweep.
        apart: where the leading candidates differ.
        drawn: name of a figure -> data URI; one that is missing is left out.
        shares_note: why there are no importances, or a caution; "" for neither.
    """
    from markupsafe import Markup

    style = (report_page.HERE / "page.css").read_text(encoding="utf-8") + (HERE / "compare.css").read_text("utf-8")
    mood, verdict = text.verdict(findings)
    facts = findings.sweep.facts
    best = findings.ranked[0] if findings.ranked else None
    return (
        environment(HERE, percent=report_text.percent)
        .get_template("compare.html")
        .render(
            css=Markup(style),
            title=f"sweep {facts['name']}: {text.headline(findings)}",
            facts=facts,
            headline=text.headline(findings),
            mood=mood,
            verdict=verdict,
            cheapest=text.cheapest(findings),
            notes=text.notes(findings),
            tiles=_tiles(findings),
            objective=title_of(findings, findings.objective),
            tested=title_of(findings, tested(findings))
            if any(trial.metric(tested(findings)) for trial in findings.finished)
            else "",
            objectives=[title_of(findings, name) for name in more_objectives(findings)],
            setting="" if best is None else findings.setting(best.trial.number),
            long_setting=text.LONG_SETTING,
            open_rows=OPEN_ROWS,
            rows=[_row(candidate, findings) for candidate in findings.ranked[:MOST_ROWS]],
            more=max(0, len(findings.ranked) - MOST_ROWS),
            repeats=facts["repeats"],
            common=findings.common,
            drawn=drawn,
            shares_note=shares_note,
            apart=apart,
            unit=findings.task.report.unit or "images",
            sample_score=findings.task.evaluation.SAMPLE_SCORE or "",
            pairs=[
                {"trial": other.trial.number, **pair} for other, pair in zip(apart.top[1:], apart.pairs, strict=False)
            ],
            best=None if best is None else best.trial,
            others=[_other(trial, findings) for trial in findings.others],
            command=facts["command"],
            when=time.strftime("%Y-%m-%d %H:%M", time.localtime(facts["started"])),
        )
    )


def tested(findings: SweepComparison) -> str:
    """The test score that is shown beside the objective: the same one, or the task's lead metric beside a cost."""
    split, _, name = findings.objective.partition("/")
    return f"test/{name}" if split == "val" else f"test/{findings.task.lead}"


def more_objectives(findings: SweepComparison) -> list[str]:
    """Those after the first that have no column of their own."""
    return [name for name in findings.sweep.objectives[1:] if name not in COSTS]


def _tiles(findings: SweepComparison) -> list[dict[str, str]]:
    """The figures at the top."""
    counts = pd.Series([trial.state for trial in findings.trials], dtype=str).value_counts()
    states = ", ".join(f"{count} {state}" for state, count in counts.items())
    tiles = [{"title": "Settings", "value": str(len(findings.trials)), "note": states}]
    if findings.ranked:
        best, metric = findings.ranked[0], findings.metric(findings.objective)
        bounds = text.interval(metric, best.score)
        note = f"95 %: {bounds}" if bounds != "–" else ""
        tiles.append({"title": "Best score", "value": text.score(metric, best.score.mean), "note": note})
        runs = f"mean of {best.score.count} runs" if best.score.count > 1 else ""
        size, seconds = (
            text.score(COSTS[name], best.trial.mean(name)) for name in ("train/parameters", "train/seconds")
        )
        tiles.append({"title": "Its parameters", "value": size, "note": ""})
        tiles.append({"title": "Its training", "value": seconds, "note": runs})
    seconds_spent = sum(run.seconds for trial in findings.trials for run in trial.repeats)
    tiles.append({"title": "All runs together", "value": text.duration(seconds_spent), "note": "DAG, wall time"})
    return tiles


def _row(candidate: Candidate, findings: SweepComparison) -> dict[str, Any]:
    """A row of the leaderboard."""
    trial, metric, test = candidate.trial, findings.metric(findings.objective), tested(findings)
    row = {
        "rank": candidate.rank,
        "trial": trial.number,
        "setting": findings.setting(trial.number),
        "score": text.score(metric, candidate.score.mean),
        "deviation": text.deviation(metric, candidate.score),
        "interval": text.interval(metric, candidate.score),
        "gap": text.difference(metric, candidate.gap),
        "how": "" if candidate.gap is None else candidate.gap.how,
        "verdict": candidate.verdict,
        "mood": MOOD[candidate.verdict],
        "test": text.score(findings.metric(test), trial.mean(test)),
        "fronts": candidate.fronts,
        "others": [text.score(findings.metric(name), trial.mean(name)) for name in more_objectives(findings)],
    }
    return row | {cost.name: text.score(cost, trial.mean(name)) for name, cost in COSTS.items()}


def _other(trial: Trial, findings: SweepComparison) -> dict[str, Any]:
    """A row of those that did not finish."""
    last = (trial.error.strip().splitlines() or [""])[-1].removeprefix(" ".join(trial.overrides) + ": ")
    logs = [findings.sweep.trial_folder(trial.number) / f"r{run.repeat}" / "log.txt" for run in trial.repeats]
    logs = [path for path in logs if path.exists()]
    log = str(logs[-1].relative_to(findings.sweep.folder)) if logs else ""
    setting = findings.setting(trial.number)
    return {"trial": trial.number, "state": trial.state, "setting": setting, "error": last, "log": log}


def table(findings: SweepComparison) -> pd.DataFrame:
    """All trials with all that was measured of them, for table.csv."""
    rows = []
    candidates = {candidate.trial.number: candidate for candidate in findings.ranked}
    for trial in [*findings.finished, *findings.others]:
        candidate = candidates.get(trial.number)
        row: dict[str, Any] = {
            "rank": candidate.rank if candidate else None,
            "trial": trial.number,
            "state": trial.state,
        }
        row |= {axis.key: axis.values.get(trial.number) for axis in findings.axes}
        if candidate is not None:
            score, gap = candidate.score, candidate.gap
            row |= {"repeats": score.count, findings.objective: score.mean, "deviation": score.deviation}
            row |= {"low": score.low, "high": score.high, "verdict": candidate.verdict}
            row |= {"gap": gap.mean, "gap_low": gap.low, "gap_high": gap.high} if gap else {}
        names = sorted({name for run in trial.repeats for name in run.metrics if name.count("/") == 1})
        row |= {name: trial.mean(name) for name in names}
        last = trial.error.strip().splitlines()[-1:] or [""]
        row |= {"seconds": trial.seconds, "error": last[0]}
        row |= {"experiments": " ".join(str(run.experiment) for run in trial.repeats)}
        rows.append(row)
    return pd.DataFrame(rows)
