"""The registered model in MLflow: its versions, the alias `champion`, and who held it when."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillframe.config import TrackingConfig
from stillframe.registry import mlflow_versions
from stillframe.tracking.writer import connect

ALIAS = "champion"
LOG = "stillframe.champions"  # tag of the registered model: one line for each time that the alias was given
LONGEST = 60  # lines of it; MLflow keeps 5,000 characters of a tag
DIGEST, EVIDENCE, GATE, VERDICT = (
    f"stillframe.{word}" for word in ("digest", "evidence", "gate", "gate.verdict")
)  # tags of a version; the last two also of its run
SOURCE = "stillframe.source"
LONGEST_TAG = 4900


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

    def model(self) -> Any | None:
        """The registered model; None: no version was ever registered."""
        return mlflow_versions.find(self.client, self.name)

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
            known = ", ".join(sorted((str(one.version) for one in self.versions()), key=int)) or "none"
            raise ValueError(f"{self.name} has no version {number}: there are {known}") from None

    def versions(self) -> list[Any]:
        """All versions."""
        return mlflow_versions.versions_of(self.client, self.name)

    def register(self, run_id: str, digest: str, trained: Path, exported: Path, tags: dict[str, str]) -> str:
        """Make the model of a run a version, or find the one that it is; its number.

        Weights, answers and exported file make a version (`digest`): a run with another threshold is another one.
        """
        number = next((str(one.version) for one in self.versions() if _is(one, run_id, digest)), None)
        if number is None:
            place: dict[str, Any] = {"trained": trained, "exported": exported}
            number = mlflow_versions.create(self.client, self.name, run_id, **place, by="stillframe gate", tags={})
        for key, value in {**tags, DIGEST: digest}.items():
            self.client.set_model_version_tag(self.name, number, key, str(value)[:LONGEST_TAG])
        return number

    def log(self) -> list[Promotion]:
        """Who got the alias when, oldest first."""
        model = self.model()
        lines = str(model.tags.get(LOG, "")).splitlines() if model is not None else []
        return [Promotion(*line.split(" ", 2)) for line in lines if line.count(" ") >= 2]

    def give(self, version: str, how: str) -> None:
        """Give the alias to a version and write it down; one that was set by hand meanwhile is written down, too."""
        log, now = self.log(), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        held = self.champion()
        if held is not None and line_of(log)[-1:] != [str(held.version)]:
            log.append(Promotion(now, str(held.version), "hand"))
        log.append(Promotion(now, version, how))
        self.client.set_registered_model_alias(self.name, ALIAS, version)
        self.client.set_registered_model_tag(self.name, LOG, "\n".join(map(str, log[-LONGEST:])))

    def before(self) -> str:
        """The version that was the champion before this one.

        Raises:
            ValueError: there is no champion, or there was none before it.
        """
        held = self.champion()
        if held is None:
            raise ValueError(f"{self.name} has no champion at {self.uri}: there is nothing to roll back")
        alive = {str(one.version) for one in self.versions()}
        line = [version for version in line_of(self.log()) if version in alive and version != str(held.version)]
        if not line:
            raise ValueError(
                f"{self.name}: version {held.version} is the first champion: name the version to go back to, "
                "`stillframe gate --rollback VERSION`"
            )
        return line[-1]


def _is(known: Any, run_id: str, digest: str) -> bool:
    """Whether a version is this model; one that `stillframe promote` registered has no digest yet."""
    return bool(known.run_id == run_id and known.tags.get(DIGEST, digest) == digest)


def line_of(log: list[Promotion]) -> list[str]:
    """The line of champions, the present one last: a rollback takes those after its version away.

    So two rollbacks go back by two, and do not swing between the last ones.
    """
    line: list[str] = []
    for one in log:
        if one.how == "rollback" and one.version in line:
            del line[len(line) - line[::-1].index(one.version) :]
        elif line[-1:] != [one.version]:
            line.append(one.version)
    return line
