"""The third door: `python -m stillframe.sweep -m ...` on made photographs, by each engine, and when things go wrong."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from door import checkout, commit, environment, photographs, shell
from stillframe.sweeps import store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
QUICK = ["trainer.max_epochs=1", "sweep.until=validate", "sweep.test=none", "sweep.name=made"]


def at_once(count: int) -> list[str]:
    return ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={count}"]


class Project:
    """A checkout with a committed state."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.before = shell(folder, "git", "status", "--short")

    def start(self, *words: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        with (self.folder.parent / "said.txt").open("a") as said:
            return subprocess.Popen(
                [sys.executable, "-m", "stillframe.sweep", "-m", *QUICK, *words],
                cwd=self.folder,
                env=environment(self.folder) | (env or {}),
                stdout=said,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )

    def sweep(self, *words: str, code: int = 0, env: dict[str, str] | None = None) -> str:
        process = self.start(*words, env=env)
        try:
            assert process.wait(timeout=500) == code, self.said()
        finally:
            end(process)
        return self.said()

    def said(self) -> str:
        return (self.folder.parent / "said.txt").read_text(encoding="utf-8")

    def trials(self) -> list[store.Trial]:
        return store.Sweep.read(self.folder / "sweeps/made").trials()

    def states(self) -> list[str]:
        return [trial.state for trial in self.trials()]

    def client(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(f"sqlite:///{self.folder / 'mlflow.db'}")

    def runs(self) -> list[Any]:
        client = self.client()
        experiment = client.get_experiment_by_name("stillframe")
        return client.search_runs([experiment.experiment_id], order_by=["attributes.start_time"])

    def processes(self) -> list[psutil.Process]:
        """All that works in this checkout or its slots."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                at = Path(process.cwd())
                if at.is_relative_to(self.folder) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found


def end(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_until(ready: Callable[[], bool], said: Callable[[], str], limit_s: float = 300) -> None:
    deadline = time.monotonic() + limit_s
    while not ready():
        assert time.monotonic() < deadline, said()
        time.sleep(0.05)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout whose first stages are in DVC's cache: the tests are about what comes after."""
    folder = tmp_path_factory.mktemp("sweep")
    project = checkout(folder / "project", photographs(folder / "photographs"))
    shell(project, "dvc", "repro", "augment")
    commit(project, "prepared")
    return project


@pytest.fixture(autouse=True)
def interruptible() -> None:
    """What is started in the background of a script inherits that SIGINT is ignored; Ctrl-C is no such case."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def project(started: Path, tmp_path: Path) -> Iterator[Project]:
    made = Project(Path(shutil.copytree(started, tmp_path / "project", symlinks=True)))
    yield made
    for process in made.processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def training(project: Project) -> list[psutil.Process]:
    out = []
    for process in project.processes():
        with contextlib.suppress(psutil.Error):
            if process.cmdline()[1:] == ["-m", "stillframe.stages.train"]:
                out.append(process)
    return out


def test_a_grid_of_four_with_joblib(project: Project) -> None:
    """Two at once; the checkout stays as it was, uncommitted edits are part of the trials; DVC and MLflow know them."""
    note = project.folder / "conf/optim/adamw.yaml"
    note.write_text(note.read_text(encoding="utf-8") + "# an edit\n", encoding="utf-8")
    before = shell(project.folder, "git", "status", "--short"), shell(project.folder, "git", "rev-parse", "HEAD")
    lock = (project.folder / "dvc.lock").read_bytes()
    grid = ["optim.lr=1e-2,1e-3", "augment=none,light", "sweep.test=best", *at_once(2)]

    output = project.sweep(*grid)
    assert "4 of 4 done" in output
    trials = project.trials()
    assert project.states() == ["finished"] * 4
    assert {tuple(trial.overrides[-2:]) for trial in trials} == {
        (f"optim.lr={rate}", f"augment={policy}") for rate in ("0.01", "0.001") for policy in ("none", "light")
    }
    for trial in trials:
        (one,) = trial.repeats
        assert {"fetch", "preprocess"}.isdisjoint(one.ran) and trial.values == [one.metrics["val/f1_macro"]]
    best = store.Sweep.read(project.folder / "sweeps/made").best()
    assert best is not None
    tested = [trial.number for trial in trials if "test/accuracy" in trial.repeats[0].metrics]
    assert tested == [best.number], "only the best one meets the test split"
    assert sorted(set(trial.slot for trial in trials)) == [0, 1]

    after = shell(project.folder, "git", "status", "--short"), shell(project.folder, "git", "rev-parse", "HEAD")
    assert after == before and (project.folder / "dvc.lock").read_bytes() == lock
    listed = shell(project.folder, "dvc", "exp", "list")
    names = {trial.repeats[0].experiment for trial in trials}
    assert all(str(name) in listed for name in names)
    shown = shell(project.folder, "dvc", "exp", "show", "--csv", "--no-pager")
    assert all(str(name) in shown for name in names)
    edited = shell(project.folder, "git", "show", f"{trials[0].repeats[0].commit}:conf/optim/adamw.yaml")
    assert edited.endswith("# an edit\n"), "the edit is in the trial"
    note.write_text(note.read_text(encoding="utf-8").removesuffix("# an edit\n"), encoding="utf-8")
    shell(project.folder, "dvc", "exp", "apply", str(best.repeats[0].experiment))
    assert (project.folder / "artifacts/train/model.safetensors").exists(), "from the shared cache"

    parents = [run for run in project.runs() if "mlflow.parentRunId" not in run.data.tags]
    (parent,) = parents
    children = [run for run in project.runs() if run.info.run_id != parent.info.run_id]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id} and len(children) == 4
    assert {run.info.status for run in [parent, *children]} == {"FINISHED"}
    assert all("val/f1_macro" in run.data.metrics and "train/loss" in run.data.metrics for run in children)
    assert parent.data.metrics["best/val/f1_macro"] == best.values[0]
    sent = {Path(file.path).name for file in project.client().list_artifacts(parent.info.run_id, "sweep")}
    assert sent >= {"compare.html", "table.csv", "parallel_coordinates.png", "importance.png"}
    shared = [path for path in (project.folder / ".work/sweep/slot-0/data/prepared").rglob("*") if path.is_file()]
    assert shared and all(path.stat().st_nlink > 1 for path in shared), "links to DVC's cache, no copies"

    again = project.sweep(*grid)
    assert "goes on after 4 trials" in again and [trial.started for trial in project.trials()] == [
        trial.started for trial in trials
    ]
    wait_until(lambda: not project.processes(), lambda: f"{project.processes()}", 30)


def test_a_grid_with_ray_on_a_cluster_of_two_nodes(project: Project) -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        at = f"hydra.launcher.ray.init.address='{cluster.address}'"
        memory = "hydra.launcher.ray.init.object_store_memory=null"
        project.sweep("hydra/launcher=ray", f"+{at}", f"+{memory}", "optim.lr=1e-2,1e-3,3e-3")
    finally:
        cluster.shutdown()
    assert project.states() == ["finished"] * 3
    assert len({trial.pid for trial in project.trials()}) >= 2


def test_submitit_on_its_local_executor(project: Project) -> None:
    """The launcher of SLURM clusters, without one."""
    project.sweep("hydra/launcher=submitit_local", "hydra.launcher.timeout_min=10", "optim.lr=1e-2,1e-3")
    assert project.states() == ["finished"] * 2
    assert len({trial.pid for trial in project.trials()}) == 2


def test_a_trial_that_fails_is_recorded_and_the_sweep_goes_on(project: Project) -> None:
    output = project.sweep("model.name=no_such_net,plain_cnn", code=1)
    assert project.states() == ["failed", "finished"]
    failed = project.trials()[0]
    assert "no_such_net" in failed.error and "no_such_net" in output and "Traceback" not in failed.error
    run = next(run for run in project.runs() if run.data.tags.get("stillframe.trial") == "0")
    assert run.info.status == "FAILED" and "no_such_net" in run.data.tags["stillframe.problem"]


def test_two_ranks_in_a_trial_do_not_start_the_sweep_again(project: Project) -> None:
    project.sweep("trainer=ddp_cpu", "trainer.batch_size=4", "optim.lr=choice(1e-2)")
    assert project.states() == ["finished"]
    assert len(project.runs()) == 2, "a parent and a child"
    assert len(list((project.folder / "sweeps").glob("*/sweep.json"))) == 1 and not project.processes()


@pytest.mark.parametrize("whom", ["controller", "trial"])
def test_killed_and_the_same_command_again(project: Project, whom: str) -> None:
    """A kill -9 of the sweep itself leaves no process; of a training, a failed trial that is run again."""
    words = ["optim.lr=1e-2,1e-3", "trainer.max_epochs=4", *at_once(2)]
    process = project.start(*words)
    wait_until(lambda: bool(training(project)), project.said)
    if whom == "controller":
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        wait_until(lambda: not project.processes(), lambda: f"{project.processes()} {project.said()}", 100)
    else:
        training(project)[0].kill()
        assert process.wait(timeout=400) == 1, project.said()
        assert sorted(project.states()) == ["failed", "finished"]
    done = {trial.number: trial.started for trial in project.trials() if trial.state == "finished"}
    project.sweep(*words)
    assert project.states() == ["finished"] * 2
    assert all(trial.started == done.get(trial.number, trial.started) for trial in project.trials())
    assert not [run for run in project.runs() if run.info.status == "RUNNING"]
    assert len([run for run in project.runs() if "mlflow.parentRunId" not in run.data.tags]) == 1


@pytest.mark.parametrize(
    ("signum", "words", "running"), [(signal.SIGINT, [], 1), (signal.SIGTERM, at_once(2), 2)], ids=["ctrl-c", "sigterm"]
)
def test_ctrl_c_ends_the_trials_and_leaves_a_readable_state(
    project: Project, signum: int, words: list[str], running: int
) -> None:
    """Ctrl-C reaches all processes of the terminal, SIGTERM only the command."""
    process = project.start("optim.lr=1e-2,1e-3,1e-4", "trainer.max_epochs=50", *words)
    wait_until(lambda: len(training(project)) == running, project.said)
    time.sleep(1)
    (os.killpg if signum == signal.SIGINT else os.kill)(process.pid, signum)
    assert process.wait(timeout=100) == 128 + signum, project.said()
    assert project.states() == ["stopped"] * running
    wait_until(lambda: not project.processes(), lambda: f"{project.processes()}", 30)
    assert f"0 running  {running} stopped" in project.said() and "Traceback" not in project.said()
    assert "the same command goes on" in project.said()
    assert {run.info.status for run in project.runs()} == {"KILLED"}


def test_repeats_use_seeds_and_folds_and_the_value_is_their_mean(project: Project) -> None:
    project.sweep("optim.lr=1e-2", "folds=2", "sweep.objective=val/accuracy")
    (trial,) = project.trials()
    assert not any(name.startswith("test/") for one in trial.repeats for name in one.metrics), "sweep.test=none"
    values = trial.metric("val/accuracy")
    assert len(values) == 2 and trial.values == [pytest.approx(sum(values) / 2)]
    assert [one.fold for one in trial.repeats] == [0, 1]
    assert re.search(r"fold: 1", (project.folder / "sweeps/made/trials/0000/r1/params.yaml").read_text())
