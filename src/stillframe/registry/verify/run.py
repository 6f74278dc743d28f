"""`stillframe verify RUN`: rebuild, compare, say what differs."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from stillframe.config import TrackingConfig, read_params
from stillframe.paths import TRAIN, WORK, read_json, write_json
from stillframe.registry.verify import differences, rebuild, record
from stillframe.registry.verify.differences import ValueDifference, VerifyReport
from stillframe.registry.verify.record import CannotRebuild
from stillframe.tracking.record import tracking_uri
from stillframe.tracking.writer import connect

OUT = Path("artifacts/verify")
LONGEST_TABLE = 30  # rows of a table; the file has all


def store_and_run(run_id: str | None, tracking: TrackingConfig, trained: Path = TRAIN) -> tuple[str, str]:
    """(MLflow's URI, run id): the run that is named, in the configured store; else the one of the checkout, in its own.

    Raises:
        FileNotFoundError: nothing was trained here. ValueError: the record of it was not sent yet.
    """
    if run_id is not None:
        return tracking_uri(tracking), run_id
    origin = read_json(trained / "run.json")
    if not origin["run_id"]:
        raise ValueError(f"{trained / 'run.json'} names no MLflow run: `stillframe sync`, then name the run")
    return str(origin["tracking_uri"]), str(origin["run_id"])


def verify(run_id: str | None, *, within: float = 0.0, keep: bool = False) -> tuple[str, VerifyReport]:
    """Rebuild a run in a clean clone below `.work`, and compare.

    Args:
        run_id: None: the run of the checkout.
        within: how far metrics may lie apart; see `differences.compare`.
        keep: leave the clone where it is.

    Returns:
        The run's id, and what differs; `OUT`/<run>.json holds it, too.

    Raises:
        CannotRebuild: with the reason.
    """
    root = Path.cwd()
    tracking: TrackingConfig
    (tracking,) = read_params("tracking")
    uri, run_id = store_and_run(run_id, tracking)
    (root / WORK).mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="verify-", dir=root / WORK))
    try:
        comparison = _verify_in(folder, root, uri, run_id, tracking, within)
    finally:
        if not keep:
            shutil.rmtree(folder)
    if keep:
        print(f"kept: {folder / 'checkout'}")
    facts = {"run_id": run_id, "equal": comparison.equal, "within": within, "compared": comparison.compared}
    listed = {
        name: [asdict(difference) for difference in getattr(comparison, name)] for name in ("results", "surroundings")
    }
    write_json(root / OUT / f"{run_id}.json", {**facts, **listed})
    return run_id, comparison


def _verify_in(
    folder: Path, root: Path, uri: str, run_id: str, tracking: TrackingConfig, within: float
) -> VerifyReport:
    """Clone, rebuild and compare in a temporary folder."""
    recorded = record.read(connect(tracking, uri), run_id, folder / "recorded")
    print(f"run {run_id}: commit {recorded.commit[:10]}{' and its uncommitted edits' if recorded.patch else ''}")
    checkout = folder / "checkout"
    rebuild.clone(root, recorded, checkout)
    outs = rebuild.link_data(root, recorded, checkout, folder / "cache")
    print(f"from DVC's cache: {', '.join(outs) or 'nothing, all stages run'}; the rest runs again:")
    log, store = folder / "log.txt", f"sqlite:///{folder / 'mlflow.db'}"
    print(f"  tail -f {log}", flush=True)
    rebuild.repro(root, recorded, checkout, outs, store, log)
    again = read_json(checkout / TRAIN / "run.json")
    rebuilt = record.read(connect(tracking, store), str(again["run_id"]), folder / "rebuilt", to_rebuild=False)
    return differences.compare(recorded, rebuilt, record.stages_of(checkout / "dvc.lock"), within)


def show(run_id: str, comparison: VerifyReport) -> None:
    """Print what differs, results first."""
    counted = ", ".join(f"{count} {kind}" for kind, count in comparison.compared.items())
    _table("results that differ", comparison.results)
    _table("what it was made with differs", comparison.surroundings)
    if not comparison.compared["DVC hashes"]:
        print("the record has no dvc.lock (its report was never made): DVC's hashes were not compared")
    verdict = "equal" if comparison.equal else f"{len(comparison.results)} differ"
    print(f"run {run_id}: {verdict} ({counted} compared); {OUT / run_id}.json")


def _table(title: str, rows: Sequence[ValueDifference]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    if not rows:
        return
    table = Table("", "", "recorded", "rebuilt", title=title)
    for row in rows[:LONGEST_TABLE]:
        table.add_row(*map(escape, (row.kind, row.name, row.recorded, row.rebuilt)))
    if len(rows) > LONGEST_TABLE:
        table.add_row("", f"and {len(rows) - LONGEST_TABLE} more", "", "")
    Console().print(table)


__all__ = ["CannotRebuild", "show", "verify"]
