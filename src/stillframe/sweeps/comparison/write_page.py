"""What a sweep says when it is over: compare.html, table.csv and two pictures, in the sweep's folder."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from stillframe.evaluation.write_tables import write_csv
from stillframe.paths import write_text
from stillframe.reporting.figures import save
from stillframe.reporting.inputs import data_uri
from stillframe.sweeps import store
from stillframe.sweeps.comparison import figures
from stillframe.sweeps.comparison.candidates import SweepComparison
from stillframe.sweeps.comparison.disagreement import Disagreement, disagreement
from stillframe.sweeps.comparison.importance import importance
from stillframe.sweeps.comparison.page import render, table
from stillframe.sweeps.store import Sweep

SENT = ("parallel_coordinates", "importance")  # figures that also lie beside the page


def pictures(sweep: Sweep) -> list[Path]:
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
        axis.values.get(one.number) for one in findings.finished for axis in findings.axes
    ):
        drawn["parallel_coordinates"] = figures.parallel_coordinates(findings)
        drawn["effects"] = figures.effects(findings)
    if shares:
        drawn["importance"] = figures.importance_bars(shares)
    if apart.matrices and len(apart.classes) <= 200:
        titles = [f"{one.rank}. trial {one.trial.number}" for one in apart.top]
        drawn["confusions"] = figures.confusions(apart.matrices, titles, apart.classes)
    return drawn


def find(name: str | None, root: Path = Path("sweeps")) -> Sweep:
    """A sweep by its name or its folder; without one the newest.

    Raises:
        FileNotFoundError: there is none; the message names those that there are.
    """
    if name is None:
        return store.newest(root)
    folder = Path(name)
    return Sweep.read(folder if (folder / "sweep.json").exists() else root / name)
