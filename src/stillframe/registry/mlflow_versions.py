"""A version in MLflow's registry: the weights of a run, and its exported file in the form that MLflow serves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stillframe.serving import mlflow_flavor
from stillframe.tracking.writer import FILE

WEIGHTS = ("model.safetensors", "model.json")  # under model/ of a run's artifacts; no pickle among them


def _named(name: str) -> str:
    return f"name = '{name}'" if "'" not in name else f'name = "{name}"'


def find(client: Any, name: str) -> Any | None:
    """The registered model; None: no version of that name was ever registered."""
    return next(iter(client.search_registered_models(_named(name))), None)


def versions_of(client: Any, name: str) -> list[Any]:
    """All versions of a registered model."""
    return list(client.search_model_versions(_named(name)))


def has_weights(client: Any, run_id: str) -> bool:
    """Whether a run's artifacts hold the model (MlflowException: no such run)."""
    return {Path(file.path).name for file in client.list_artifacts(run_id, "model")} >= set(WEIGHTS)


def create(client: Any, name: str, run_id: str, *, trained: Path, exported: Path, by: str, tags: dict[str, str]) -> str:
    """Make the model of a run a version of the registered model `name`; the version.

    A run that lacks the weights gets them (a trial whose training came from DVC's cache). With an exported file the
    version is what `mlflow models serve` takes, and its tag `stillframe.file` names the file among the run's artifacts.

    Args:
        client: of the store.
        name: of the registered model; made where it is not there.
        run_id: of the run that the version belongs to.
        trained: artifacts/train.
        exported: the exported file, which need not be there.
        by: the command, for the description of a new registered model.
        tags: of the version.

    Raises:
        ValueError: the file is not one that stillframe exported. Else what MLflow raises.
    """
    if find(client, name) is None:
        client.create_registered_model(name, description=f"by `{by}`: safetensors and model.json")
    if not has_weights(client, run_id):
        for file in WEIGHTS:
            client.log_artifact(run_id, str(trained / file), "model")
    place = "model"
    if exported.is_file():
        place = mlflow_flavor.log(client, run_id, exported)
        tags = {**tags, FILE: f"{place}/artifacts/{exported.name}"}
    address = f"{client.get_run(run_id).info.artifact_uri}/{place}"
    return str(client.create_model_version(name, address, run_id, tags=tags).version)
