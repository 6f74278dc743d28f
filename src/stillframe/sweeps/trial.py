"""One trial, as Hydra's launchers run it in whatever process: a worktree, the repeats, their mean."""

from __future__ import annotations

import os
import platform
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from stillframe import config
from stillframe.sweeps import repeat as one_repeat
from stillframe.sweeps import stopping
from stillframe.sweeps.settings import OWN
from stillframe.sweeps.stopping import FOLDER
from stillframe.sweeps.store import DONE, Sweep, Trial
from stillframe.sweeps.worktree import take
from stillframe.training.trial_pruning import SEARCH


def run(cfg: DictConfig) -> dict[str, Any]:
    """Run the trial that Hydra composed; returns what a sweeper needs of it: {"state", "values", "number"}."""
    hydra = HydraConfig.get()
    sweep = Sweep.read(Path(os.environ[FOLDER]))
    values: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    values = {name: value for name, value in values.items() if name not in OWN}
    own = tuple(f"{name}{mark}" for name in OWN for mark in ".=")
    overrides = [override for override in hydra.overrides.task if not override.lstrip("+").startswith(own)]
    # A sweep that goes on: a trial that is done is not run again, of one that was stopped the finished repeats count.
    number = int(hydra.job.num)
    before = sweep.trial(number)
    if before is not None and before.state in DONE and before.overrides == overrides:
        return {"state": before.state, "values": before.values, "number": number}
    trial = Trial(number, overrides, "running", started=time.time(), host=platform.node(), pid=os.getpid())
    if before is not None and before.overrides == overrides:
        trial = replace(trial, repeats=[repeat for repeat in before.repeats if repeat.state == "finished"])
    sweep.save(trial)
    try:
        config.check_all(values, origin=" ".join(overrides))
        trial = _run(sweep, trial, values)
    except ValueError as problem:  # a setting that does not fit: recorded, and the sweep goes on
        trial = replace(trial, state="failed", error=str(problem))
    except BaseException:  # Ctrl-C, SIGTERM or an error of ours: the finished repeats are already saved
        latest = sweep.trial(number) or trial
        sweep.save(replace(latest, state="stopped", seconds=round(time.time() - trial.started, 2)))
        stopping.leave()
        raise
    trial = sweep.save(replace(trial, seconds=round(time.time() - trial.started, 2)))
    if trial.state == "failed":
        print(f"trial {number} ({' '.join(overrides)}) failed: {trial.error.splitlines()[-1]}", file=sys.stderr)
    return {"state": trial.state, "values": trial.values, "number": number}


def _run(sweep: Sweep, trial: Trial, values: dict[str, Any]) -> Trial:
    """All repeats that are not done yet, then their mean. The first that does not finish ends the trial."""
    facts = sweep.facts
    root, done = Path(facts["root"]), {result.repeat for result in trial.repeats}
    stopping.watch_parent()
    with take(root, facts["slots"]) as slot:
        gpus = devices(facts, slot.number)
        trial = sweep.save(replace(trial, slot=slot.number, gpus=gpus or ""))
        for number in range(facts["repeats"]):
            if number in done:
                continue
            repeat_values = one_repeat.parameters(values, number, facts["folds"], root)
            extra = {} if SEARCH not in os.environ else {SEARCH: os.environ[SEARCH]}
            extra |= {"STILLFRAME_TRIAL": str(trial.number), "STILLFRAME_REPEAT": str(number)}
            result = one_repeat.run(sweep, slot, trial.number, number, repeat_values, gpus, extra)
            repeats = sorted([*trial.repeats, result], key=lambda run: run.repeat)
            trial = sweep.save(replace(trial, repeats=repeats))
            if result.state != "finished":
                return replace(trial, state=result.state, error=result.error)
    missing = [name for name in facts["objectives"] if len(trial.metric(name)) < facts["repeats"]]
    if missing:
        hint = config.nearest(missing[0], trial.repeats[0].metrics)
        return replace(trial, state="failed", error=f"sweep.objective = {missing[0]}: no such metric: {hint}")
    return replace(trial, state="finished", values=[trial.mean(name) for name in facts["objectives"]])


def complete_best(sweep: Sweep) -> None:
    """Where the trials end before the test split, the best one goes the rest of the way, and no other.

    With `sweep.test` none not even that one does: a search that will be followed by another has no use for it.
    """
    best = sweep.best() if sweep.facts["test"] == "best" else None
    if (
        best is None
        or sweep.facts["until"] == "report"
        or any(name.startswith("test/") for name in best.repeats[0].metrics)
    ):
        return
    import yaml

    whole = replace(sweep, facts={**sweep.facts, "until": "report"})
    values = yaml.safe_load((sweep.trial_folder(best.number) / "r0" / "params.yaml").read_text(encoding="utf-8"))
    with take(Path(sweep.facts["root"]), sweep.facts["slots"]) as slot:
        result = one_repeat.run(whole, slot, best.number, 0, values, devices(sweep.facts, slot.number), {})
    if result.state == "finished":
        sweep.save(replace(best, repeats=[result, *best.repeats[1:]]))
    else:
        print(f"the best trial, {best.number}, did not get through the test split: {result.error}", file=sys.stderr)


def devices(facts: dict[str, Any], slot: int) -> str | None:
    """CUDA_VISIBLE_DEVICES of a slot; None: as the launcher (Ray, SLURM) or the user has set it."""
    gpus, each = facts["gpus"], facts["gpus_each"]
    return ",".join(gpus[slot * each : (slot + 1) * each]) if gpus and each else None
