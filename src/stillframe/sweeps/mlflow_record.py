"""The sweep in MLflow: a parent run, and one child run for each run of the DAG. It never stops a sweep."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import psutil

from stillframe import config
from stillframe.config import TrackingConfig
from stillframe.sweeps.store import Repeat, Sweep, Trial
from stillframe.tracking.record import RUN, tracking_uri
from stillframe.tracking.writer import connect, experiment_id

Result = TypeVar("Result")
ENDED = {"finished": "FINISHED", "failed": "FAILED", "pruned": "KILLED", "stopped": "KILLED"}
_clients: dict[str, Any] = {}  # by URI: the import and the connection cost more than all that is sent


def _tracking(values: dict[str, Any]) -> TrackingConfig:
    tracking: TrackingConfig = config.build("tracking", values["tracking"])
    return tracking


def store_of(values: dict[str, Any]) -> str:
    """URI of the tracking store that composed parameters name."""
    return tracking_uri(_tracking(values))


def client_of(values: dict[str, Any], uri: str) -> Any:
    """MLflow's client of a store, connected once a process."""
    if uri not in _clients:
        _clients[uri] = connect(_tracking(values), uri)
    return _clients[uri]


def _tried(what: str, send: Callable[[], Result]) -> Result | None:
    """Send; whatever a tracking server does, the sweep goes on, and what was not recorded is printed."""
    try:
        return send()
    except Exception as error:
        print(f"MLflow did not take {what}: {type(error).__name__}: {error}", file=sys.stderr)
        return None


def tags_of_this_process() -> dict[str, str]:
    """Host and process id: a later sweep finds the runs whose process has died by them."""
    return {"stillframe.host": platform.node(), "stillframe.pid": str(os.getpid())}


class TrialRun:
    """The MLflow run of one run of the DAG; its stages write into it, too."""

    def __init__(self, sweep: Sweep, number: int, repeat: int, name: str, values: dict[str, Any]) -> None:
        self.sweep, self.number, self.name, self.values = sweep, number, name, values
        # A trial that is run again goes on with its run.
        before = sweep.trial(number)
        repeats = before.repeats if before else []
        run_ids = [each.run_id for each in repeats if each.repeat == repeat and each.run_id]
        self.run_id: str | None = run_ids[0] if run_ids else _tried("the start of a trial", self._open)

    @property
    def client(self) -> Any:
        """Connected once a process."""
        return client_of(self.values, self.sweep.facts["tracking_uri"])

    def _open(self) -> str:
        tags = {
            "mlflow.runName": self.name,
            "mlflow.source.name": "python -m stillframe.sweep",
            "mlflow.source.git.commit": self.sweep.facts["commit"],
            "stillframe.sweep": self.sweep.facts["name"],
            "stillframe.trial": str(self.number),
            **tags_of_this_process(),
        }
        if self.sweep.facts["parent_run"]:
            tags["mlflow.parentRunId"] = self.sweep.facts["parent_run"]
        experiment = experiment_id(self.client, _tracking(self.values).experiment, self.sweep.facts["tracking_uri"])
        return str(self.client.create_run(experiment, tags=tags).info.run_id)

    def environment(self) -> dict[str, str]:
        """For the stages: where they write."""
        env = {"MLFLOW_TRACKING_URI": self.sweep.facts["tracking_uri"]}
        return env | ({RUN: self.run_id} if self.run_id else {})

    def close(self, repeat: Repeat, folder: Path) -> None:
        """Add what cached stages did not send, and end the run."""
        if self.run_id is not None:
            _tried("the end of a trial", lambda: self._close(repeat, folder))

    def _close(self, repeat: Repeat, folder: Path) -> None:
        from mlflow.entities import Metric, Param, RunTag

        stages = {"val": "validate", "test": "evaluate", "train": "train"}
        now = int(repeat.seconds)
        # Stages that DVC took from its cache did not run, and so sent nothing: their metrics and params are added here.
        unsent = {name: value for name, value in repeat.metrics.items() if stages[name.split("/")[0]] not in repeat.ran}
        metrics = [Metric(name, value, now, 0) for name, value in unsent.items()]
        params = [] if "train" in repeat.ran else [Param(k, str(v)[:6000]) for k, v in config.flat(self.values).items()]
        tags = {
            "stillframe.state": repeat.state,
            "stillframe.ran": " ".join(repeat.ran) or "nothing: all from the cache",
            "stillframe.dvc_experiment": repeat.experiment if repeat.state == "finished" else "none",
            "stillframe.problem": repeat.error[-4000:],
        }
        tagged = [RunTag(name, str(value)) for name, value in tags.items() if value]
        for first in range(0, max(1, len(params)), 100):
            self.client.log_batch(self.run_id, params=params[first : first + 100])
        self.client.log_batch(self.run_id, metrics=metrics, tags=tagged)
        if repeat.state == "failed" and (folder / "log.txt").exists():
            self.client.log_artifact(self.run_id, str(folder / "log.txt"))
        self.client.set_terminated(self.run_id, ENDED[repeat.state])


class SweepRun:
    """The run that holds the sweep: its table, its best trial, its pictures."""

    def __init__(self, sweep: Sweep, values: dict[str, Any]) -> None:
        self.sweep, self.values = sweep, values

    @property
    def client(self) -> Any:
        """Connected once a process."""
        return client_of(self.values, self.sweep.facts["tracking_uri"])

    def open(self) -> str | None:
        """The run's id: a new one, or that of the sweep that goes on."""
        return _tried("the start of the sweep", self._open)

    def _open(self) -> str:
        facts = self.sweep.facts
        if facts["parent_run"]:
            self.client.update_run(facts["parent_run"], status="RUNNING")
            self._end_orphans()
            return str(facts["parent_run"])
        tags = {
            "mlflow.runName": f"sweep {facts['name']}",
            "mlflow.source.name": "python -m stillframe.sweep",
            "mlflow.source.git.commit": facts["commit"],
            "stillframe.sweep": facts["name"],
            "stillframe.command": facts["command"][:5000],
            **tags_of_this_process(),
        }
        experiment = experiment_id(self.client, _tracking(self.values).experiment, facts["tracking_uri"])
        return str(self.client.create_run(experiment, tags=tags).info.run_id)

    def _end_orphans(self) -> None:
        """Runs of this sweep whose process was killed stay RUNNING in MLflow: end them."""
        experiment = experiment_id(self.client, _tracking(self.values).experiment, self.sweep.facts["tracking_uri"])
        condition = f"tags.`stillframe.sweep` = '{self.sweep.facts['name']}' and attributes.status = 'RUNNING'"
        for run in self.client.search_runs([experiment], condition):
            tags = run.data.tags
            mine = tags.get("stillframe.host") == platform.node() and "stillframe.trial" in tags
            if mine and not psutil.pid_exists(int(tags["stillframe.pid"])):
                self.client.set_tag(run.info.run_id, "stillframe.state", "stopped")
                self.client.set_terminated(run.info.run_id, "KILLED")

    def close(self, state: str, trials: list[Trial], files: list[Path]) -> None:
        """Send the table, the best values and the pictures, and end the run."""
        if self.sweep.facts["parent_run"]:
            _tried("the end of the sweep", lambda: self._close(state, trials, files))

    def _close(self, state: str, trials: list[Trial], files: list[Path]) -> None:
        from mlflow.entities import Metric, RunTag

        run, best = self.sweep.facts["parent_run"], self.sweep.best()
        self._end_orphans()
        counted = {f"trials/{name}": [trial.state for trial in trials].count(name) for name in ENDED}
        metrics = [Metric(name, value, 0, 0) for name, value in counted.items()]
        tags = [RunTag("stillframe.state", state)]
        if best is not None:
            metrics += [Metric(f"best/{k}", v, 0, 0) for k, v in zip(self.sweep.objectives, best.values, strict=True)]
            tags += [
                RunTag("stillframe.best_trial", str(best.number)),
                RunTag("stillframe.best_overrides", " ".join(best.overrides)[:4000]),
                RunTag("stillframe.best_run", best.repeats[0].run_id or ""),
            ]
        self.client.log_batch(run, metrics=metrics, tags=tags)
        for path in files:
            self.client.log_artifact(run, str(path), "sweep")
        self.client.set_terminated(run, ENDED[state])
