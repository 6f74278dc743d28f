"""`stillframe promote`: a trial becomes the workspace, and its model a version in MLflow's registry."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from stillframe import config
from stillframe.paths import EXPORT, SOURCE, TRAIN, read_json
from stillframe.registry.model_registry import ModelRegistry
from stillframe.stages.compose import link_source
from stillframe.sweeps.git_snapshot import RESULTS, GitError, git
from stillframe.sweeps.store import Repeat, Sweep, Trial


def promote(sweep: Sweep, which: str, repeat: int, name: str | None) -> tuple[Trial, str, str]:
    """Apply a run of a trial to the checkout in the current folder, and register its model.

    Args:
        sweep: of the trial.
        which: the trial's number, or "best".
        repeat: which of its runs; 0 has the seed and the fold that the configuration names.
        name: of the registered model; None: the data set's.

    Returns:
        The trial, the model's name and its version.

    Raises:
        ValueError: no such trial or run, it did not finish, uncommitted edits would be overwritten, the checkout has
            moved on, or DVC or MLflow refused.
    """
    # 1. Everything that can be refused is checked before the checkout is changed.
    trial, chosen = choose(sweep, which, repeat)
    root = Path.cwd()
    check(root, sweep, chosen)
    _apply(root, str(chosen.experiment))
    # 2. `dvc exp apply` sets the files; the link to the user's images is outside git and DVC.
    path = sweep.trial_folder(trial.number) / f"r{chosen.repeat}" / "params.yaml"
    values: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    link_source(values["data"]["path"], root / SOURCE)
    # 3. Register.
    model = name or str(values["data"]["name"])
    try:
        version = register(sweep, trial, chosen, values, root / TRAIN, model)
    except Exception as error:  # MLflow raises what its stores and its network raise
        raise ValueError(
            f"the checkout has trial {trial.number} now, but MLflow at {sweep.facts['tracking_uri']} did not take its "
            f"model: {' '.join(str(error).split())[:300]}. The same command again registers it"
        ) from error
    return trial, model, version


def choose(sweep: Sweep, which: str, repeat: int) -> tuple[Trial, Repeat]:
    """The trial and its run.

    Raises:
        ValueError: there is none, or it did not finish.
    """
    trial = sweep.best() if which == "best" else sweep.trial(int(which)) if which.isdecimal() else None
    if trial is None:
        finished = ", ".join(str(other.number) for other in sweep.trials() if other.state == "finished") or "none"
        raise ValueError(f"{which}: no such trial of sweep {sweep.facts['name']}: finished are {finished} (or `best`)")
    chosen = next((run for run in trial.repeats if run.repeat == repeat and run.state == "finished"), None)
    if chosen is None or not chosen.commit:
        last = (trial.error.strip().splitlines() or [""])[-1]
        raise ValueError(
            f"trial {trial.number}, repeat {repeat}, has not finished ({trial.state}): {last}".rstrip(": ")
        )
    return trial, chosen


def check(root: Path, sweep: Sweep, run: Repeat) -> None:
    """Refuse what `dvc exp apply` would do without a word: overwrite edits, undo later commits.

    Raises:
        ValueError: with the files, and what to do.
    """
    try:
        git(root, "cat-file", "-e", f"{run.commit}^{{commit}}")
    except (GitError, FileNotFoundError):
        raise ValueError(
            f"{root}: git does not know {run.experiment} ({run.commit}): run this in the checkout of the sweep, "
            f"{sweep.facts['root']}"
        ) from None
    lost = overwritten(root, sweep, str(run.commit))
    if lost:
        raise ValueError(
            f"uncommitted edits would be overwritten: {', '.join(lost[:5])}{' ...' if len(lost) > 5 else ''}: commit "
            "them or `git stash` first"
        )
    # Files that differ from the trial though nobody edited them since: HEAD has moved on from where the sweep began.
    edits = _names(root, "diff", "--name-only", sweep.facts["head"], sweep.facts["commit"])
    later = set(_names(root, "diff", "--name-only", "HEAD", str(run.commit))) - edits - set(RESULTS)
    if later:
        raise ValueError(
            f"{len(later)} files were committed since the sweep began ({min(later)}), and applying the trial would set "
            f"them back: `git checkout -b promoted {sweep.facts['head'][:10]}` first, or `dvc exp branch "
            f"{run.experiment} NAME` and merge"
        )


def overwritten(root: Path, sweep: Sweep, commit: str) -> list[str]:
    """Files with uncommitted edits that `commit` has otherwise and that no commit of the sweep holds either.

    What an earlier trial left, applied by this command, is in that trial's commit: nothing is lost with it.
    """
    loose = _names(root, "ls-files", "--modified", "--deleted", "--others", "--exclude-standard")
    changed = sorted(loose | _names(root, "diff", "--name-only", "--cached", "HEAD"))
    theirs = _blobs(root, commit, changed)
    commits = [
        sweep.facts["commit"],
        *(str(run.commit) for trial in sweep.trials() for run in trial.repeats if run.commit),
    ]
    out = []
    for path in changed:
        if path not in theirs:
            continue  # DVC leaves alone what the trial does not have
        here = git(root, "hash-object", path) if (root / path).is_file() else ""
        if here != theirs[path] and not any(_blobs(root, other, [path]).get(path) == here for other in commits):
            out.append(path)
    return out


def _names(root: Path, *arguments: str) -> set[str]:
    return {name for name in git(root, *arguments, "-z").split("\0") if name}


def _blobs(root: Path, commit: str, paths: list[str]) -> dict[str, str]:
    """Path -> git's hash of its contents, of those that a commit has."""
    if not paths:
        return {}
    lines = [line for line in git(root, "ls-tree", "-r", "-z", commit, "--", *paths).split("\0") if line]
    return {line.split("\t", 1)[1]: line.split("\t", 1)[0].split()[2] for line in lines}


def _apply(root: Path, experiment: str) -> None:
    env = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "GIT_"))}
    command = [sys.executable, "-m", "dvc", "exp", "apply", experiment]
    answer = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=False)
    if answer.returncode:
        last = (answer.stderr.strip() or answer.stdout.strip()).splitlines()[-1:]
        raise ValueError(f"dvc exp apply {experiment}: {' '.join(last)}")


def register(sweep: Sweep, trial: Trial, repeat: Repeat, values: dict[str, Any], trained: Path, name: str) -> str:
    """Make the model of a trial's run a version of the registered model `name`; the version.

    Args:
        sweep: of the trial.
        trial: the trial.
        repeat: its run. A run that is registered already keeps its version.
        values: composed parameters of the run.
        trained: artifacts/train of the checkout; the exported file is searched in artifacts/export beside it.
        name: of the registered model.

    Raises:
        ValueError: the trial has no MLflow run. Else what MLflow raises.
    """
    from mlflow.exceptions import MlflowException

    tracking = config.build("tracking", values["tracking"])
    registry = ModelRegistry(sweep.facts["tracking_uri"], tracking, name)
    tags = {
        "stillframe.sweep": sweep.facts["name"],
        "stillframe.trial": str(trial.number),
        "stillframe.repeat": str(repeat.repeat),
        "stillframe.run": repeat.run_id or "none",
        "stillframe.setting": " ".join(trial.overrides)[:4000],
        "dvc.experiment": str(repeat.experiment),
        "git.commit": str(repeat.commit),
    }
    tags |= {key: f"{value:.6g}" for key, value in repeat.metrics.items() if key.count("/") == 1}

    # The run whose artifacts hold the model: the trial's own or, where the training came from the cache, the one that
    # trained. Where neither has it, `registry` sends `trained` to the trial's own.
    for run_id in (repeat.run_id, read_json(trained / "run.json").get("run_id")):
        with suppress(MlflowException):  # a run of another store, or one that was deleted
            if run_id and registry.has_weights(run_id):
                break
    else:
        run_id = repeat.run_id
    if not run_id:
        raise ValueError("the trial has no MLflow run, because the server was away while it ran")
    return registry.register(
        run_id,
        trained=trained,
        exported=trained.parent / EXPORT.name / "model.onnx",
        tags=tags,
        same=lambda version: version.tags.get("git.commit") == repeat.commit,
        by="stillframe promote",
    )
