"""The sentences of a sweep's page."""

from __future__ import annotations

import math

from stillframe.evaluation.comparison import SAME, UNKNOWN, WORSE, Difference, Spread
from stillframe.reporting import text
from stillframe.sweeps.comparison.candidates import Candidate, SweepComparison
from stillframe.sweeps.comparison.figures import title_of
from stillframe.sweeps.settings import COSTS
from stillframe.tasks.base import Metric

FEW_REPEATS = 4
LONG_S = 7200
LONG_SETTING = 50  # letters; a longer one stands below the headline
SECONDS, PARAMETERS = COSTS.values()
CLOSE = 0.01  # of a score: nearer to the best than that, cost may decide


def score(metric: Metric, value: float | None) -> str:
    """A score or cost as text; a dash for none."""
    if value is None or not math.isfinite(value):
        return "–"
    if metric == PARAMETERS:
        return f"{value:,.0f}"
    return duration(value) if metric == SECONDS else text.score(value, metric.percent)


def duration(seconds: float) -> str:
    """Seconds, minutes or hours."""
    return text.duration(seconds) if seconds < LONG_S else f"{seconds / 3600:.1f} h"


def interval(metric: Metric, spread: Spread) -> str:
    """The 95 % interval of a score or cost."""
    if not math.isfinite(spread.low):
        return "–"
    if metric in COSTS.values():
        return f"{score(metric, spread.low)} to {score(metric, spread.high)}"
    return text.interval((spread.low, spread.high), metric.percent)


def deviation(metric: Metric, spread: Spread) -> str:
    """The standard deviation over the repeats, "" for a single one."""
    if not math.isfinite(spread.deviation):
        return ""
    return f"± {100 * spread.deviation:.1f}" if metric.percent else f"± {spread.deviation:.3g}"


def difference(metric: Metric, gap: Difference | None) -> str:
    """A difference with its interval: "−2.1 [−3.0, −1.2]", in points where scores are percentages."""
    if gap is None or math.isnan(gap.mean):
        return "–"
    scale, digits = (100.0, 1) if metric.percent else (1.0, 0 if metric == PARAMETERS else 3)

    def signed(value: float) -> str:
        text = f"{scale * value:+,.{digits}f}"
        return text.replace("-", "−") if float(text.replace(",", "")) else text[1:]

    return signed(gap.mean) + (f" [{signed(gap.low)}, {signed(gap.high)}]" if gap.low < gap.high else "")


def headline(findings: SweepComparison) -> str:
    """The outcome in one sentence."""
    if not findings.ranked:
        return "No trial of this sweep has finished."
    best, repeats = findings.ranked[0], findings.sweep.facts["repeats"]
    metric = findings.metric(findings.objective)
    bounds = interval(metric, best.score)
    bounds = f" (95 %: {bounds})" if bounds != "–" else ""
    runs = f", mean of {best.score.count} runs" if repeats > 1 else ""
    setting = findings.setting(best.trial.number)
    named = f", {setting}" if len(setting) <= LONG_SETTING else ""
    return (
        f"Best of {len(findings.ranked)}: trial {best.trial.number}{named}: "
        f"{title_of(findings, findings.objective)} {score(metric, best.score.mean)}{bounds}{runs}."
    )


def verdict(findings: SweepComparison) -> tuple[str, str]:
    """("good" | "doubt", how far the lead can be trusted)."""
    others = findings.ranked[1:]
    if not findings.ranked:
        return "bad", "There is nothing to choose from: see why below."
    if not others:
        return "doubt", "There is no other finished trial to compare it with."
    count = {kind: sum(other.verdict == kind for other in others) for kind in (WORSE, SAME, UNKNOWN)}
    if count[WORSE] == len(others):
        return "good", "Better than every other finished setting, beyond chance."
    if count[SAME] == len(others):
        return "doubt", "It is not shown to be better than any other setting."
    text = f"Better, beyond chance, than {count[WORSE]} of the {len(others)} others"
    text += f"; from {count[SAME]} no difference is shown" if count[SAME] else ""
    text += f"; {count[UNKNOWN]} cannot be compared" if count[UNKNOWN] else ""
    return ("good" if count[WORSE] > count[SAME] + count[UNKNOWN] else "doubt"), text + "."


def cheapest(findings: SweepComparison) -> str:
    """Which of those close to the best, and not shown to be worse, costs least; "" where there is no choice."""
    if not findings.ranked:
        return ""
    best, percent = findings.ranked[0].score.mean, findings.metric(findings.objective).percent
    margin = CLOSE if percent else CLOSE * abs(best)
    near = [
        candidate
        for candidate in findings.ranked
        if candidate.verdict not in (WORSE, UNKNOWN) and abs(candidate.score.mean - best) <= margin + 1e-12
    ]
    if len(near) < 2:
        return ""

    def cost(candidate: Candidate) -> tuple[float, ...]:
        values = [candidate.trial.mean(name) for name in ("train/parameters", "train/seconds")]
        return tuple(value if math.isfinite(value) else math.inf for value in values)

    least = min(near, key=cost)
    size, seconds = (score(COSTS[name], least.trial.mean(name)) for name in ("train/parameters", "train/seconds"))
    within = "1 point" if percent else "1 %"
    whom = (
        "the best itself" if least.rank == 1 else f"trial {least.trial.number} ({findings.setting(least.trial.number)})"
    )
    return (
        f"{len(near)} settings lie within {within} of the best and are not shown to be worse. Of these {whom} costs "
        f"least: {size} parameters, {seconds} of training."
    )


def notes(findings: SweepComparison) -> list[str]:
    """What must be known before choosing."""
    facts, out = findings.sweep.facts, []
    ranked = len(findings.ranked)
    if ranked > 1:
        out.append(
            f"The best of {ranked} was picked by its validation score, so that score flatters it. "
            "Quote the test score of the one you choose, once you have chosen."
        )
    if facts["repeats"] == 1 and ranked:
        out.append(
            "Each setting ran once. The intervals say what other validation images would change; what another seed "
            "would change is not in them. seeds=5 repeats each setting."
        )
    elif 1 < facts["repeats"] <= FEW_REPEATS and ranked:
        out.append(
            f"{facts['repeats']} repeats a setting are few: a t interval of {facts['repeats'] - 1} "
            f"degree{'s' if facts['repeats'] > 2 else ''} of freedom is wide, and large differences may stay unshown. "
            "“No difference shown” does not mean equal."
        )
    if findings.overlap:
        out.append(
            "The repeats share train images, so their scores are not independent: the intervals use the corrected "
            f"variance of Nadeau and Bengio (2003), validation to train images {findings.overlap:.2f}."
        )
    if len(findings.sweep.objectives) > 1:
        rest = ", ".join(findings.sweep.objectives[1:])
        out.append(f"The sweep had several objectives; the ranking is by the first, beside {rest}.")
    if ranked > 10:
        out.append(
            f"{ranked - 1} comparisons with the best: some 5 % of equal settings would be called worse by chance."
        )
    return out
