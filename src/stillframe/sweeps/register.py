"""A trial's model in MLflow's model registry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stillframe.inference.load_model import FILE
from stillframe.paths import EXPORT, read_json
from stillframe.registry import mlflow_versions
from stillframe.sweeps.mlflow_record import client_of
from stillframe.sweeps.store import Repeat, Sweep, Trial


def register(sweep: Sweep, trial: Trial, one: Repeat, values: dict[str, Any], trained: Path, name: str) -> str:
    """Make the model of a trial's run a version of the registered model `name`; the version.

    The artifacts are those of the run that trained: the trial's own, or, where the training came from the cache, the
    one in artifacts/train/run.json. Where neither has them, those of `trained` are sent. A model that is registered
    already keeps its version. With an exported file beside `trained` the version is what `mlflow models serve` takes.
    Raises what MLflow raises.
    """
    client = client_of(values, sweep.facts["tracking_uri"])
    for known in mlflow_versions.versions_of(client, name):
        if known.tags.get("git.commit") == one.commit:
            return str(known.version)
    tags = {
        "stillframe.sweep": sweep.facts["name"],
        "stillframe.trial": str(trial.number),
        "stillframe.repeat": str(one.repeat),
        "stillframe.run": one.run_id or "none",
        "stillframe.setting": " ".join(trial.overrides)[:4000],
        "dvc.experiment": str(one.experiment),
        "git.commit": str(one.commit),
    }
    tags |= {key: f"{value:.6g}" for key, value in one.metrics.items() if key.count("/") == 1}
    run_id, file = _run_of_model(client, one, trained), trained.parent / EXPORT.name / FILE.name
    return mlflow_versions.create(
        client, name, run_id, trained=trained, exported=file, by="stillframe promote", tags=tags
    )


def _run_of_model(client: Any, one: Repeat, trained: Path) -> str:
    """The run whose artifacts hold the model; else the trial's own."""
    from mlflow.exceptions import MlflowException

    own = [one.run_id] if one.run_id else []
    given = read_json(trained / "run.json").get("run_id")
    for run_id in [*own, *([given] if given else [])]:
        try:
            if mlflow_versions.has_weights(client, run_id):
                return str(run_id)
        except MlflowException:  # a run of another store, or one that was deleted
            continue
    if not own:
        raise ValueError("the trial has no MLflow run, because the server was away while it ran")
    return str(own[0])
