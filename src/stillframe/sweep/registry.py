"""A trial's model in MLflow's model registry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stillframe.paths import EXPORT, read_json
from stillframe.serve import flavour
from stillframe.ship.opening import FILE
from stillframe.sweep.record import client_of
from stillframe.sweep.store import Repeat, Sweep, Trial

MODEL = ("model.safetensors", "model.json")  # under model/ of a run's artifacts; no pickle among them


def register(sweep: Sweep, trial: Trial, one: Repeat, values: dict[str, Any], trained: Path, name: str) -> str:
    """Make the model of a trial's run a version of the registered model `name`; the version.

    The artifacts are those of the run that trained: the trial's own, or, where the training came from the cache, the
    one in artifacts/train/run.json. Where neither has them, those of `trained` are sent. A model that is registered
    already keeps its version. With an exported file beside `trained` the version is what `mlflow models serve` takes.
    Raises what MLflow raises.
    """
    client = client_of(values, sweep.facts["tracking_uri"])
    run = _run_of_model(client, one, trained)
    try:
        client.get_registered_model(name)
    except _exception():
        client.create_registered_model(name, description="by `stillframe promote`: safetensors and model.json")
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
    for known in versions_of(client, name):
        if known.tags.get("git.commit") == one.commit:
            return str(known.version)
    file = trained.parent / EXPORT.name / FILE.name
    place = flavour.log(client, run.info.run_id, file) if file.is_file() else "model"
    version = client.create_model_version(name, f"{run.info.artifact_uri}/{place}", run.info.run_id, tags=tags)
    return str(version.version)


def versions_of(client: Any, name: str) -> list[Any]:
    """All versions of a registered model."""
    words = f"name = '{name}'" if "'" not in name else f'name = "{name}"'
    return list(client.search_model_versions(words))


def _exception() -> type[Exception]:
    from mlflow.exceptions import MlflowException

    kind: type[Exception] = MlflowException
    return kind


def _run_of_model(client: Any, one: Repeat, trained: Path) -> Any:
    """The run whose artifacts hold the model; the trial's own gets it where none has it."""
    own = [one.run_id] if one.run_id else []
    given = read_json(trained / "run.json").get("run_id")
    for run_id in [*own, *([given] if given else [])]:
        try:
            listed = {Path(file.path).name for file in client.list_artifacts(run_id, "model")}
        except _exception():  # a run of another store, or one that was deleted
            continue
        if listed >= set(MODEL):
            return client.get_run(run_id)
    if not own:
        raise ValueError("the trial has no MLflow run, because the server was away while it ran")
    for file in MODEL:
        client.log_artifact(own[0], str(trained / file), "model")
    return client.get_run(own[0])
