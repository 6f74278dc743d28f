"""The MLflow record. It never stops a training: events are kept locally first and sent by a thread.

Only this file imports mlflow, and only on the process of global rank 0.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stillframe.config import Tracking
from stillframe.fit.journal import Event, Journal
from stillframe.paths import RESUME, read_json, write_json, write_text

JOURNALS = RESUME / "journal"
TAG = "stillframe.journal"
RUN = "STILLFRAME_RUN"  # environment variable: the id of the MLflow run that a sweep has opened for its stages
KIND = {"mlflow.experimentKind": "custom_model_development"}  # the UI then shows runs, metrics and models first
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0


def tracking_uri(tracking: Tracking) -> str:
    """MLFLOW_TRACKING_URI, else `tracking.uri`, else sqlite in this checkout, by absolute path."""
    return os.environ.get("MLFLOW_TRACKING_URI") or tracking.uri or f"sqlite:///{Path('mlflow.db').resolve()}"


def connect(tracking: Tracking, uri: str) -> Any:
    """An MLflow client with bounded requests. A fresh sqlite store is made by one process at a time."""
    os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(max(1, round(tracking.timeout_s)))
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if not uri.startswith("sqlite:///"):
        return MlflowClient(uri)
    with Path(uri.removeprefix("sqlite:///") + ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        client = MlflowClient(uri)
        client.search_experiments(max_results=1)
        return client


def experiment_id(client: Any, name: str, uri: str) -> str:
    """The experiment's id; made if it is not there, with artifacts at an absolute place for a local store."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        store = uri.removeprefix("sqlite:///")
        place = str(Path(store).parent / "mlruns") if uri.startswith("sqlite:///") else None
        try:
            location = Path(place, name).as_uri() if place else None
            return str(client.create_experiment(name, artifact_location=location, tags=KIND))
        except MlflowException:  # another process was faster
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return str(found.experiment_id)


class Sender:
    """Sends a journal's events to MLflow, in order."""

    def __init__(self, journal: Journal, tracking: Tracking, uri: str, experiment: str) -> None:
        self.journal, self.tracking, self.uri, self.experiment = journal, tracking, uri, experiment
        self.client: Any = None
        self.run_id: str | None = None

    def send_all(self) -> bool:
        """Send what is unsent; raises what MLflow raises. False when another process is sending this journal."""
        with self.journal.sending() as mine:
            if not mine:
                return False
            events = self.journal.unsent()
            if not events:
                return True
            self._connect()
            position = 0
            while position < len(events):
                taken = self._send(events[position:])
                position += taken
                self.journal.mark_sent(events[position - 1][0] + 1)
        return True

    def _connect(self) -> None:
        """The run of this journal: by its id, else by its tag, else a new one."""
        if self.client is None:
            self.client = connect(self.tracking, self.uri)
        if self.run_id is not None:
            return
        known = self.journal.path.with_suffix(".run")
        if known.exists():
            self.run_id = known.read_text(encoding="utf-8")
            return
        name = self.journal.path.stem
        place = experiment_id(self.client, self.experiment, self.uri)
        found = self.client.search_runs([place], f"tags.`{TAG}` = '{name}'", max_results=1)
        run = found[0] if found else self.client.create_run(place, tags={TAG: name})
        self.run_id = str(run.info.run_id)
        known.write_text(self.run_id, encoding="utf-8")

    def _send(self, events: list[tuple[int, Event]]) -> int:
        """Send the first event, or the metrics at the front in one request. Returns how many were sent."""
        from mlflow.entities import Metric, Param, RunTag

        kind = events[0][1]["kind"]
        if kind == "metrics":
            front = []
            for _, event in events[:200]:
                if event["kind"] != "metrics":
                    break
                front.append(event)
            metrics = [Metric(k, v, e["time"], e["step"]) for e in front for k, v in e["values"].items()]
            for first in range(0, len(metrics), 1000):
                self.client.log_batch(self.run_id, metrics=metrics[first : first + 1000])
            return len(front)
        event = events[0][1]
        if kind == "params":
            items = [Param(key, str(value)[:6000]) for key, value in event["values"].items()]
            for first in range(0, len(items), 100):
                self.client.log_batch(self.run_id, params=items[first : first + 100])
        elif kind == "tags":
            self.client.log_batch(self.run_id, tags=[RunTag(k, str(v)[:5000]) for k, v in event["values"].items()])
        elif kind == "artifact":
            self._artifact(Path(event["path"]), event["to"])
        elif kind == "status":
            self._status(event["status"], event["time"])
        elif kind == "dataset":
            self._dataset(event)
        return 1

    def _artifact(self, path: Path, to: str | None) -> None:
        if path.is_dir():
            self.client.log_artifacts(self.run_id, str(path), to)
        elif path.exists():
            self.client.log_artifact(self.run_id, str(path), to)
        else:
            self.client.set_tag(self.run_id, "stillframe.missing", f"{path} was gone when it could be sent")

    def _status(self, status: str, when_ms: int) -> None:
        if status == "RUNNING":
            self.client.update_run(self.run_id, status=status)
        else:
            self.client.set_terminated(self.run_id, status, when_ms)

    def _dataset(self, event: Event) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        data = Dataset(event["name"], event["digest"], "local", event["source"], None, event["profile"])
        self.client.log_inputs(self.run_id, [DatasetInput(data, [InputTag("mlflow.data.context", event["context"])])])


class Record:
    """One MLflow run, from any process that knows its journal."""

    def __init__(
        self, name: str, tracking: Tracking, *, uri: str | None = None, say: Callable[[str], None] = print
    ) -> None:
        """`name` is the journal's, and the run's tag; `say` tells the user that the server is away."""
        self.tracking, self.say = tracking, say
        given = os.environ.get(RUN)
        if given:
            name = given
            write_text((JOURNALS / name).with_suffix(".run"), given)
        self.uri = uri or tracking_uri(tracking)
        self.journal = Journal(JOURNALS / f"{name}.jsonl")
        self.journal.mend()
        self.sender = Sender(self.journal, tracking, self.uri, tracking.experiment)
        self.wake, self.stop = threading.Event(), threading.Event()
        self.idle = threading.Event()
        self.error: str | None = None
        self.thread = threading.Thread(target=self._work, name="record", daemon=True)
        write_json(self.journal.path.with_suffix(".json"), {"uri": self.uri, "experiment": tracking.experiment})
        self.thread.start()

    @staticmethod
    def new_name() -> str:
        """A name for a new run's journal."""
        return uuid.uuid4().hex

    def _work(self) -> None:
        pause = FIRST_PAUSE_S
        while not self.stop.is_set():
            self.wake.wait(timeout=pause if self.error else None)
            self.wake.clear()
            if self.stop.is_set():
                return
            try:
                done = self.sender.send_all()
                pause, self.error = FIRST_PAUSE_S, None if done else "another process is sending"
                if done and not self.journal.unsent():
                    self.idle.set()
            except Exception as error:  # whatever a tracking server does, the training goes on
                if self.error is None:
                    self.say(
                        f"MLflow at {self.uri} does not take the record now ({type(error).__name__}); "
                        f"it is kept in {self.journal.path}"
                    )
                self.error = f"{type(error).__name__}: {error}"
                self.sender.client = None
                self.stop.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)

    def _add(self, event: Event) -> None:
        self.idle.clear()
        self.journal.append(event)
        self.wake.set()

    def params(self, values: dict[str, Any]) -> None:
        """Parameters; once a run, MLflow refuses to change them."""
        self._add({"kind": "params", "values": values})

    def tags(self, values: dict[str, Any]) -> None:
        """Tags."""
        self._add({"kind": "tags", "values": values})

    def metrics(self, values: dict[str, float], step: int = 0) -> None:
        """Metrics of a step."""
        self._add({"kind": "metrics", "values": values, "step": step, "time": _now_ms()})

    def artifact(self, path: Path, to: str | None = None) -> None:
        """A file or a folder's contents, under `to`."""
        self._add({"kind": "artifact", "path": str(path.resolve()), "to": to})

    def dataset(self, name: str, digest: str, source: str, context: str, profile: str) -> None:
        """A data set that the run read."""
        self._add(
            {
                "kind": "dataset",
                "name": name,
                "digest": digest[:36],
                "source": source,
                "context": context,
                "profile": profile,
            }
        )

    def status(self, status: str) -> None:
        """RUNNING, FINISHED, FAILED or KILLED."""
        self._add({"kind": "status", "status": status, "time": _now_ms()})

    def close(self) -> str | None:
        """Wait up to `tracking.flush_s` for what is unsent, and return the run's id if the server gave one."""
        deadline = time.monotonic() + self.tracking.flush_s
        while self.journal.unsent() and time.monotonic() < deadline:
            self.wake.set()
            self.idle.wait(timeout=0.2)
        self.stop.set()
        self.wake.set()
        self.thread.join(timeout=self.tracking.timeout_s)
        left = len(self.journal.unsent())
        if left:
            self.say(
                f"{left} entries of the record are kept in {self.journal.path}: `stillframe sync` sends them later"
            )
        return self.sender.run_id


def _now_ms() -> int:
    return int(time.time() * 1000)


def attach(run_json: Path, tracking: Tracking) -> Record:
    """The record of a trained model, for a later stage."""
    facts = read_json(run_json)
    return Record(facts["journal"], tracking, uri=facts["tracking_uri"])


def send_pending(tracking: Tracking, root: Path = JOURNALS) -> dict[str, tuple[int, int]]:
    """Send what earlier stages could not; journal name -> (entries sent now, entries still unsent)."""
    done = {}
    for path in sorted(root.glob("*.jsonl")):
        journal = Journal(path)
        waiting = len(journal.unsent())
        if not waiting:
            continue
        facts = read_json(path.with_suffix(".json"))
        try:
            Sender(journal, tracking, facts["uri"], facts["experiment"]).send_all()
        except Exception as error:  # the server is still away: said, counted, kept
            print(f"{path}: {type(error).__name__}: {error}")
        left = len(journal.unsent())
        done[path.stem] = (waiting - left, left)
    return done


def record_report(run_json: Path, reported: Path, tracking: Tracking, note: str) -> None:
    """Send the page, its pictures and what DVC knows of every stage by now to the model's run.

    `note` is Markdown, the run's description in the UI.
    """
    from stillframe.fit.lineage import dvc_hashes, dvc_tags

    record = attach(run_json, tracking)
    record.tags(dvc_tags(dvc_hashes(without=("report",))))  # its own are those of an earlier run
    record.tags({"mlflow.note.content": note})
    record.artifact(reported, "report")
    if Path("dvc.lock").exists():
        record.artifact(Path("dvc.lock"), "lineage")
    record.close()
