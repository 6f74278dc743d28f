"""The record: local first, and no training waits for a server."""

import json
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from stillframe.config import TrackingConfig
from stillframe.tracking import record as module
from stillframe.tracking import writer
from stillframe.tracking.journal import Journal
from stillframe.tracking.record import RunRecord, send_pending


def settings(flush_s=20.0, timeout_s=2.0):
    return TrackingConfig(experiment="made", uri=None, timeout_s=timeout_s, flush_s=flush_s)


def sqlite(folder):
    return f"sqlite:///{folder / 'mlflow.db'}"


def run_of(uri, run_id):
    from mlflow import MlflowClient

    return MlflowClient(uri).get_run(run_id)


@pytest.fixture(autouse=True)
def apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_a_journal_survives_a_line_cut_short(tmp_path):
    journal = Journal(tmp_path / "a.jsonl")
    journal.append({"kind": "metrics", "n": 1})
    with journal.path.open("ab") as file:
        file.write(b'{"kind": "met')
    again = Journal(tmp_path / "a.jsonl")
    again.mend()
    again.append({"kind": "metrics", "n": 2})
    assert [event.get("n") for _, event in again.unsent()] == [1, None, 2]
    again.mark_sent(2)
    assert [event["n"] for _, event in again.unsent()] == [2]


def test_a_run_is_recorded_and_taken_up_again(tmp_path):
    record = RunRecord("one", settings(), uri=sqlite(tmp_path))
    (tmp_path / "note.txt").write_text("hello")
    record.status("RUNNING")
    record.params({"optim.lr": 0.1, "long": "x" * 9000})
    record.metrics({"train/loss": 1.0}, step=0)
    record.artifact(tmp_path / "note.txt", "notes")
    record.dataset("made", "d" * 64, "data/prepared/train", "train", "{}")
    record.status("KILLED")
    first = record.close()
    again = RunRecord("one", settings(), uri=sqlite(tmp_path))
    again.status("RUNNING")
    again.metrics({"train/loss": 0.5}, step=1)
    again.status("FINISHED")
    assert again.close() == first
    run = run_of(sqlite(tmp_path), first)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["train/loss"] == 0.5
    assert len(run.data.params["long"]) == 6000
    assert run.inputs.dataset_inputs[0].dataset.name == "made"
    assert (tmp_path / "mlruns/made" / first / "artifacts/notes/note.txt").read_text() == "hello"


def test_names_of_classes_that_mlflow_refuses_are_recorded_all_the_same(tmp_path):
    record = RunRecord("odd", settings(), uri=sqlite(tmp_path))
    record.metrics({"val/f1/green, light": 0.5, "val/f1/blau ü": 0.25})
    record.params({"data.classes.a,b": "x"})
    data = run_of(sqlite(tmp_path), record.close()).data
    assert data.metrics == {"val/f1/green_ light": 0.5, "val/f1/blau ü": 0.25}
    assert data.params == {"data.classes.a_b": "x"}


def test_an_artifact_that_is_gone_is_said_on_the_run(tmp_path):
    record = RunRecord("gone", settings(), uri=sqlite(tmp_path))
    record.artifact(tmp_path / "nothing.txt")
    run_id = record.close()
    assert "nothing.txt was gone" in run_of(sqlite(tmp_path), run_id).data.tags["stillframe.missing"]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def test_a_server_that_is_away_costs_little_and_nothing_is_lost(tmp_path):
    said = []
    uri = f"http://127.0.0.1:{free_port()}"
    started = time.monotonic()
    record = RunRecord("away", settings(flush_s=1.0), uri=uri, say=said.append)
    for step in range(50):
        record.metrics({"train/loss": float(step)}, step=step)
    assert record.close() is None
    assert time.monotonic() - started < 30, "bounded, whatever the server does"
    assert len(said) == 2 and uri in said[0] and "stillframe sync" in said[1]
    assert len(record.journal.unsent()) == 50
    facts = record.journal.path.with_suffix(".json")
    facts.write_text(json.dumps({"uri": sqlite(tmp_path), "experiment": "made"}))  # the server is back, elsewhere
    assert send_pending(settings()) == {"away": (50, 0)}
    assert send_pending(settings()) == {}
    run_id = record.journal.path.with_suffix(".run").read_text()
    assert run_of(sqlite(tmp_path), run_id).data.metrics["train/loss"] == 49.0


class Broken(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(500)
        self.end_headers()

    do_POST = do_GET

    def log_message(self, *args):
        pass


def test_a_server_that_answers_500_does_not_stop_a_training():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Broken)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        record = RunRecord(
            "broken", settings(flush_s=1.0), uri=f"http://127.0.0.1:{server.server_port}", say=lambda text: None
        )
        record.metrics({"train/loss": 1.0})
        assert record.close() is None
        assert len(record.journal.unsent()) == 1
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_server_that_goes_away_midway_gets_the_rest_when_it_is_back(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.05)
    record = RunRecord("midway", settings(), uri=sqlite(tmp_path), say=lambda text: None)
    record.metrics({"train/loss": 3.0}, step=0)
    assert record.idle.wait(30)
    real = writer.connect
    monkeypatch.setattr(writer, "connect", lambda *words: (_ for _ in ()).throw(ConnectionError("away")))
    record.sender.client = None
    record.metrics({"train/loss": 2.0}, step=1)
    deadline = time.monotonic() + 10
    while record.error is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert record.error is not None and len(record.journal.unsent()) == 1
    monkeypatch.setattr(writer, "connect", real)
    run_id = record.close()
    assert run_of(sqlite(tmp_path), run_id).data.metrics["train/loss"] == 2.0


FRESH = """
import sys
from stillframe.config import TrackingConfig
from stillframe.tracking.record import RunRecord
record = RunRecord(sys.argv[1], TrackingConfig("made", None, 5.0, 180.0), uri=sys.argv[2])
record.metrics({"a": 1.0})
print(record.close())
"""


def test_a_process_started_ahead_sends_and_ends(tmp_path):
    module.start_ahead()
    record = RunRecord("ahead", settings(flush_s=60.0), uri=sqlite(tmp_path))
    record.metrics({"train/loss": 1.0}, step=0)
    assert record.idle.wait(60), record.error
    first = record.sender.process
    first.kill()
    first.wait()
    record.metrics({"train/loss": 0.5}, step=1)  # met by a process that is gone: the next one sends it
    run_id = record.close()
    assert run_of(sqlite(tmp_path), run_id).data.metrics["train/loss"] == 0.5
    assert record.sender.process is not first and record.sender.process.poll() == 0


def test_what_the_sending_process_meets_is_told(tmp_path):
    said = []
    module.start_ahead()
    uri = f"http://127.0.0.1:{free_port()}"
    record = RunRecord("told", settings(flush_s=60.0), uri=uri, say=said.append)
    record.metrics({"train/loss": 1.0})
    deadline = time.monotonic() + 60
    while not said and time.monotonic() < deadline:
        time.sleep(0.01)
    record.tracking = settings(flush_s=0.1)
    assert record.close() is None and record.sender.process.poll() is not None
    assert "MlflowException" in said[0] and len(record.journal.unsent()) == 1


def test_a_sending_process_ends_with_its_stage(tmp_path):
    program = (
        "import os\n"
        "from stillframe.tracking import record\n"
        "record.start_ahead()\n"
        "print(record._ahead[0].process.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=False)
    deadline = time.monotonic() + 30
    while Path(f"/proc/{done.stdout.strip()}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert done.returncode == -9 and not Path(f"/proc/{done.stdout.strip()}").exists()


@pytest.mark.slow
def test_four_processes_on_a_fresh_store(tmp_path):
    command = [sys.executable, "-c", FRESH]
    started = [
        subprocess.Popen([*command, f"p{n}", sqlite(tmp_path)], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        for n in range(4)
    ]
    ids = {process.communicate(timeout=200)[0].strip() for process in started}
    assert len(ids) == 4 and "None" not in ids
    assert all(run_of(sqlite(tmp_path), run_id).data.metrics["a"] == 1.0 for run_id in ids)


def test_hashes_of_stages_that_have_not_run_are_not_the_run_s(tmp_path):
    from stillframe.tracking.lineage import dvc_hashes

    lock = tmp_path / "dvc.lock"
    entry = "{deps: [{path: src/a.py, md5: c}], outs: [{path: data/x, md5: a}]}"
    lock.write_text(f"schema: '2.0'\nstages: {{preprocess: {entry}, train: {entry}}}\n")
    assert dvc_hashes(lock) == {"preprocess/outs/data/x": "a", "train/outs/data/x": "a"}
    assert dvc_hashes(lock, without=("train",)) == {"preprocess/outs/data/x": "a"}
    assert dvc_hashes(tmp_path / "none.lock") == {}
