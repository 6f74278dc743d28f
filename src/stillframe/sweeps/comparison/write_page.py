"""The results of a sweep in its folder: compare.html, table.csv and two figures."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from stillframe.evaluation.write_tables import write_csv
from stillframe.paths import write_text
from stillframe.reporting.figures import save
from stillframe.reporting.inputs import data_uri
from stillframe.sweeps.comparison import figures
from stillframe.sweeps.comparison.candidates import SweepComparison
from stillframe.sweeps.comparison.disagreement import Disagreement, disagreement
from stillframe.sweeps.comparison.importance import importance
from stillframe.sweeps.comparison.page import render, table
from stillframe.sweeps.store import Sweep

SENT = ("parallel_coordinates", "importance")  # figures that also lie beside the page


def write(sweep: Sweep) -> list[Path]:
    """Write compare.html, table.csv and, where the trials allow them, parallel_coordinates.png and importance.png.

    Returns:
        The files that were written, the page first.

    Raises:
        ValueError: no trial has begun, or a file of a trial is damaged.
    """
    findings = SweepComparison(sweep)
    if not findings.trials:
        raise ValueError(f"{sweep.folder}: no trial has begun yet")
    apart = disagreement(findings)
    shares, note = importance(findings)
    drawn = _draw(findings, apart, shares)
    folder = sweep.folder / "figures"
    uris, sent = {}, []
    for name, figure in drawn.items():
        path = save(figure, (sweep.folder if name in SENT else folder) / f"{name}.png")
        uris[name] = data_uri(path.read_bytes(), "png")
        sent += [path] if name in SENT else []
    for name in SENT:
        if name not in drawn:
            (sweep.folder / f"{name}.png").unlink(missing_ok=True)  # of an earlier state of the sweep
    write_csv(sweep.folder / "table.csv", table(findings))
    write_text(sweep.folder / "compare.html", render(findings, apart, uris, note))
    return [sweep.folder / "compare.html", sweep.folder / "table.csv", *sent]


def _draw(findings: SweepComparison, apart: Disagreement, shares: dict[str, float]) -> dict[str, Figure]:
    """The figures for which there is something to draw."""
    drawn = {}
    if findings.ranked:
        drawn["cost"] = figures.cost(findings)
    if len(findings.ranked) > 1 and any(
        axis.values.get(trial.number) for trial in findings.finished for axis in findings.axes
    ):
        drawn["parallel_coordinates"] = figures.parallel_coordinates(findings)
        drawn["effects"] = figures.effects(findings)
    if shares:
        drawn["importance"] = figures.importance_bars(shares)
    if apart.matrices and len(apart.classes) <= 200:
        titles = [f"{candidate.rank}. trial {candidate.trial.number}" for candidate in apart.top]
        drawn["confusions"] = figures.confusions(apart.matrices, titles, apart.classes)
    return drawn
