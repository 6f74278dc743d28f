"""Sends a record's journal to MLflow; the only file that imports mlflow, and a program of its own.

    python -m stillframe.tracking.writer

takes one JSON request a line and answers each with one line. A stage starts it first of all: mlflow needs seconds to
import, which pass on another core while the stage imports torch, and no training step waits for its interpreter.
It ends when its stage does, however that ends: the pipe is closed then.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from filelock import FileLock, Timeout

from stillframe.config import TrackingConfig
from stillframe.tracking.journal import Event, Journal

TAG = "stillframe.journal"
STORE_TIMEOUT_S = 300.0  # a fresh store takes 3 to 20 s on two busy cores, and several processes take turns
# What the experiment is, for a UI that asks. MLflow 3.17's own does not: its mode comes from the address, see page_of.
KIND = {"mlflow.experimentKind": "custom_model_development"}


def connect(tracking: TrackingConfig, uri: str) -> Any:
    """An MLflow client with bounded requests. A fresh sqlite store is made by one process at a time."""
    os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(max(1, round(tracking.timeout_s)))
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if not uri.startswith("sqlite:///"):
        return MlflowClient(uri)
    # Of processes that create one sqlite store at once most die, so they take turns. What takes seconds without
    # touching the store, the import of sqlalchemy, is done before, or each would wait for the imports of all others.
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401

    lock = FileLock(uri.removeprefix("sqlite:///") + ".lock", timeout=STORE_TIMEOUT_S)
    try:
        with lock:
            client = MlflowClient(uri)
            client.search_experiments(max_results=1)  # the tables are created at the first question
            return client
    except Timeout:
        raise TimeoutError(
            f"{lock.lock_file}: another process has been opening this store for {STORE_TIMEOUT_S:.0f} s: "
            "end it if it hangs (`fuser` names it); its lock goes with it"
        ) from None


FILE = "stillframe.file"  # tag of a version: the exported file that the gate judged, among its run's artifacts


def download(client: Any, model: str, to: Path) -> Path:
    """The exported file of a run or of a registered model, in a folder of its own below `to`.

    Args:
        client: of the store.
        model: `runs:/<run id>[/<artifact>]`, `models:/<name>/<version>` or `models:/<name>@<alias>`.
        to: a folder.

    Raises:
        FileNotFoundError: the store has no such run, version or artifact.
        ValueError: not of one of these forms.
    """
    from mlflow.exceptions import MlflowException

    kind, _, rest = model.partition(":/")
    run_id, _, artifact = rest.partition("/")
    try:
        if kind == "models":
            name, has_alias, alias = rest.partition("@")
            name, _, version = (name, "", "") if has_alias else rest.rpartition("/")
            if not name or not (alias or version):
                raise ValueError(f"{model}: not of the form models:/<name>/<version> or models:/<name>@<alias>")
            get_version = client.get_model_version_by_alias if has_alias else client.get_model_version
            version_facts = get_version(name, alias or version)
            run_id, artifact = str(version_facts.run_id), version_facts.tags.get(FILE, "")
        artifact = artifact or "export/model.onnx"
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # of one file, on stderr
        folder = to / run_id
        folder.mkdir(parents=True, exist_ok=True)
        return Path(client.download_artifacts(run_id, artifact, str(folder)))
    except (MlflowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise FileNotFoundError(f"{model}: {artifact or 'no such model'}: {reason} (was it exported?)") from None


def mlflow_name(name: str) -> str:
    """The name of a metric or parameter as MLflow takes it: "_" for other characters, as in the name of a class."""
    return re.sub(r"[^/\w.\- :]", "_", name)


def experiment_id(client: Any, name: str, uri: str) -> str:
    """The experiment's id; made if it is not there, with artifacts at an absolute place for a local store."""
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        store = uri.removeprefix("sqlite:///")
        artifacts = str(Path(store).parent / "mlruns") if uri.startswith("sqlite:///") else None
        try:
            location = Path(artifacts, name).as_uri() if artifacts else None
            return str(client.create_experiment(name, artifact_location=location, tags=KIND))
        except MlflowException:  # another process has created it meanwhile
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                raise
    return str(experiment.experiment_id)


class MlflowWriter:
    """Sends a journal's events to MLflow, in order."""

    def __init__(self, journal: Journal, tracking: TrackingConfig, uri: str, experiment: str) -> None:
        self.journal, self.tracking, self.uri, self.experiment = journal, tracking, uri, experiment
        self.client: Any = None
        self.run_id: str | None = None

    def forget(self) -> None:
        """Connect anew next time."""
        self.client = None

    def close(self) -> None:
        """Nothing to end: this sender is of the calling process."""

    def send_all(self) -> bool:
        """Send what is unsent; raises what MLflow raises. False when another process is sending this journal."""
        with self.journal.sending() as mine:
            if not mine:
                return False
            events = self.journal.unsent()
            if not events:
                return True
            self._connect()
            # Marked after each request, so that a crash sends at most one request again; MLflow takes that.
            position = 0
            while position < len(events):
                taken = self._send(events[position:])
                position += taken
                self.journal.mark_sent(events[position - 1][0] + 1)
        return True

    def _connect(self) -> None:
        """The run of this journal: by its id, else by its tag, else a new one."""
        # The tag finds the run of a process that died between creating it and writing its id down.
        if self.client is None:
            self.client = connect(self.tracking, self.uri)
        if self.run_id is not None:
            return
        id_file = self.journal.path.with_suffix(".run")
        if id_file.exists():
            self.run_id = id_file.read_text(encoding="utf-8")
            return
        name = self.journal.path.stem
        experiment = experiment_id(self.client, self.experiment, self.uri)
        runs = self.client.search_runs([experiment], f"tags.`{TAG}` = '{name}'", max_results=1)
        run = runs[0] if runs else self.client.create_run(experiment, tags={TAG: name})
        self.run_id = str(run.info.run_id)
        id_file.write_text(self.run_id, encoding="utf-8")

    def _send(self, events: list[tuple[int, Event]]) -> int:
        """Send the first event, or the metrics at the front in one request. Returns how many were sent."""
        from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

        kind = events[0][1]["kind"]
        if kind == "metrics":  # most events are, and a request each would be slow
            front = []
            for _, event in events[:200]:
                if event["kind"] != "metrics":
                    break
                front.append(event)
            metrics = [Metric(mlflow_name(k), v, e["time"], e["step"]) for e in front for k, v in e["values"].items()]
            for first in range(0, len(metrics), 1000):  # MLflow takes 1,000 metrics and 100 params in a request
                self.client.log_batch(self.run_id, metrics=metrics[first : first + 1000])
            return len(front)
        event = events[0][1]
        if kind == "params":  # values and tags are cut to the lengths that every store of MLflow takes
            values = {mlflow_name(key): str(value)[:6000] for key, value in event["values"].items()}
            items = [Param(key, text) for key, text in values.items()]
            for first in range(0, len(items), 100):
                self.client.log_batch(self.run_id, params=items[first : first + 100])
        elif kind == "tags":
            self.client.log_batch(self.run_id, tags=[RunTag(k, str(v)[:5000]) for k, v in event["values"].items()])
        elif kind == "artifact":
            path = Path(event["path"])
            if path.is_dir():
                self.client.log_artifacts(self.run_id, str(path), event["to"])
            elif path.exists():
                self.client.log_artifact(self.run_id, str(path), event["to"])
            else:  # a later `dvc repro` deleted it while the server was away
                self.client.set_tag(self.run_id, "stillframe.missing", f"{path} was gone when it could be sent")
        elif kind == "status" and event["status"] == "RUNNING":
            self.client.update_run(self.run_id, status="RUNNING")
        elif kind == "status":
            self.client.set_terminated(self.run_id, event["status"], event["time"])
        elif kind == "dataset":
            dataset = Dataset(event["name"], event["digest"], "local", event["source"], None, event["profile"])
            tag = InputTag("mlflow.data.context", event["context"])
            self.client.log_inputs(self.run_id, [DatasetInput(dataset, [tag])])
        return 1


def request(journal: Journal, tracking: TrackingConfig, uri: str, experiment: str) -> str:
    """The line that asks the program to send a journal."""
    facts = {"journal": str(journal.path.resolve()), "tracking": asdict(tracking), "uri": uri, "experiment": experiment}
    return json.dumps(facts) + "\n"


def _answer(line: str, senders: dict[str, MlflowWriter]) -> dict[str, Any]:
    facts = json.loads(line)
    path = facts["journal"]
    if path not in senders:
        tracking = TrackingConfig(**facts["tracking"])
        senders[path] = MlflowWriter(Journal(Path(path)), tracking, facts["uri"], facts["experiment"])
    sender = senders[path]
    try:
        return {"done": sender.send_all(), "run_id": sender.run_id}
    except Exception as error:  # whatever a tracking server does: the stage gets it, and keeps the record
        sender.forget()
        return {"error": type(error).__name__, "text": str(error)[:500], "run_id": sender.run_id}


def _read(lines: SimpleQueue[str], ready: threading.Event) -> None:
    """Requests as they come, and "" at their end; when nobody waits any more, the import is not finished."""
    for line in sys.stdin:
        lines.put(line)
    if lines.empty() and not ready.is_set():
        os._exit(0)
    lines.put("")


def main() -> None:
    """Import mlflow, then answer until the pipe is closed."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not be taken for an answer
    lines: SimpleQueue[str] = SimpleQueue()
    ready = threading.Event()
    threading.Thread(target=_read, args=(lines, ready), daemon=True).start()
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401  not the store itself: no file is made yet

    ready.set()
    senders: dict[str, MlflowWriter] = {}
    while line := lines.get():
        answers.write(json.dumps(_answer(line, senders)) + "\n")
        answers.flush()
    os._exit(0)  # all is sent and answered; mlflow's and sqlalchemy's own ends take longer than this


if __name__ == "__main__":
    main()
