"""The registered model in MLflow: how a version is made, the alias `champion`, and which version had it when.

A version is the weights of a run and, where there is an exported file, that file in the form that MLflow serves.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillframe.config import TrackingConfig
from stillframe.serving import mlflow_flavor
from stillframe.tracking.writer import FILE, connect

ALIAS = "champion"
LOG = "stillframe.champions"  # tag of the registered model: one line for each time that the alias was given
LONGEST = 60  # lines of it; MLflow keeps 5,000 characters of a tag
DIGEST, EVIDENCE, GATE, VERDICT = (
    f"stillframe.{tag}" for tag in ("digest", "evidence", "gate", "gate.verdict")
)  # tags of a version; the last two also of its run
SOURCE = "stillframe.source"
LONGEST_TAG = 4900  # characters; MLflow keeps 5,000 of a tag
WEIGHTS = ("model.safetensors", "model.json")  # under model/ of a run's artifacts; no pickle among them


@dataclass(frozen=True)
class Promotion:
    """One line of the log: the alias was given to a version, by the gate, by a rollback, or by hand."""

    when: str
    version: str
    how: str

    def __str__(self) -> str:
        return f"{self.when} {self.version} {self.how}"


class ModelRegistry:
    """One registered model of one MLflow store."""

    def __init__(self, uri: str, tracking: TrackingConfig, name: str) -> None:
        """Connect.

        Raises:
            ValueError: the server does not answer.
        """
        self.uri, self.name = uri, name
        try:
            self.client: Any = connect(tracking, uri)
            self.client.search_registered_models(max_results=1)
        except Exception as error:  # MLflow raises what its stores and its network raise
            raise ValueError(f"MLflow at {uri} does not answer: {' '.join(str(error).split())[:300]}") from error
        # MLflow's filters know no escape: a name with one kind of quotes stands in the other.
        self._filter = f"name = '{name}'" if "'" not in name else f'name = "{name}"'

    def model(self) -> Any | None:
        """The registered model; None: no version was ever registered."""
        return next(iter(self.client.search_registered_models(self._filter)), None)

    def champion(self) -> Any | None:
        """The version that holds the alias; None: none does."""
        model = self.model()
        version = model.aliases.get(ALIAS) if model is not None else None
        return self.client.get_model_version(self.name, str(version)) if version is not None else None

    def version(self, number: str) -> Any:
        """A version.

        Raises:
            ValueError: there is none of that number; with those that there are.
        """
        from mlflow.exceptions import MlflowException

        try:
            return self.client.get_model_version(self.name, number)
        except MlflowException:
            numbers = ", ".join(sorted((str(version.version) for version in self.versions()), key=int)) or "none"
            raise ValueError(f"{self.name} has no version {number}: there are {numbers}") from None

    def versions(self) -> list[Any]:
        """All versions."""
        return list(self.client.search_model_versions(self._filter))

    def has_weights(self, run_id: str) -> bool:
        """Whether a run's artifacts hold the model (MlflowException: no such run)."""
        return {Path(file.path).name for file in self.client.list_artifacts(run_id, "model")} >= set(WEIGHTS)

    def register(
        self, run_id: str, *, trained: Path, exported: Path, tags: dict[str, str], same: Callable[[Any], bool], by: str
    ) -> str:
        """Make the model of a run a version, or find the version that it already is; its number.

        Args:
            run_id: of the run that the version belongs to. One without the weights gets them (a trial whose training
                came from DVC's cache).
            trained: artifacts/train.
            exported: the exported file, which need not be there. With it the version is what `mlflow models serve`
                takes, and the tag `stillframe.file` names the file among the run's artifacts.
            tags: of the version.
            same: whether an existing version is this model.
            by: the command, for the description of a new registered model.

        Raises:
            ValueError: the file is not one that stillframe exported. Else what MLflow raises.
        """
        # The same model gets no second version: its tags are brought up to date.
        tags = {key: str(value)[:LONGEST_TAG] for key, value in tags.items()}
        number = next((str(version.version) for version in self.versions() if same(version)), None)
        if number is not None:
            for key, value in tags.items():
                self.client.set_model_version_tag(self.name, number, key, value)
            return number
        if self.model() is None:
            self.client.create_registered_model(self.name, description=f"by `{by}`: safetensors and model.json")

        # The version's source lies among the artifacts of its run: the servable form if there is one.
        if not self.has_weights(run_id):
            for file in WEIGHTS:
                self.client.log_artifact(run_id, str(trained / file), "model")
        folder = "model"
        if exported.is_file():
            folder = mlflow_flavor.log(self.client, run_id, exported)
            tags[FILE] = f"{folder}/artifacts/{exported.name}"
        source = f"{self.client.get_run(run_id).info.artifact_uri}/{folder}"
        return str(self.client.create_model_version(self.name, source, run_id, tags=tags).version)

    def log(self) -> list[Promotion]:
        """Who got the alias when, oldest first."""
        model = self.model()
        lines = str(model.tags.get(LOG, "")).splitlines() if model is not None else []
        return [Promotion(*line.split(" ", 2)) for line in lines if line.count(" ") >= 2]

    def give(self, version: str, how: str) -> None:
        """Give the alias to a version and log that; an alias that was set by hand meanwhile is logged, too."""
        # MLflow keeps only who has the alias now; a rollback needs who had it before, so the log is a tag of ours.
        log, now = self.log(), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        champion = self.champion()
        if champion is not None and line_of(log)[-1:] != [str(champion.version)]:
            log.append(Promotion(now, str(champion.version), "hand"))
        log.append(Promotion(now, version, how))
        self.client.set_registered_model_alias(self.name, ALIAS, version)
        self.client.set_registered_model_tag(self.name, LOG, "\n".join(map(str, log[-LONGEST:])))

    def before(self) -> str:
        """The version that was the champion before this one.

        Raises:
            ValueError: there is no champion, or there was none before it.
        """
        champion = self.champion()
        if champion is None:
            raise ValueError(f"{self.name} has no champion at {self.uri}: there is nothing to roll back")
        existing = {str(version.version) for version in self.versions()} - {str(champion.version)}
        earlier = [number for number in line_of(self.log()) if number in existing]
        if not earlier:
            raise ValueError(
                f"{self.name}: version {champion.version} is the first champion: name the version to go back to, "
                "`stillframe gate --rollback VERSION`"
            )
        return earlier[-1]


def line_of(log: list[Promotion]) -> list[str]:
    """The champions in their order, the present one last: a rollback takes those after its version away.

    So two rollbacks go back by two, and do not swing between the last ones.
    """
    line: list[str] = []
    for promotion in log:
        if promotion.how == "rollback" and promotion.version in line:
            del line[len(line) - line[::-1].index(promotion.version) :]
        elif line[-1:] != [promotion.version]:
            line.append(promotion.version)
    return line
