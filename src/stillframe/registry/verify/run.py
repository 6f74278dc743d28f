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
SHOWN = 30  # rows of a table; the file has all


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
    place = Path(tempfile.mkdtemp(prefix="verify-", dir=root / WORK))
    try:
        found = _in(place, root, uri, run_id, tracking, within)
    finally:
        if not keep:
            shutil.rmtree(place)
    if keep:
        print(f"kept: {place / 'checkout'}")
    facts = {"run_id": run_id, "equal": found.equal, "within": within, "compared": found.compared}
    listed = {name: [asdict(one) for one in getattr(found, name)] for name in ("results", "surroundings")}
    write_json(root / OUT / f"{run_id}.json", {**facts, **listed})
    return run_id, found


def _in(place: Path, root: Path, uri: str, run_id: str, tracking: TrackingConfig, within: float) -> VerifyReport:
    """Everything that takes place in the temporary folder."""
    recorded = record.read(connect(tracking, uri), run_id, place / "recorded")
    print(f"run {run_id}: commit {recorded.commit[:10]}{' and its uncommitted edits' if recorded.patch else ''}")
    folder = place / "checkout"
    rebuild.clone(root, recorded, folder)
    outs = rebuild.link_data(root, recorded, folder, place / "cache")
    print(f"from DVC's cache: {', '.join(outs) or 'nothing, all stages run'}; the rest runs again:")
    log, store = place / "log.txt", f"sqlite:///{place / 'mlflow.db'}"
    print(f"  tail -f {log}", flush=True)
    rebuild.repro(root, recorded, folder, outs, store, log)
    again = read_json(folder / TRAIN / "run.json")
    rebuilt = record.read(connect(tracking, store), str(again["run_id"]), place / "rebuilt", to_rebuild=False)
    return differences.compare(recorded, rebuilt, record.stages_of(folder / "dvc.lock"), within)


def show(run_id: str, found: VerifyReport) -> None:
    """Print what differs, results first."""
    counted = ", ".join(f"{count} {kind}" for kind, count in found.compared.items())
    _table("results that differ", found.results)
    _table("what it was made with differs", found.surroundings)
    if not found.compared["DVC hashes"]:
        print("the record has no dvc.lock (its report was never made): DVC's hashes were not compared")
    verdict = "equal" if found.equal else f"{len(found.results)} differ"
    print(f"run {run_id}: {verdict} ({counted} compared); {OUT / run_id}.json")


def _table(title: str, rows: Sequence[ValueDifference]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    if not rows:
        return
    table = Table("", "", "recorded", "rebuilt", title=title)
    for one in rows[:SHOWN]:
        table.add_row(*map(escape, (one.kind, one.name, one.recorded, one.rebuilt)))
    if len(rows) > SHOWN:
        table.add_row("", f"and {len(rows) - SHOWN} more", "", "")
    Console().print(table)


__all__ = ["CannotRebuild", "show", "verify"]
