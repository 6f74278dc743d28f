"""The MLflow record. It never stops a training: events are written to a local journal and sent in the background.

Only global rank 0 keeps one. A stage sends by a process that it starts early (`start_ahead`), others by a thread.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from stillframe.config import TrackingConfig
from stillframe.paths import RESUME, read_json, write_json, write_text
from stillframe.tracking.journal import Event, Journal
from stillframe.tracking.writer import MlflowWriter, request

JOURNALS = RESUME / "journal"
RUN = "STILLFRAME_RUN"  # environment variable: the id of the MLflow run that a sweep has opened for its stages
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0


def tracking_uri(tracking: TrackingConfig) -> str:
    """MLFLOW_TRACKING_URI, else `tracking.uri`, else sqlite in this checkout, by absolute path."""
    return os.environ.get("MLFLOW_TRACKING_URI") or tracking.uri or f"sqlite:///{Path('mlflow.db').resolve()}"


def page_of(tracking: TrackingConfig, uri: str, site: str) -> str:
    """The address of our experiment in the UI at `site`, in its "Model training" mode (the default is "GenAI")."""
    from stillframe.tracking.writer import connect

    experiment = connect(tracking, uri).get_experiment_by_name(tracking.experiment)
    path = f"experiments/{experiment.experiment_id}" if experiment else "experiments"
    return f"{site}/#/{path}?workflowType=machine_learning"


def download(model: str, tracking: TrackingConfig, to: Path) -> Path:
    """The exported file that an MLflow address means (`writer.download`), from the store of section `tracking`."""
    from stillframe.tracking import writer

    return writer.download(writer.connect(tracking, tracking_uri(tracking)), model, to)


class SendError(RuntimeError):
    """The writer process could not send: the name and text of the exception that it met."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.name = name


class WriterProcess:
    """A `MlflowWriter` in a process of its own, which is started anew when it has died."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None
        self.line = ""
        self.run_id: str | None = None

    def start(self) -> None:
        """Start the process if it does not run; it begins with importing mlflow."""
        if self.process is None or self.process.poll() is not None:
            self.close()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "stillframe.tracking.writer"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,  # Ctrl-C is for the stage, whose last entries are still to be sent
            )

    def send_all(self) -> bool:
        """As of `MlflowWriter` (SendError: what that raised, or the process died)."""
        self.start()
        # One line to the process, one line back; an empty answer means that it has died.
        assert self.process is not None and self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(self.line)
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SendError("sender", f"ended with exit code {self.process.wait()}")
        facts = json.loads(answer)
        self.run_id = facts["run_id"] or self.run_id
        if "error" in facts:
            raise SendError(facts["error"], facts["text"])
        return bool(facts["done"])

    def forget(self) -> None:
        """Nothing to do: the process drops its own connection after an error."""

    def close(self) -> None:
        """End the process; one that hangs at a server is killed, and `stillframe sync` sends what it held."""
        if self.process is None or self.process.stdin is None:
            return
        with suppress(BrokenPipeError):  # it is gone already
            self.process.stdin.close()
        try:
            self.process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


_ahead: list[WriterProcess] = []


def start_ahead() -> None:
    """Start importing mlflow now, in a process of its own, for the record that this stage opens later."""
    process = WriterProcess()
    with suppress(OSError):  # no process now: the first `send_all` tries again
        process.start()
    _ahead.append(process)


class RunRecord:
    """One MLflow run, from any process that knows its journal."""

    def __init__(
        self, name: str, tracking: TrackingConfig, *, uri: str | None = None, say: Callable[[str], None] = print
    ) -> None:
        """`name` is the journal's, and the run's tag; `say` tells the user that the server is away."""
        self.tracking, self.say = tracking, say
        # A sweep has opened the run of this trial: its stages write there, and the journal bears its id.
        run_id = os.environ.get(RUN)
        if run_id:
            name = run_id
            write_text((JOURNALS / name).with_suffix(".run"), run_id)
        self.uri = uri or tracking_uri(tracking)
        self.journal = Journal(JOURNALS / f"{name}.jsonl")
        self.journal.mend()
        # The process that the stage started early, else a writer in this one.
        self.sender: MlflowWriter | WriterProcess
        if _ahead:
            self.sender = _ahead.pop()
            self.sender.line = request(self.journal, tracking, self.uri, tracking.experiment)
        else:
            self.sender = MlflowWriter(self.journal, tracking, self.uri, tracking.experiment)
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
            # Woken by each event; after an error also by the clock, as the server may be back before the next event.
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
                if self.error is None:  # the first of a row of errors: the user is told once
                    self.say(
                        f"MLflow at {self.uri} does not take the record now ({_name(error)}); "
                        f"it is kept in {self.journal.path}"
                    )
                self.error = f"{_name(error)}: {error}"
                self.sender.forget()
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
        # Bounded: whatever the server does, the stage ends, and the journal keeps the rest for `stillframe sync`.
        deadline = time.monotonic() + self.tracking.flush_s
        while self.journal.unsent() and time.monotonic() < deadline:
            self.wake.set()
            self.idle.wait(timeout=0.2)
        self.stop.set()
        self.wake.set()
        self.thread.join(timeout=self.tracking.timeout_s)
        self.sender.close()
        left = len(self.journal.unsent())
        if left:
            self.say(
                f"{left} entries of the record are kept in {self.journal.path}: `stillframe sync` sends them later"
            )
        return self.sender.run_id


def _name(error: Exception) -> str:
    return error.name if isinstance(error, SendError) else type(error).__name__


def _now_ms() -> int:
    return int(time.time() * 1000)


def attach(run_json: Path, tracking: TrackingConfig) -> RunRecord:
    """The record of a trained model, for a later stage."""
    facts = read_json(run_json)
    return RunRecord(facts["journal"], tracking, uri=facts["tracking_uri"])


def send_pending(tracking: TrackingConfig, root: Path = JOURNALS) -> dict[str, tuple[int, int]]:
    """Send what earlier stages could not; journal name -> (entries sent now, entries still unsent)."""
    done = {}
    for path in sorted(root.glob("*.jsonl")):
        journal = Journal(path)
        waiting = len(journal.unsent())
        if not waiting:
            continue
        facts = read_json(path.with_suffix(".json"))
        try:
            MlflowWriter(journal, tracking, facts["uri"], facts["experiment"]).send_all()
        except Exception as error:  # the server is still away: print it, count it, and keep the journal
            print(f"{path}: {type(error).__name__}: {error}")
        left = len(journal.unsent())
        done[path.stem] = (waiting - left, left)
    return done


def record_report(run_json: Path, reported: Path, tracking: TrackingConfig, note: str) -> None:
    """Send the report page, its figures and DVC's hashes of every stage to the model's run.

    `note` is Markdown, the run's description in the UI.
    """
    from stillframe.tracking.lineage import dvc_hashes, dvc_tags

    record = attach(run_json, tracking)
    record.tags(dvc_tags(dvc_hashes(without=("report",))))  # its own are those of an earlier run
    record.tags({"mlflow.note.content": note})
    record.artifact(reported, "report")
    if Path("dvc.lock").exists():
        record.artifact(Path("dvc.lock"), "lineage")
    record.close()
