"""`stillframe compare`: one HTML page a person can decide from."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pandas as pd

from stillframe.evaluation.comparison import SAME, UNKNOWN, WORSE
from stillframe.reporting import page as report_page
from stillframe.reporting import text as report_words
from stillframe.reporting.templates import environment
from stillframe.sweeps.comparison import text
from stillframe.sweeps.comparison.candidates import BEST, Candidate, SweepComparison
from stillframe.sweeps.comparison.disagreement import Disagreement
from stillframe.sweeps.comparison.figures import title_of
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
        environment(HERE, percent=report_words.percent)
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
            objective=title_of(findings.objective),
            tested=title_of(tested(findings)) if any(one.metric(tested(findings)) for one in findings.finished) else "",
            objectives=[title_of(name) for name in more_objectives(findings)],
            setting="" if best is None else findings.setting(best.trial.number),
            long_setting=text.LONG_SETTING,
            open_rows=OPEN_ROWS,
            rows=[_row(one, findings) for one in findings.ranked[:MOST_ROWS]],
            more=max(0, len(findings.ranked) - MOST_ROWS),
            repeats=facts["repeats"],
            common=findings.common,
            drawn=drawn,
            shares_note=shares_note,
            apart=apart,
            pairs=[_pair(one, pair) for one, pair in zip(apart.top[1:], apart.pairs, strict=False)],
            best=None if best is None else best.trial,
            others=[_other(trial, findings) for trial in findings.others],
            command=facts["command"],
            when=time.strftime("%Y-%m-%d %H:%M", time.localtime(facts["started"])),
        )
    )


def tested(findings: SweepComparison) -> str:
    """The test score that is shown beside the objective: the same one, or accuracy beside a cost."""
    split, _, name = findings.objective.partition("/")
    return f"test/{name}" if split == "val" else "test/accuracy"


def more_objectives(findings: SweepComparison) -> list[str]:
    """Those after the first that have no column of their own."""
    return [name for name in findings.sweep.objectives[1:] if name not in ("train/seconds", "train/parameters")]


def _tiles(findings: SweepComparison) -> list[dict[str, str]]:
    """The figures at the top."""
    counts = pd.Series([trial.state for trial in findings.trials], dtype=str).value_counts()
    states = ", ".join(f"{count} {state}" for state, count in counts.items())
    tiles = [{"title": "Settings", "value": str(len(findings.trials)), "note": states}]
    if findings.ranked:
        best = findings.ranked[0]
        inside = text.spread(findings.objective, best.score)
        score = text.shown(findings.objective, best.score.mean)
        tiles.append({"title": "Best score", "value": score, "note": f"95 %: {inside}" if inside != "–" else ""})
        size = best.trial.mean("train/parameters")
        tiles.append({"title": "Its parameters", "value": text.shown("train/parameters", size), "note": ""})
        seconds = best.trial.mean("train/seconds")
        runs = f"mean of {best.score.count} runs" if best.score.count > 1 else ""
        tiles.append({"title": "Its training", "value": text.shown("train/seconds", seconds), "note": runs})
    spent = sum(one.seconds for trial in findings.trials for one in trial.repeats)
    tiles.append({"title": "All runs together", "value": text.duration(spent), "note": "DAG, wall time"})
    return tiles


def _row(one: Candidate, findings: SweepComparison) -> dict[str, Any]:
    """A row of the leaderboard."""
    trial, name, test = one.trial, findings.objective, tested(findings)
    shown = {
        "rank": one.rank,
        "trial": trial.number,
        "setting": findings.setting(trial.number),
        "score": text.shown(name, one.score.mean),
        "deviation": text.deviation(name, one.score),
        "interval": text.spread(name, one.score),
        "gap": text.gap(name, one.gap),
        "how": "" if one.gap is None else one.gap.how,
        "verdict": one.verdict,
        "mood": MOOD[one.verdict],
        "test": text.shown(test, trial.mean(test)),
        "fronts": one.fronts,
        "others": [text.shown(other, trial.mean(other)) for other in more_objectives(findings)],
    }
    for cost in ("train/seconds", "train/parameters"):
        shown[cost.partition("/")[2]] = text.shown(cost, trial.mean(cost))
    return shown


def _pair(one: Candidate, counts: dict[str, int]) -> dict[str, Any]:
    return {"trial": one.trial.number, **counts}


def _other(trial: Trial, findings: SweepComparison) -> dict[str, Any]:
    """A row of those that did not finish."""
    last = (trial.error.strip().splitlines() or [""])[-1].removeprefix(" ".join(trial.overrides) + ": ")
    logs = [findings.sweep.place(trial.number) / f"r{one.repeat}" / "log.txt" for one in trial.repeats]
    logs = [path for path in logs if path.exists()]
    place = str(logs[-1].relative_to(findings.sweep.folder)) if logs else ""
    setting = findings.setting(trial.number)
    return {"trial": trial.number, "state": trial.state, "setting": setting, "error": last, "log": place}


def table(findings: SweepComparison) -> pd.DataFrame:
    """All trials with all that was measured of them, for table.csv."""
    rows = []
    places = {one.trial.number: one for one in findings.ranked}
    for trial in [*findings.finished, *findings.others]:
        one = places.get(trial.number)
        row: dict[str, Any] = {"rank": one.rank if one else None, "trial": trial.number, "state": trial.state}
        row |= {axis.key: axis.values.get(trial.number) for axis in findings.axes}
        if one is not None:
            score, gap = one.score, one.gap
            row |= {"repeats": score.count, findings.objective: score.mean, "deviation": score.deviation}
            row |= {"low": score.low, "high": score.high, "verdict": one.verdict}
            row |= {"gap": gap.mean, "gap_low": gap.low, "gap_high": gap.high} if gap else {}
        names = sorted({name for run in trial.repeats for name in run.metrics if name.count("/") == 1})
        row |= {name: trial.mean(name) for name in names}
        last = trial.error.strip().splitlines()[-1:] or [""]
        row |= {"seconds": trial.seconds, "error": last[0]}
        row |= {"experiments": " ".join(str(run.experiment) for run in trial.repeats)}
        rows.append(row)
    return pd.DataFrame(rows)
