"""Where a sweep begins: its folder and facts, and its share of the machine for each trial."""

from __future__ import annotations

import os
import shlex
import time
from pathlib import Path
from typing import Any

from stillframe.sweeps import git_snapshot, settings
from stillframe.sweeps.mlflow_record import store_of
from stillframe.sweeps.settings import MANY, SweepSettings
from stillframe.sweeps.store import Sweep
from stillframe.training.launch import visible_gpus


def open_sweep(config: SweepSettings, values: dict[str, Any], overrides: list[str]) -> Sweep:
    """The folder of this sweep: a new one, or the one that the same command began.

    Raises:
        ValueError: no commit to start from, or a sweep of this name with other code or another command.
    """
    root = Path.cwd()
    snap = git_snapshot.take(root)
    code = snap.code
    own = settings.default_name(overrides, code)
    name = config.name or own
    folder = root / "sweeps" / name
    folder.mkdir(parents=True, exist_ok=True)
    tools = values["hydra"]
    parallel = config.parallel or at_once(tools["launcher"])
    gpus, each = share_gpus(config, parallel)
    facts = {
        "name": name,
        "root": str(root),
        "command": "python -m stillframe.sweep -m " + shlex.join(overrides),
        "identity": own,
        "head": snap.head,
        "commit": snap.commit,
        "code": code,
        "task": values["task"],
        "objectives": config.objectives,
        "directions": config.directions,
        "seeds": config.seeds,
        "folds": config.folds,
        "repeats": config.seeds * (config.folds or 1),
        "slots": min(parallel or MANY, len(gpus) // each if gpus and each else MANY),
        "parallel": parallel or MANY,
        "threads": threads(parallel, tools["launcher"]),
        "gpus": gpus,
        "gpus_each": each,
        "timeout_s": config.timeout_s,
        "until": config.until,
        "test": config.test,
        "tracking_uri": store_of(values),
        "started": time.time(),
        "parent_run": None,
        "state": "running",
    }
    if (folder / "sweep.json").exists():
        before = Sweep.read(folder)
        if before.facts["identity"] != own:
            raise ValueError(
                f"sweep.name = {name}: {folder}/sweep.json is of another command or other code "
                f"({before.facts['command']}): choose another name"
            )
        # What trials were made from stays: later ones must be comparable, though HEAD may have moved.
        before_facts = {key: before.facts[key] for key in ("head", "commit", "parent_run", "started", "tracking_uri")}
        facts |= before_facts
    git_snapshot.keep(root, name, str(facts["commit"]))
    return Sweep(folder, facts).write()


def at_once(launcher: dict[str, Any]) -> int:
    """Trials that a launcher runs at once; 0: it decides itself (Ray, SLURM)."""
    kind = str(launcher["_target_"])
    if "Basic" in kind:
        return 1
    if "joblib" in kind:
        jobs = int(launcher["n_jobs"])
        return jobs if jobs > 0 else max(1, len(os.sched_getaffinity(0)) + 1 + jobs)
    return 0


def threads(parallel: int, launcher: dict[str, Any]) -> int:
    """CPU threads of one trial: its share of the cores, or what it asks of Ray or SLURM."""
    if parallel:
        return max(1, len(os.sched_getaffinity(0)) // parallel)
    cpus = (launcher.get("ray") or {}).get("remote", {}).get("num_cpus") or launcher.get("cpus_per_task") or 1
    return max(1, int(cpus))


def share_gpus(config: SweepSettings, parallel: int) -> tuple[list[str] | None, int]:
    """The devices, and how many of them a trial gets; (None, 0): they stay as the launcher or the user has set them.

    Raises:
        ValueError: fewer devices than a trial needs.
    """
    # An empty CUDA_VISIBLE_DEVICES means none, an unset one all.
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    seen = listed.split(",") if listed is not None else [str(number) for number in range(visible_gpus())]
    gpus = config.gpus if config.gpus is not None else [gpu for gpu in seen if gpu.strip()]
    if not gpus or parallel == 0 or (parallel == 1 and not config.gpus_per_trial and config.gpus is None):
        return None, 0
    each = config.gpus_per_trial or (len(gpus) if parallel == 1 else 1)
    if each > len(gpus):
        raise ValueError(f"sweep.gpus_per_trial = {each}: there are {len(gpus)} ({', '.join(gpus)})")
    return gpus, each
