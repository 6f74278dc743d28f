"""What MLflow holds of a run: enough to rebuild it, or the reason why it is not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

NEEDED = "lineage/params.yaml"
# what went in; pages that name their run; a verdict about the run; what a registration put beside it
NOT_COMPARED = ("lineage", "report", "gate", "serving")


class CannotRebuild(ValueError):
    """The record, or this checkout, lacks what a rebuild needs; the message says what."""


@dataclass(frozen=True)
class RecordedRun:
    """A run's record, brought into a folder.

    Attributes:
        metrics: the last value of each.
        folder: holds lineage/ and the run's other artifacts.
    """

    run_id: str
    tags: dict[str, str]
    metrics: dict[str, float]
    folder: Path

    @property
    def commit(self) -> str:
        """Of the code."""
        return self.tags.get("mlflow.source.git.commit", "none")

    @property
    def patch(self) -> Path | None:
        """The uncommitted edits; None: there were none."""
        path = self.folder / "lineage/uncommitted.diff"
        return path if path.is_file() else None

    def params(self) -> dict[str, Any]:
        """The composed parameters."""
        return _plain(self.folder / NEEDED)

    def lock(self) -> dict[str, Any]:
        """`stages` of dvc.lock; {} when the run has none (its report was never made)."""
        return stages_of(self.folder / "lineage/dvc.lock")


def stages_of(lock: Path) -> dict[str, Any]:
    """`stages` of a dvc.lock; {} when it is not there."""
    if not lock.is_file():
        return {}
    return dict(_plain(lock).get("stages", {}))


def _plain(path: Path) -> dict[str, Any]:
    """A YAML file of the record; what it holds is data, and never executed."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CannotRebuild(f"{path} is not plain YAML: {' '.join(str(error).split())[:300]}") from None
    return values if isinstance(values, dict) else {}


def read(client: Any, run_id: str, folder: Path, *, to_rebuild: bool = True) -> RecordedRun:
    """Bring a run's record into `folder`.

    Args:
        client: MLflow's, of the store.
        run_id: of the run.
        folder: where its artifacts go.
        to_rebuild: whether it has to hold what a rebuild needs.

    Raises:
        CannotRebuild: no such run, it did not finish, or its record lacks commit, parameters or a part of the edits.
    """
    from mlflow.exceptions import MlflowException

    folder.mkdir(parents=True, exist_ok=True)
    try:
        run = client.get_run(run_id)
        tops = [name.path for name in client.list_artifacts(run_id) if name.is_dir]
        for top in tops:
            if to_rebuild and top == "lineage" or top not in NOT_COMPARED:
                client.download_artifacts(run_id, top, str(folder))
    except (MlflowException, OSError) as error:
        raise CannotRebuild(f"run {run_id}: {' '.join(str(error).split())[:300]}") from None
    recorded = RecordedRun(run_id, dict(run.data.tags), dict(run.data.metrics), folder)
    if to_rebuild:
        _check(recorded, str(run.info.status))
    return recorded


def _check(recorded: RecordedRun, status: str) -> None:
    run, tags = f"run {recorded.run_id}", recorded.tags
    if status != "FINISHED":
        raise CannotRebuild(f"{run} is {status}: {tags.get('stillframe.problem', 'it has no result to compare with')}")
    if recorded.commit == "none":
        raise CannotRebuild(f"{run} has no git commit: it was trained outside a git repository")
    if not (recorded.folder / NEEDED).is_file():
        cached = "its training came from DVC's cache: verify the run that trained, artifacts/train/run.json names it"
        why = cached if "stillframe.trial" in tags else "it was not made by the stage train"
        raise CannotRebuild(f"{run} has no {NEEDED}: {why}")
    left_out = [line for line in _lines(recorded.patch) if line.startswith("# left out: ")]
    if left_out:
        named = left_out[0].removeprefix("# left out: ")
        raise CannotRebuild(f"{run}: its uncommitted edits had files too large for the record: {named}")


def _lines(path: Path | None) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path is not None else []
