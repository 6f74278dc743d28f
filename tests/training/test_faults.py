"""Faults of the machine under a training: what is said, what is kept, and that the same command goes on."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import psutil
import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from stillframe.paths import read_json
from stillframe.stages import train, validate
from stillframe.store.loader import SequentialBatchSampler, SplitDataset, make_loader
from stillframe.store.split import FILE
from stillframe.training import outputs
from stillframe.training.callbacks import ResumeCheckpoint
from stillframe.training.lock import exclusive
from stillframe.training.module import TrainingModule

SECTIONS = ("task", "seed", "augment", "model", "optim", "trainer", "tracking")


def run(workplace) -> int:
    return train.run(*workplace.params(*SECTIONS))


def runs(workplace):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{workplace.folder / 'mlflow.db'}")
    return client.search_runs([client.get_experiment_by_name("stillframe").experiment_id])


@pytest.fixture(autouse=True)
def signals_as_before():
    """A training in this process takes the signals; give them back to pytest."""
    taken = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    before = {signum: signal.getsignal(signum) for signum in taken}
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


@contextmanager
def meanwhile(work):
    """Run `work` beside the training; its own failure is the test's."""
    problems = []

    def guarded():
        try:
            work()
        except BaseException as problem:
            problems.append(problem)

    thread = threading.Thread(target=guarded)
    thread.start()
    yield
    thread.join(timeout=120)
    assert not thread.is_alive() and not problems, problems


def wait_until(ready, limit_s=90):
    deadline = time.monotonic() + limit_s
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# --- signals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGUSR1])
def test_other_signals_keep_the_state_too_and_say_so_by_the_exit_code(here, signum, capsys):
    """Ctrl-C; and what a cluster sends before it takes a node away."""
    here.set("trainer.max_epochs", 500).set("trainer.checkpoint_seconds", 1e-6)

    def stop():
        wait_until(here.checkpoints)
        os.kill(os.getpid(), signum)

    with meanwhile(stop):
        assert run(here) == 128 + signum
    assert "`dvc repro` resumes" in capsys.readouterr().err
    assert torch.load(here.checkpoints()[0], weights_only=True)["global_step"] > 0
    assert [one.info.status for one in runs(here)] == ["KILLED"]
    assert not (here.folder / "artifacts/train").exists()


@pytest.mark.parametrize("hook", ["on_fit_start", "on_train_start", "on_train_batch_start", "_save"])
def test_a_sigterm_at_any_moment_exits_143(here, monkeypatch, hook, capsys):
    """Lightning's own handler ends with exit code 0, and DVC would take the stage for done."""
    here.set("trainer.checkpoint_seconds", 1e-6)
    hooked = getattr(ResumeCheckpoint, hook)

    def struck(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGTERM)
        return hooked(*args, **kwargs)

    monkeypatch.setattr(ResumeCheckpoint, hook, struck)
    assert run(here) == 143
    assert "`dvc repro` resumes" in capsys.readouterr().err
    assert [one.info.status for one in runs(here)] == ["KILLED"]
    assert not (here.folder / "artifacts/train").exists()


# --- the disk ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "words"), [(28, "No space left on device"), (30, "Read-only file system")])
def test_outputs_that_cannot_be_written_cost_no_training(here, monkeypatch, code, words, capsys):
    """A full disk, a read-only folder: the error names the file; afterwards the same command only writes."""
    real = outputs.shutil.copyfile

    def refuse(source, target):
        raise OSError(code, words, str(target))

    monkeypatch.setattr(outputs.shutil, "copyfile", refuse)
    with pytest.raises(OSError, match=words + ".*artifacts/train/.*model.safetensors"):
        run(here)
    assert not (here.folder / "artifacts/train/model.safetensors").exists()
    assert [one.info.status for one in runs(here)] == ["FAILED"]
    (kept,) = (here.folder / ".resume").glob("*/best.safetensors")
    best = load_file(kept)

    monkeypatch.setattr(outputs.shutil, "copyfile", real)
    capsys.readouterr()
    assert run(here) == 0
    said = capsys.readouterr()
    assert "resuming from" in said.out and "epoch 1/2" not in said.err, "nothing was trained anew"
    written = load_file(here.folder / "artifacts/train/model.safetensors")
    assert best.keys() == written.keys() and all(torch.equal(best[name], written[name]) for name in best)
    assert [one.info.status for one in runs(here)] == ["FINISHED"]


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_prepared_file_cut_short_is_named_before_training(here, split):
    path = here.folder / "data/prepared" / split / FILE
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ValueError, match=rf"data/prepared/{split}.*dvc checkout --force data/prepared/{split}"):
        run(here)
    assert not (here.folder / "mlflow.db").exists() and not (here.folder / "artifacts/train").exists()


def test_a_model_cut_short_is_named(here):
    assert run(here) == 0
    path = here.folder / "artifacts/train/model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="artifacts/train/model.safetensors is damaged"):
        validate.run(*here.validation())
    assert not (here.folder / "artifacts/validate/metrics.json").exists()


# --- a loss that goes off ----------------------------------------------------------------------------------------


def test_the_last_finite_state_is_kept_and_named(here, monkeypatch):
    here.set("trainer.checkpoint_seconds", 1e-6).set("trainer.max_nonfinite", 4)
    real, last_good = TrainingModule._step, 6

    def off(self, batch, split):
        loss = real(self, batch, split)
        return loss * float("nan") if self.trainer.global_step >= last_good else loss

    monkeypatch.setattr(TrainingModule, "_step", off)
    with pytest.raises(ValueError, match=r"4 times in a row.*last finite state is kept.*last\.ckpt"):
        run(here)
    kept = torch.load(here.checkpoints()[0], weights_only=True)
    assert kept["global_step"] == last_good
    assert all(value.isfinite().all() for value in kept["state_dict"].values())
    assert [one.info.status for one in runs(here)] == ["FAILED"]


# --- processes ---------------------------------------------------------------------------------------------------


def workers_of(process: psutil.Process) -> list[psutil.Process]:
    """Loader workers: children of the fork server, which is a child of the training."""
    servers = [one for one in process.children() if "multiprocessing.forkserver" in command(one)]
    return [worker for server in servers for worker in server.children()]


@pytest.fixture
def short_limit(monkeypatch):
    """The loader's limit of minutes, cut to seconds once `armed` is set."""
    armed = threading.Event()
    real = _MultiProcessingDataLoaderIter._try_get_data

    def sooner(self, timeout=5.0):
        assert 0 < timeout <= 600, "without a limit, a hang would never end"
        return real(self, min(timeout, 4.0) if armed.is_set() else timeout)

    monkeypatch.setattr(_MultiProcessingDataLoaderIter, "_try_get_data", sooner)
    return armed


@pytest.mark.slow
def test_a_worker_that_dies_is_an_error_and_leaves_no_process(here, short_limit):
    here.set("trainer.workers", 2).set("trainer.max_epochs", 500)
    family = []

    def kill_one():
        wait_until(here.checkpoints)
        family.extend(workers_of(psutil.Process()))
        assert len(family) == 2
        short_limit.set()
        family[0].kill()

    with pytest.raises(RuntimeError, match="worker.*(exited unexpectedly|died)"), meanwhile(kill_one):
        run(here)
    gone, alive = psutil.wait_procs(family, timeout=30)
    assert not alive
    assert [one.info.status for one in runs(here)] == ["FAILED"]
    assert here.checkpoints(), "what was trained is kept"


class Hanging(SplitDataset):
    """Rows that are never ready."""

    def __getitem__(self, key):
        time.sleep(3600)


def test_a_worker_that_hangs_is_an_error(here, short_limit):
    rows = Hanging([here.folder / "data/prepared/val"])
    short_limit.set()
    with pytest.raises(RuntimeError, match="timed out after 300 seconds"):
        next(iter(make_loader(rows, SequentialBatchSampler(len(rows), 8), workers=1)))
    wait_until(lambda: not workers_of(psutil.Process()))


@pytest.mark.slow
def test_workers_end_with_a_training_that_is_killed(workplace):
    workplace.set("trainer.workers", 1).set("trainer.max_epochs", 500)
    process = workplace.start("train")
    wait_until(lambda: process.poll() is not None or workplace.checkpoints(), 150)
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) >= 2, workplace.log()
    process.kill()
    assert process.wait() == -signal.SIGKILL
    gone, alive = psutil.wait_procs(family, timeout=60)
    assert not alive


def command(process):
    """Its command line; "" once it has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@pytest.mark.slow
def test_workers_end_with_a_prediction_that_is_killed(here):
    assert run(here) == 0
    here.set("trainer.devices", 2)
    process = here.start("validate")
    children = []

    def ready():
        assert process.poll() is None, here.log()
        children[:] = psutil.Process(process.pid).children(recursive=True)
        return len(children) >= 2 and sum("spawn_main" in command(child) for child in children) == 2

    wait_until(ready)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    gone, alive = psutil.wait_procs(children, timeout=60)
    assert not alive


BUSY = """import os, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from stillframe.training.launch import die_with_parent
with ProcessPoolExecutor(2, get_context("spawn"), initializer=die_with_parent, initargs=(os.getpid(),)) as pool:
    pool.submit(time.sleep, 600)
    print(pool.submit(os.getpid).result(), flush=True)
    pool.submit(time.sleep, 600).result()
"""


def test_busy_workers_end_with_a_parent_that_is_killed():
    with subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE, text=True) as parent:
        assert int(parent.stdout.readline()) > 0
        children = psutil.Process(parent.pid).children(recursive=True)
        parent.kill()
    gone, alive = psutil.wait_procs(children, timeout=60)
    assert len(gone) >= 2 and not alive


HOLD = (
    "import time; from stillframe.training.lock import exclusive\nwith exclusive(): print(flush=True); time.sleep(600)"
)


def test_two_trainings_in_one_folder_and_a_lock_whose_holder_was_killed(here):
    holder = subprocess.Popen([sys.executable, "-c", HOLD], cwd=here.folder, stdout=subprocess.PIPE)
    try:
        holder.stdout.readline()
        with pytest.raises(ValueError, match=rf"another training runs in this folder: pid {holder.pid} on "):
            run(here)
        assert not (here.folder / "artifacts/train").exists() and not (here.folder / "mlflow.db").exists()
    finally:
        holder.kill()
        holder.communicate()
    with exclusive():
        assert str(os.getpid()) in (here.folder / ".resume/lock").read_text()


# --- the tracking server -----------------------------------------------------------------------------------------


def test_a_server_that_never_answers_costs_seconds_and_loses_nothing(here, monkeypatch, capsys):
    """It takes connections and says nothing: the default client would wait for minutes."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        here.set("tracking.timeout_s", 1.0).set("tracking.flush_s", 1.0)
        assert run(here) == 0
    assert "`stillframe sync` sends them later" in capsys.readouterr().out
    facts = read_json(here.folder / "artifacts/train/run.json")
    assert facts["run_id"] is None
    journal = here.folder / f".resume/journal/{facts['journal']}.jsonl"
    assert '"train/loss"' in journal.read_text() and '"FINISHED"' in journal.read_text()
