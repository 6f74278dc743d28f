"""The parts of a sweep, each by itself."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import psutil
import pytest

from stillframe.sweeps import (
    create,
    git_snapshot,
    live_table,
    mlflow_record,
    process_guard,
    repeat,
    settings,
    store,
    trial,
    worktree,
)
from stillframe.sweeps import overrides as words
from stillframe.sweeps import run as door

SECTION = {
    "name": None,
    "objective": "val/f1_macro",
    "direction": "auto",
    "until": "report",
    "test": "best",
    "parallel": 0,
    "gpus": None,
    "gpus_per_trial": 0,
    "timeout_s": None,
}


def given(seeds: int = 1, folds: int = 0, **changes: object) -> settings.SweepSettings:
    return settings.build({"task": "classification", "seeds": seeds, "folds": folds, "sweep": {**SECTION, **changes}})


def git(folder: Path, *words: str) -> str:
    person = {f"GIT_{role}_{what}": "t@localhost" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    done = subprocess.run(
        ["git", *words], cwd=folder, capture_output=True, text=True, check=True, env=os.environ | person
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / "code.py").write_text("a = 1\n")
    (folder / ".gitignore").write_text("/big\n/.work\n/sweeps\n")
    (folder / ".dvc").mkdir()
    (folder / ".dvc/config").write_text("")
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "start")
    return folder


# --- settings ----------------------------------------------------------------------------------------------------


def test_directions_follow_the_metric() -> None:
    assert given().directions == ["maximize"]
    assert given(objective="val/log_loss").directions == ["minimize"]
    assert given(objective=["val/accuracy", "train/seconds"]).directions == ["maximize", "minimize"]
    assert given(objective="val/accuracy", direction="minimize").directions == ["minimize"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"objective": "test/accuracy"}, "val/accuracy"),
        ({"objective": "accuracy"}, "val/f1_macro"),
        ({"objective": "train/secs"}, "train/seconds"),
        ({"objective": ["val/accuracy", "val/ece"], "direction": ["maximize"]}, "1 for 2"),
        ({"folds": 1}, "folds = 1"),
        ({"objektive": "val/ece"}, "objektive"),
        ({"until": "train"}, "until"),
        ({"test": "none"}, "every trial meets the test split"),
        ({"seeds": 0}, "seeds"),
    ],
)
def test_settings_that_make_no_sense_are_named(changes: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        given(**changes)


def test_a_sweep_is_the_same_when_only_its_speed_or_length_differ() -> None:
    name = settings.default_name(["optim.lr=1,2", "model=a"], "tree")
    assert name == settings.default_name(["model=a", "optim.lr=1,2", "hydra/launcher=joblib"], "tree")
    assert name == settings.default_name(["model=a", "optim.lr=1,2", "hydra.sweeper.trials=9"], "tree")
    assert name != settings.default_name(["model=a", "optim.lr=1,3"], "tree")
    assert name != settings.default_name(["model=a", "optim.lr=1,2"], "other")


# --- the command line --------------------------------------------------------------------------------------------


def test_choices_are_counted_by_hydras_own_grammar() -> None:
    assert words.count(["a=1,2", "b=range(1,4)", "c=choice(x,y)", "d=1"]) == 12
    assert words.count(["a=1,2", "hydra/sweeper=optuna"]) is None
    with pytest.raises(ValueError, match="not an override"):
        words.count(["a=[1,,"])


def test_trials_at_once_and_their_threads_follow_the_launcher() -> None:
    cores = len(os.sched_getaffinity(0))
    joblib = {"_target_": "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher", "n_jobs": 3}
    ray = {"_target_": "hydra_plugins.hydra_ray_launcher.ray_launcher.RayLauncher", "ray": {"remote": {"num_cpus": 4}}}
    assert create.at_once({"_target_": "hydra._internal.core_plugins.basic_launcher.BasicLauncher"}) == 1
    assert create.at_once(joblib) == 3 and create.at_once({**joblib, "n_jobs": -1}) == cores
    assert create.at_once(ray) == 0
    assert create.threads(1, {}) == cores and create.threads(cores, {}) == 1 and create.threads(0, ray) == 4


def test_devices_are_shared_out_and_never_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    assert create.share_gpus(given(), 1) == (None, 0), "one at a time has them all, as they are"
    assert create.share_gpus(given(), 0) == (None, 0), "Ray and SLURM share them out themselves"
    gpus, each = create.share_gpus(given(gpus_per_trial=2), 2)
    facts = {"gpus": gpus, "gpus_each": each}
    assert [trial.devices(facts, number) for number in (0, 1)] == ["0,1", "2,3"]
    gpus, each = create.share_gpus(given(gpus=["5", "7"]), 2)
    assert [trial.devices({"gpus": gpus, "gpus_each": each}, number) for number in (0, 1)] == ["5", "7"]
    with pytest.raises(ValueError, match="gpus_per_trial = 9"):
        create.share_gpus(given(gpus_per_trial=9), 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert create.share_gpus(given(), 2) == (None, 0)


def test_a_path_may_hold_what_hydra_reads_otherwise(tmp_path: Path) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    for name in ("a b", "it's", "x=1,2", "back\\slash"):
        override = OverridesParser.create().parse_override(f"hydra.sweep.dir={door._quoted(tmp_path / name)}")
        assert str(override.value()) == str(tmp_path / name)


# --- the snapshot ------------------------------------------------------------------------------------------------


def test_a_snapshot_holds_uncommitted_edits_and_touches_nothing(checkout: Path) -> None:
    clean = git_snapshot.take(checkout)
    assert not clean.dirty and clean.commit == git(checkout, "rev-parse", "HEAD")
    (checkout / "code.py").write_text("a = 2\n")
    (checkout / "new.py").write_text("b = 1\n")
    (checkout / "big").write_text("ignored by git")
    before = git(checkout, "status", "--porcelain")
    edited = git_snapshot.take(checkout)
    assert edited.dirty and edited.code != clean.code
    assert git(checkout, "show", f"{edited.commit}:code.py") == "a = 2"
    assert git(checkout, "show", f"{edited.commit}:new.py") == "b = 1"
    assert "big" not in git(checkout, "ls-tree", "-r", "--name-only", edited.commit)
    assert git(checkout, "status", "--porcelain") == before and git(checkout, "rev-parse", "HEAD") == clean.head


def test_what_dvc_writes_is_no_other_code(checkout: Path) -> None:
    code = git_snapshot.take(checkout).code
    (checkout / "dvc.lock").write_text("stages: {}\n")
    assert git_snapshot.take(checkout).code == code and git_snapshot.take(checkout).dirty


def test_without_a_commit_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="git init"):
        git_snapshot.take(tmp_path)


# --- slots -------------------------------------------------------------------------------------------------------


def test_a_slot_is_a_checkout_that_shares_the_cache(checkout: Path) -> None:
    (checkout / ".dvc/config").write_text("[cache]\n    dir = ../elsewhere\n")
    git(checkout, "commit", "-qam", "a cache elsewhere")
    commit = git(checkout, "rev-parse", "HEAD")
    with worktree.take(checkout, 1) as one:
        one.start_from(commit)
        assert (one.folder / "code.py").read_text() == "a = 1\n"
        assert str(checkout / "elsewhere") in (one.folder / ".dvc/config.local").read_text()
        (one.folder / "params.yaml").write_text("seed: 1\n")
        made = one.commit(commit, "a trial")
        one.publish(made, commit, "name")
        assert git(checkout, "rev-parse", f"refs/exps/{commit[:2]}/{commit[2:]}/name") == made
        assert git(checkout, "ls-tree", "-r", "--name-only", made).splitlines() == [
            ".dvc/config",
            ".gitignore",
            "code.py",
            "params.yaml",
        ]
        locks = one.folder / ".dvc/tmp/rwlock"
        locks.parent.mkdir(exist_ok=True)
        locks.write_text("")  # DVC was killed while it wrote it, and would never start again
        one.start_from(commit)
        assert not locks.exists()
        assert not (one.folder / "params.yaml").exists(), "nothing of the last trial but what DVC keeps"
    assert git(checkout, "status", "--porcelain") == ""


def test_each_slot_has_one_holder(checkout: Path) -> None:
    with worktree.take(checkout, 2) as first, worktree.take(checkout, 2) as second:
        assert {first.number, second.number} == {0, 1}
    with worktree.take(checkout, 2) as again:
        assert again.number == 0


def test_a_clone_that_a_crash_left_half_made_is_made_anew(checkout: Path) -> None:
    half = checkout / worktree.FOLDER / "slot-0"
    half.mkdir(parents=True)
    (half / "rest").touch()
    with worktree.take(checkout, 1) as one:
        assert not (one.folder / "rest").exists() and (one.folder / ".git").is_dir()


def test_only_the_first_with_a_key_computes_it(tmp_path: Path) -> None:
    with worktree.alone(tmp_path, "key") as first:
        assert first
    with worktree.alone(tmp_path, "key") as second:
        assert not second
    with pytest.raises(RuntimeError), worktree.alone(tmp_path, "other"):
        raise RuntimeError
    with worktree.alone(tmp_path, "other") as after_a_failure:
        assert after_a_failure


# --- the guard ---------------------------------------------------------------------------------------------------


SLEEPERS = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'], start_new_session=True); open(sys.argv[1], 'w').write('x'); time.sleep(300)"  # noqa: E501


def below(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def guarded(tmp_path: Path, limit: str = "0") -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "stillframe.sweeps.process_guard", limit, str(os.getpid()), "--"]
    process = subprocess.Popen([*command, sys.executable, "-c", SLEEPERS, str(tmp_path / "up")])
    deadline = time.monotonic() + 60
    while not (tmp_path / "up").exists() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


def test_the_guard_ends_all_that_its_command_started(tmp_path: Path) -> None:
    process = guarded(tmp_path)
    family = below(process.pid)
    assert len(family) == 2, "one of them in a session of its own"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 128 + signal.SIGTERM
    assert not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in family)


def test_the_guard_ends_when_time_is_up(tmp_path: Path) -> None:
    process = guarded(tmp_path, "0.1")
    assert process.wait(timeout=60) == process_guard.TIME_IS_UP


def test_the_guard_ends_with_the_process_that_wanted_it(tmp_path: Path) -> None:
    program = (
        "import os, subprocess, sys, time\n"
        "command = [sys.executable, '-m', 'stillframe.sweeps.process_guard', '0', str(os.getpid()), '--']\n"
        "subprocess.Popen([*command, sys.executable, '-c', sys.argv[1], sys.argv[2]])\n"
        "time.sleep(300)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program, SLEEPERS, str(tmp_path / "up")])
    while not (tmp_path / "up").exists():
        time.sleep(0.02)
    family = below(parent.pid)
    assert len(family) == 3
    parent.kill()
    parent.wait()
    _, left = psutil.wait_procs(family, timeout=60)
    assert not left


@pytest.mark.parametrize(("words", "code"), [(["-c", "pass"], 0), (["-c", "import sys; sys.exit(3)"], 3)])
def test_the_guard_passes_the_exit_code_on(words: list[str], code: int) -> None:
    command = [
        sys.executable,
        "-m",
        "stillframe.sweeps.process_guard",
        "0",
        str(os.getpid()),
        "--",
        sys.executable,
        *words,
    ]
    assert subprocess.run(command, timeout=60, check=False).returncode == code


# --- what is kept ------------------------------------------------------------------------------------------------


def made(tmp_path: Path, values: list[float], directions: list[str] | None = None) -> store.Sweep:
    facts = {"name": "s", "objectives": ["val/f1_macro"], "directions": directions or ["maximize"]}
    sweep = store.Sweep(tmp_path / "s", facts).write()
    for number, value in enumerate(values):
        one = store.Repeat(0, 0, None, "finished", metrics={"val/f1_macro": value, "val/auroc": math.nan})
        sweep.save(store.Trial(number, [f"a={number}"], "finished", [value], [one]))
    return sweep


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    sweep = made(tmp_path, [0.5, 0.75, 0.25])
    sweep.save(store.Trial(3, ["a=3"], "failed", error="it broke"))
    again = store.Sweep.read(tmp_path / "s")
    assert [one.state for one in again.trials()] == ["finished"] * 3 + ["failed"]
    best = again.best()
    assert best is not None and best.number == 1
    assert math.isnan(best.repeats[0].metrics["val/auroc"]), "a metric that is not defined stays so"
    assert store.find_sweep(None, tmp_path).folder == tmp_path / "s"
    assert json.loads((tmp_path / "s/trials/0001/trial.json").read_text())["values"] == [0.75]
    least = made(tmp_path / "least", [0.5, 0.25], ["minimize"]).best()
    assert least is not None and least.number == 1


def test_a_sweep_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="none yet"):
        store.Sweep.read(tmp_path / "x")
    made(tmp_path, [])
    with pytest.raises(FileNotFoundError, match="there are s"):
        store.Sweep.read(tmp_path / "x")


def test_the_lines_in_the_terminal(tmp_path: Path) -> None:
    sweep = made(tmp_path, [0.5, 0.75])
    sweep.save(store.Trial(2, ["a=2"], "running", started=time.time()))
    text = live_table.summary(sweep.trials(), sweep, 6, 10.0)
    assert text == "2 of 6 done  1 running  best val/f1_macro 0.7500 (trial 1)  about 0:20 left"
    assert "finished  a=1  val/f1_macro 0.7500" in live_table.line(sweep.trials()[1], sweep)
    assert live_table.table(sweep.trials(), sweep).row_count == 3
    assert live_table._clock(3660) == "1 h 1 min"


def test_the_last_lines_of_a_failed_run_hold_no_bars_and_no_advice() -> None:
    text = "Epoch 1 ---\rEpoch 2 ---\ntrain: model.name = 'x': unknown\nERROR: failed\n\nTo track the changes\n"
    assert repeat.last_lines(text) == "Epoch 2 ---\ntrain: model.name = 'x': unknown\nERROR: failed"
    again = "ERROR: failed to reproduce 'train': failed to run: python -m stillframe.stages.train, exited with 1\n"
    assert repeat.last_lines("train: no such file\n" + again) == "train: no such file"
    assert repeat.last_lines("> python -m stillframe.stages.train\n" + again).endswith("exited with 1")


def test_repeats_have_their_seeds_and_folds() -> None:
    values = {"seed": 3, "data": {"path": "photos", "folds": 0, "fold": 0}}
    seeds = [repeat.parameters(values, number, 0, Path("/root")) for number in range(2)]
    assert [one["seed"] for one in seeds] == [3, 4] and seeds[0]["data"]["path"] == "/root/photos"
    both = [repeat.parameters(values, number, 2, Path("/root")) for number in range(4)]
    assert [(one["seed"], one["data"]["fold"]) for one in both] == [(3, 0), (3, 1), (4, 0), (4, 1)]
    assert {one["data"]["folds"] for one in both} == {2}


# --- the record --------------------------------------------------------------------------------------------------


TRACKING = {"experiment": "stillframe", "uri": None, "timeout_s": 20.0, "flush_s": 5.0}


def open_child(folder: str, number: int) -> str | None:
    sweep = store.Sweep.read(Path(folder))
    return mlflow_record.TrialRun(sweep, number, 0, f"s-{number}", {"tracking": TRACKING}).run_id


@pytest.mark.slow
def test_eight_trials_at_once_on_an_empty_store(tmp_path: Path) -> None:
    """Eight processes, none of which finds a database: one makes it, and all have a run."""
    facts = {"name": "s", "commit": "c", "parent_run": None, "tracking_uri": f"sqlite:///{tmp_path / 'mlflow.db'}"}
    sweep = store.Sweep(tmp_path / "s", facts).write()
    with ProcessPoolExecutor(8, mp_context=get_context("spawn")) as pool:
        runs = list(pool.map(open_child, [str(sweep.folder)] * 8, range(8)))
    assert len(set(runs)) == 8 and None not in runs


def test_a_tracking_server_that_is_away_stops_no_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = {"name": "s", "commit": "c", "parent_run": None, "tracking_uri": "http://127.0.0.1:9"}
    sweep = store.Sweep(tmp_path / "s", facts).write()
    child = mlflow_record.TrialRun(sweep, 0, 0, "s-0", {"tracking": TRACKING})
    assert child.run_id is None and "did not take" in capsys.readouterr().err
    assert mlflow_record.RUN not in child.environment()
    child.close(store.Repeat(0, 0, None, "finished"), tmp_path)
