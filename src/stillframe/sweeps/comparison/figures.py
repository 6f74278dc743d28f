"""The figures of a sweep's page, in the style of the report."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stillframe.reporting.figures import COLOURS, FAINT, INK, brief, percent_axis, short, styled
from stillframe.sweeps.comparison.candidates import Axis, Candidate, SweepComparison
from stillframe.sweeps.settings import COSTS

GREY, GOLD = "#9aa5b1", COLOURS[1]
MOST_AXES = 8
MOST_LABELLED = 8


def title_of(findings: SweepComparison, objective: str) -> str:
    """`val/f1_macro` as "Macro F1 on validation", `val/recall/cat` as "recall of cat on validation"."""
    split, _, name = objective.partition("/")
    title, of_class = findings.metric(objective).title, name.partition("/")[2]
    if objective in COSTS:
        return title
    return f"{title}{f' of {of_class}' if of_class else ''} on {'validation' if split == 'val' else split}"


def _scale(axis: Axis, numbers: Sequence[int]) -> tuple[dict[int, float], list[tuple[float, str]]]:
    """Where each trial lies on an axis from 0 to 1, and its ticks; trials without a value are left out."""
    present = {number: axis.values[number] for number in numbers if axis.values.get(number) is not None}
    if not axis.numeric:
        names = sorted({str(value) for value in present.values()})
        step = {name: (index + 0.5) / len(names) for index, name in enumerate(names)}
        return {number: step[str(value)] for number, value in present.items()}, [
            (step[name], short(name)) for name in names
        ]
    transform: Callable[[float], float] = math.log10 if axis.log else float
    position = {number: transform(float(value)) for number, value in present.items() if value is not None}
    low, high = min(position.values()), max(position.values())
    spread = high - low or 1.0
    values = sorted({float(value) for value in present.values() if value is not None})
    digits = 6
    # ticks at the values themselves while they are few
    if len(values) > 6:
        digits = 2
        values = [10**tick if axis.log else tick for tick in np.linspace(low, high, 3)]
    ticks = [((transform(value) - low) / spread, f"{value:.{digits}g}") for value in values]
    return {number: (value - low) / spread for number, value in position.items()}, ticks


@styled
def parallel_coordinates(findings: SweepComparison) -> Figure:
    """One line a finished trial through its parameters to its score; the better, the darker; the best in orange."""
    ranked, axes = findings.ranked, findings.axes[:MOST_AXES]
    numbers = [candidate.trial.number for candidate in ranked]
    scores = Axis(
        "score",
        title_of(findings, findings.objective),
        {candidate.trial.number: candidate.score.mean for candidate in ranked},
        True,
    )
    figure = Figure(figsize=(max(10.0, min(14.0, 2.6 + 1.5 * len(axes))), 4.2), layout="constrained")
    plot = figure.add_subplot()
    scales = [_scale(axis, numbers) for axis in (*axes, scores)]
    good = scales[-1][0] if findings.more_is_better else {number: 1 - value for number, value in scales[-1][0].items()}
    turns = np.linspace(-0.018, 0.018, max(2, len(numbers)))  # lines through one category can be told apart
    for turn, number in sorted(zip(turns, numbers, strict=False), key=lambda item: good.get(item[1], 0.0)):
        points = [(x, position[number]) for x, (position, _) in enumerate(scales) if number in position]
        best = number == numbers[0]
        heights = [y + (turn if x < len(axes) else 0.0) for x, y in points]
        style: dict[str, Any] = {"color": GOLD, "linewidth": 2.8, "zorder": 5}
        if not best:
            from matplotlib import colormaps

            style = {"color": colormaps["Blues"](0.22 + 0.73 * good.get(number, 0.0)), "linewidth": 1.6, "alpha": 0.9}
        plot.plot([x for x, _ in points], heights, **style, label=f"best: trial {number}" if best else None)
    for x, (_, ticks) in enumerate(scales[:-1]):
        _marked(plot, x, ticks, left=True)
    ends = {scales[-1][0][number]: _text(scores.values[number], findings) for number in (numbers[-1], numbers[0])}
    _marked(plot, len(axes), list(ends.items()), left=False)
    plot.set_xticks(range(len(scales)), [*(short(axis.name) for axis in axes), short(scores.name)])
    plot.set(yticks=[], ylim=(-0.06, 1.06), xlim=(-0.45, len(axes) + 0.4))
    plot.grid(False)
    plot.spines[["left", "bottom"]].set_visible(False)
    plot.set_title("Each line is a trial; the darker, the better", pad=9)
    plot.legend(loc="upper left", bbox_to_anchor=(0.0, -0.08))
    return figure


def _text(value: float | str | None, findings: SweepComparison) -> str:
    return (
        f"{100 * float(value or 0):.1f} %"
        if findings.metric(findings.objective).percent
        else f"{float(value or 0):.4g}"
    )


def _marked(plot: Axes, x: int, ticks: list[tuple[float, str]], left: bool) -> None:
    """A vertical axis with its ticks beside it."""
    plot.axvline(x, color=INK, linewidth=0.9, zorder=1)
    frame = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 0.8}
    for y, text in ticks:
        style: dict[str, Any] = {"ha": "right" if left else "left", "va": "center", "fontsize": 8.5}
        plot.text(x - 0.03 if left else x + 0.03, y, text, bbox=frame, zorder=6, **style)


@styled
def importance_bars(shares: dict[str, float]) -> Figure:
    """Share of the variation that each parameter explains."""
    rows = list(shares.items())[:16][::-1]
    figure = Figure(figsize=(6.4, 1.0 + 0.42 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    axes.barh([short(name) for name, _ in rows], [share for _, share in rows], height=0.58, color=COLOURS[0])
    for y, (_, share) in enumerate(rows):
        axes.text(share + 0.01, y, f"{100 * share:.0f} %", va="center")
    axes.set(xlim=(0, 1.08))
    axes.grid(False, axis="y")
    percent_axis(axes.xaxis)
    axes.set_title("Share of the differences that it explains", pad=9)
    return figure


@styled
def effects(findings: SweepComparison) -> Figure:
    """For each parameter the score of all trials by its value, and their mean."""
    axes = findings.axes[:MOST_AXES]
    across = min(len(axes), 4)
    down = -(-len(axes) // across)
    figure = Figure(figsize=((5.6, 8.0, 10.0, 11.6)[across - 1], 2.7 * down), layout="constrained")
    numbers = [candidate.trial.number for candidate in findings.ranked]
    score = {candidate.trial.number: candidate.score.mean for candidate in findings.ranked}
    for index, axis in enumerate(axes):
        plot = figure.add_subplot(down, across, index + 1)
        position, ticks = _scale(axis, numbers)
        groups: dict[float, list[float]] = {}
        for number, x in position.items():
            groups.setdefault(x, []).append(score[number])
        plot.scatter(
            list(position.values()), [score[number] for number in position], s=26, color=COLOURS[0], alpha=0.55
        )
        if len(groups) <= 8:
            positions = sorted(groups)
            means = [float(np.mean(groups[x])) for x in positions]
            plot.plot(
                positions,
                means,
                "_" if not axis.numeric else "_-",
                color=GOLD,
                markersize=17,
                markeredgewidth=2.4,
                linewidth=1.1,
                label="mean",
            )
        plot.set_xticks([x for x, _ in ticks], [short(text) for _, text in ticks])
        plot.set(xlim=(-0.15, 1.15), title=short(axis.name) + (" (log)" if axis.log else ""))
        if any(len(text) > 9 for _, text in ticks) and len(ticks) > 2:
            plot.tick_params(axis="x", rotation=30)
        _as_score(plot, findings)
        plot.set_ylabel(title_of(findings, findings.objective) if index % across == 0 else "")
    return figure


def _as_score(plot: Axes, findings: SweepComparison) -> None:
    from matplotlib.ticker import PercentFormatter

    if findings.metric(findings.objective).percent:
        low, high = plot.get_ylim()
        low, high = max(low, -0.02), min(high, 1.02)
        plot.set_ylim(low, high)
        plot.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1 if high - low < 0.3 else 0, symbol=" %"))


@styled
def cost(findings: SweepComparison) -> Figure:
    """The objective against seconds of training and against parameters, with intervals and the Pareto front."""
    several = " (mean of the repeats)" if findings.sweep.facts["repeats"] > 1 else ""
    costs = dict(zip(COSTS, (f"seconds of training{several}", "parameters"), strict=True))
    figure = Figure(figsize=(9.6, 4.0), layout="constrained")
    for column, (name, title) in enumerate(costs.items()):
        plot = figure.add_subplot(1, 2, column + 1)
        measured = [candidate for candidate in findings.ranked if math.isfinite(candidate.trial.mean(name))]
        _points(plot, measured, name)
        front = sorted(
            (candidate.trial.mean(name), candidate.score.mean) for candidate in measured if name in candidate.fronts
        )
        plot.step(
            [x for x, _ in front],
            [y for _, y in front],
            where="post",
            color=GOLD,
            linewidth=1.3,
            zorder=2,
            label="Pareto front: none is both cheaper and better",
        )
        spent = [candidate.trial.mean(name) for candidate in measured]
        if spent and min(spent) > 0 and max(spent) > 8 * min(spent):
            plot.set_xscale("log")
            plot.xaxis.set_major_formatter("{x:g}")
            plot.xaxis.set_minor_formatter("")
        elif spent:
            reach = max(spent) - min(spent) or max(spent) or 1.0
            plot.set_xlim(min(spent) - 0.12 * reach, max(spent) + 0.16 * reach)
        plot.set(xlabel=title, ylabel=title_of(findings, findings.objective) if column == 0 else "")
        _as_score(plot, findings)
        if name == "train/parameters":
            _counts(plot, spent)
    handles, titles = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles[:1], titles[:1], loc="outside lower center")
    return figure


def _counts(plot: Axes, values: Sequence[float]) -> None:
    """Ticks at the sizes themselves while they are few and apart."""
    from matplotlib.ticker import EngFormatter, FixedLocator, NullFormatter

    plot.xaxis.set_major_formatter(EngFormatter(sep=" ", places=0))
    plot.xaxis.set_minor_formatter(NullFormatter())
    kinds = sorted(set(values))
    if 1 < len(kinds) <= 6 and all(b > 1.5 * a for a, b in itertools.pairwise(kinds)):
        plot.xaxis.set_major_locator(FixedLocator(kinds))


def _points(plot: Axes, ranked: Sequence[Candidate], cost: str) -> None:
    """Points with intervals; a trial's number stands left of its point where another one stands right of it."""
    low, high = (find(candidate.score.mean for candidate in ranked) for find in (min, max))
    near = 0.05 * (high - low)
    taken: list[tuple[float, float]] = []
    for candidate in ranked:
        x, y, on_front = candidate.trial.mean(cost), candidate.score.mean, cost in candidate.fronts
        if math.isfinite(candidate.score.low):
            plot.plot([x, x], [candidate.score.low, candidate.score.high], color=GREY, linewidth=1.1, zorder=1)
        colour = GOLD if on_front else COLOURS[0]
        plot.scatter([x], [y], s=46 if on_front else 30, color=colour, zorder=4, edgecolor="white", linewidth=0.8)
        if on_front or candidate.rank <= MOST_LABELLED:
            crowd = sum(abs(x - other) <= 0.02 * x and abs(y - height) <= near for other, height in taken)
            taken.append((x, y))
            if crowd < 2:
                side: dict[str, Any] = {"xytext": (-6, 3), "ha": "right"} if crowd else {"xytext": (6, 3), "ha": "left"}
                plot.annotate(str(candidate.trial.number), (x, y), textcoords="offset points", fontsize=8.5, **side)


@styled
def confusions(matrices: dict[int, np.ndarray[Any, Any]], titles: Sequence[str], classes: Sequence[str]) -> Figure:
    """The matrices side by side: share of each actual class; numbers are counts, where there is room."""
    count = len(classes)
    side = 3.1 if count <= 12 else 3.6
    across = min(len(matrices), 4 if count <= 12 else 2)
    down = -(-len(matrices) // across)
    figure = Figure(figsize=(side * across + 0.7, (side + 0.35) * down), layout="constrained")
    for index, (matrix, title) in enumerate(zip(matrices.values(), titles, strict=True)):
        plot = figure.add_subplot(down, across, index + 1)
        total = matrix.sum(1, keepdims=True)
        share = np.divide(matrix, total, out=np.zeros(matrix.shape), where=total > 0)
        plot.imshow(share, cmap="Blues", vmin=0.0, vmax=1.0)
        plot.grid(False)
        plot.set_title(title, fontsize=9.5, pad=6)
        ticks = range(0, count, -(-count // 20))
        size = 8.5 if count <= 12 else 6
        names = [short(classes[tick]) for tick in ticks]
        turned = 90 if max(map(len, names)) > 2 else 0
        plot.set_xticks(list(ticks), names, rotation=turned, fontsize=size)
        plot.set_yticks(list(ticks), names if index % across == 0 else [""] * len(names), fontsize=size)
        plot.set_xlabel("predicted", fontsize=9)
        plot.set_ylabel("actual" if index % across == 0 else "", fontsize=9)
        if count <= 12:
            for row, column in zip(*np.nonzero(matrix), strict=True):
                colour = "white" if share[row, column] > 0.55 else INK
                text = brief(int(matrix[row, column]))
                plot.text(column, row, text, ha="center", va="center", color=colour, fontsize=7.5)
        plot.spines[:].set_visible(True)
        plot.spines[:].set_color(FAINT)
    return figure
