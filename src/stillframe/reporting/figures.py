"""The figures of the report, each a matplotlib `Figure` of its own (no pyplot, no global state).

Colours are those of Okabe and Ito, which colour-blind readers tell apart; lines differ in more than their
colour.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stillframe.paths import replacing
from stillframe.tasks.base import Metric

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7A7A7A", "#000000")
DASHES = ("-", "--", "-.", ":")
INK, FAINT = "#24292f", "#d8dee4"
STYLE: Any = {
    "axes.edgecolor": "#8b949e",
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 10,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "figure.dpi": 144,
    "figure.facecolor": "white",
    "font.size": 9.5,
    "grid.color": FAINT,
    "grid.linewidth": 0.7,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "lines.linewidth": 1.9,
    "text.color": INK,
    "text.parse_math": False,  # a class may be named $5
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
}
MOST_LINES = 8  # classes with a curve of their own; of more, the rest is drawn faintly
MOST_BARS = 24
MORE_LETTERS = ("Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans", "WenQuanYi Zen Hei", "Arial Unicode MS")
MOST_LETTERS = 22  # of a class name on an axis


@contextmanager
def _style() -> Iterator[None]:
    """The style, with the first installed font of those that have more letters than matplotlib's own."""
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    family = ["DejaVu Sans", *(name for name in MORE_LETTERS if name in installed)]
    with rc_context({**STYLE, "font.family": family}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # the page itself has the names
        yield


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Decorates a function that draws: in the house's style, with no change to matplotlib's own settings."""

    @wraps(draw)
    def inside(*arguments: Any, **options: Any) -> Figure:
        with _style():
            return draw(*arguments, **options)

    return inside


def save(figure: Figure, path: Path) -> Path:
    """Write as PNG, whole or not at all; the same figure gives the same bytes."""
    with _style(), replacing(path) as temporary:
        figure.savefig(
            temporary, format="png", metadata={"Software": "stillframe"}, bbox_inches="tight", pad_inches=0.12
        )
    return path


def short(name: str) -> str:
    """A class name that fits on an axis."""
    return name if len(name) <= MOST_LETTERS else name[: MOST_LETTERS - 1] + "…"


def brief(count: int) -> str:
    """A count with its thousands marked; from a million on in millions."""
    return f"{count:,}" if count < 1_000_000 else f"{count / 1e6:,.1f} M"


def percent_axis(axis: Any) -> None:
    """Shares on an axis as per cent."""
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))


@contextmanager
def panel(axes: Axes, title: str, x: str, y: str) -> Iterator[Axes]:
    """Axes with a title and labels."""
    yield axes
    axes.set_title(title, pad=9)
    axes.set_xlabel(x)
    axes.set_ylabel(y)


@styled
def learning_curves(history: pd.DataFrame, best_epoch: int | None = None, metrics: Sequence[Metric] = ()) -> Figure:
    """Loss, scores and learning rate by epoch (from 1), as far as history.csv has them.

    Args:
        history: columns epoch, <split>/loss, <split>/<metric>, lr.
        best_epoch: from 0; marked.
        metrics: whose validation scores are drawn, in a panel for percentages and one for other scores; of the first
            one the train scores, too.
    """
    from matplotlib.ticker import MaxNLocator

    names = list(map(str, history.columns))
    columns = [f"train/{metrics[0].name}" if metrics else "", *(f"val/{metric.name}" for metric in metrics)]
    percents = {f"{split}/{metric.name}" for metric in metrics if metric.percent for split in ("train", "val")}
    candidates = (
        ("Loss", [name for name in names if name.endswith("loss")]),
        ("Scores", [name for name in columns[::-1] if name in names and name in percents][::-1]),
        ("Other scores", [name for name in columns if name in names and name not in percents]),
        ("Learning rate", [name for name in names if name == "lr" or name.startswith("lr/")]),
    )
    panels = [(title, drawn) for title, drawn in candidates if drawn]
    figure = Figure(figsize=(4.0 * max(1, len(panels)), 3.1), layout="constrained")
    for i, (title, drawn) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), i + 1)
        with panel(axes, title, "epoch", ""):
            for j, column in enumerate(drawn):
                line = history[["epoch", column]].dropna()
                axes.plot(
                    line["epoch"] + 1,
                    line[column],
                    DASHES[j % 4],
                    color=COLOURS[j % len(COLOURS)],
                    marker="o" if len(line) <= 20 else "",
                    markersize=3.5,
                    label=column,
                )
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
            if title == "Scores":
                percent_axis(axes.yaxis)
            if best_epoch is not None:
                axes.axvline(best_epoch + 1, color="#8b949e", linewidth=1, linestyle=":", label="epoch that was kept")
            if title != "Learning rate" or len(drawn) > 1:
                axes.legend()
    return figure


@styled
def confusion_matrix(counts_KK: np.ndarray[Any, Any], classes: Sequence[str], title: str = "") -> Figure:
    """Colour: share of each actual class (rows). Numbers: counts, and the share while there is room."""
    count = len(classes)
    side = float(np.clip(0.52 * count + 2.2, 4.2, 12.5))
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.add_subplot()
    total = counts_KK.sum(1, keepdims=True)
    share_KK = np.divide(counts_KK, total, out=np.zeros(counts_KK.shape), where=total > 0)
    image = axes.imshow(share_KK, cmap="Blues", vmin=0.0, vmax=1.0)
    axes.grid(False)
    axes.set_title(title, pad=9)
    step = -(-count // 100)
    size = 9.5 if count <= 12 else max(4.0, 260 / count)
    ticks = range(0, count, step)
    names = [short(classes[tick]) for tick in ticks]
    axes.set_xticks(list(ticks), names, rotation=0 if count <= 4 else 90 if count > 12 else 40, fontsize=size)
    axes.set_yticks(list(ticks), names, fontsize=size)
    if 4 < count <= 12:
        for tick_text in axes.get_xticklabels():
            tick_text.set(ha="right", rotation_mode="anchor")
    axes.set_xlabel("predicted")
    axes.set_ylabel("actual")
    if count <= 30:
        for row, column in np.ndindex(count, count):
            if counts_KK[row, column]:
                text = brief(int(counts_KK[row, column])) + (
                    f"\n{100 * share_KK[row, column]:.0f} %" if count <= 12 else ""
                )
                colour = "white" if share_KK[row, column] > 0.55 else INK
                axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=min(size, 9))
    bar = figure.colorbar(image, ax=axes, shrink=0.75, aspect=28)
    bar.outline.set_visible(False)
    bar.set_label("share of the actual class")
    percent_axis(bar.ax.yaxis)
    return figure


def _curves(axes: Axes, points: pd.DataFrame, order: Sequence[str]) -> None:
    """One line a class; beyond `MOST_LINES` the later ones are faint and share one entry of the legend."""
    present = set(points["class"])
    drawn = [name for name in order if name in present]
    for i, name in reversed(list(enumerate(drawn))):
        line, strong = points[points["class"] == name], i < MOST_LINES
        axes.plot(
            line["x"],
            line["y"],
            DASHES[(i // 4) % 4] if strong else "-",
            color=COLOURS[i % len(COLOURS)] if strong else "#c9d1d9",
            linewidth=1.9 if strong else 0.8,
            label=short(name) if strong else f"{len(drawn) - MOST_LINES} more" if i == MOST_LINES else None,
        )


@styled
def curves(title: str, points: pd.DataFrame) -> Figure:
    """Lines of a task's own: columns x, y and, of several lines, series; shares lie on axes from 0 to 100 %."""
    named = points.rename(columns={"series": "class"}) if "series" in points else points.assign(**{"class": ""})
    figure = Figure(figsize=(5.2, 4.3), layout="constrained")
    axes = figure.add_subplot()
    with panel(axes, title, "", ""):
        _curves(axes, named, list(dict.fromkeys(named["class"])))
    if "series" in points:
        axes.legend()
    return figure


@styled
def roc_and_pr(roc: pd.DataFrame, pr: pd.DataFrame, order: Sequence[str]) -> Figure:
    """ROC and precision-recall curves; the first classes of `order` get a colour of their own."""
    figure = Figure(figsize=(9.4, 4.3), layout="constrained")
    left, right = figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2)
    left.plot([0, 1], [0, 1], color="#8b949e", linewidth=1, linestyle=":")
    with panel(left, "ROC, each class against the rest", "False positive rate", "True positive rate"):
        _curves(left, roc, order)
    with panel(right, "Precision and recall", "Recall", "Precision"):
        _curves(right, pr, order)
    for axes in (left, right):
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
    handles, titles = left.get_legend_handles_labels()  # drawn last to first: the strong lines lie on top
    left.legend(handles[::-1], titles[::-1], loc="lower right")  # for both panels
    return figure


@styled
def reliability(table: pd.DataFrame, unit: str = "images") -> Figure:
    """Share of right answers by confidence, before and after calibration; below, how many have that confidence.

    Args:
        table: columns stage, bin, confidence and count; the one that is left is the share of right answers.
        unit: what is counted.
    """
    (share,) = set(table.columns) - {"stage", "bin", "confidence", "count"}
    figure = Figure(figsize=(5.2, 4.8), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3.2, 1])
    upper.plot([0, 1], [0, 1], color="#8b949e", linewidth=1, linestyle=":", label="perfect")
    stages = [stage for stage in ("before", "after") if (table["stage"] == stage).any()]
    width = 1.0 / max(10, int(table["bin"].max()) + 1) * 0.36 if len(table) else 0.02
    for i, stage in enumerate(stages):
        part = table[table["stage"] == stage]
        style = {"color": COLOURS[1 - i], "label": f"{stage} calibration"}
        upper.plot(part["confidence"], part[share], ("s--", "o-")[i], markersize=4.5, **style)
        lower.bar(part["confidence"] + (i - 0.5) * width, part["count"], width=width, color=COLOURS[1 - i])
    with panel(upper, "Does 80 % confident mean right in 80 %?", "", "share that is right"):
        upper.set(xlim=(0, 1), ylim=(0, 1.02))
        upper.legend(loc="upper left")
        percent_axis(upper.yaxis)
    lower.set(xlabel="confidence", ylabel=unit)
    percent_axis(lower.xaxis)
    return figure


@styled
def per_class_bars(table: pd.DataFrame, metrics: Sequence[Metric], by: Metric) -> Figure:
    """Scores of each class with intervals; of many classes those that are worst by the metric `by`."""
    worst_first = table.sort_values(by.name, ascending=by.maximize, na_position="last")
    rows = worst_first.head(MOST_BARS) if len(table) > MOST_BARS else table
    rows = rows.iloc[::-1]
    figure = Figure(
        figsize=(8.2, 1.2 + 0.62 * len(rows) if len(rows) < 12 else 1.2 + 0.4 * len(rows)),
        layout="constrained",
    )
    axes = figure.add_subplot()
    y = np.arange(len(rows))
    thick = 0.78 / len(metrics)
    for i, metric in enumerate(reversed(metrics)):
        value = rows[metric.name].to_numpy(dtype=float)
        low, high = (rows[f"{metric.name}_{end}"].to_numpy(dtype=float) for end in ("low", "high"))
        axes.barh(
            y + (i - (len(metrics) - 1) / 2) * thick,
            value,
            height=thick - 0.02,
            color=COLOURS[len(metrics) - 1 - i],
            label=metric.title,
            xerr=np.nan_to_num(np.clip(np.stack([value - low, high - value]), 0.0, None)),
            error_kw={"ecolor": INK, "elinewidth": 1, "capsize": 2},
        )
    axes.set_yticks(y, [short(str(name)) for name in rows["class"]])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.grid(False, axis="y")
    if all(metric.percent for metric in metrics):
        axes.set_xlim(0, 1.02)
        percent_axis(axes.xaxis)
    extreme = "lowest" if by.maximize else "highest"
    title = f"The {len(rows)} classes with the {extreme} {by.title}" if len(rows) < len(table) else ""
    axes.set_title(title or "Scores of each class, with 95 % intervals", pad=9)
    handles, titles = axes.get_legend_handles_labels()
    figure.legend(handles[::-1], titles[::-1], loc="outside lower center", ncols=len(metrics))
    return figure


@styled
def class_balance(counts: dict[str, dict[str, int]], classes: Sequence[str], unit: str = "images") -> Figure:
    """Samples of each class in each split; of many classes the largest."""
    total = {name: sum(split.get(name, 0) for split in counts.values()) for name in classes}
    largest = sorted(classes, key=lambda name: -total[name])[:MOST_BARS]
    drawn = (largest if len(classes) > MOST_BARS else list(classes))[::-1]
    figure = Figure(figsize=(8.2, 1.3 + 0.36 * len(drawn)), layout="constrained")
    axes = figure.add_subplot()
    left = np.zeros(len(drawn))
    for i, split in enumerate(counts):
        value = np.array([counts[split].get(name, 0) for name in drawn])
        axes.barh(np.arange(len(drawn)), value, left=left, height=0.62, color=COLOURS[i], label=split)
        left = left + value
    for y, count in enumerate(left):
        axes.text(count + left.max() * 0.01, y, f"{int(count):,}", va="center", fontsize=9)
    axes.set_yticks(np.arange(len(drawn)), [short(name) for name in drawn])
    axes.set(xlabel=unit, xlim=(0, left.max() * 1.1), ylim=(-0.6, len(drawn) - 0.4))
    axes.grid(False, axis="y")
    title = f"{unit.capitalize()} by class and split"
    axes.set_title(title if len(drawn) == len(classes) else f"{title}: the {len(drawn)} largest classes", pad=9)
    figure.legend(loc="outside lower center", ncols=3)
    return figure
