"""One run of the DAG in a worktree: parameters in, `dvc repro`, metrics, a DVC experiment and an MLflow run out."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from stillframe.config import hydra_compose
from stillframe.paths import EVALUATE, PARAMS, SOURCE, TRAIN, VALIDATE, read_json
from stillframe.stages.compose import link_source
from stillframe.sweeps import mlflow_record
from stillframe.sweeps.store import Repeat, Sweep
from stillframe.sweeps.worktree import Worktree, alone, environment, run_guarded
from stillframe.training.trial_pruning import PRUNED

UPSTREAM = ("task", "seed", "data", "augment")  # parameters of the stages before `train`
COPIED = {  # file of the slot -> its name beside the trial
    VALIDATE / "predictions.parquet": "val_predictions.parquet",
    EVALUATE / "predictions.parquet": "test_predictions.parquet",
    EVALUATE / "intervals.json": "intervals.json",
    TRAIN / "summary.json": "summary.json",
    TRAIN / "history.csv": "history.csv",
    PARAMS: "params.yaml",
}


class RunFailed(Exception):
    """The DAG ended with an error; the message is the last lines of its log."""


class RunPruned(Exception):
    """The search ended the training midway."""


def parameters(values: dict[str, Any], repeat: int, folds: int, root: Path) -> dict[str, Any]:
    """The parameters of one repeat: its seed, its fold; a folder of the user's by its absolute path."""
    # repeats 0..K-1 are the folds of the first seed, K..2K-1 those of the second, ...
    turn, fold = divmod(repeat, folds) if folds else (repeat, None)
    data = dict(values["data"])
    # relative to the user's checkout, not to the worktree
    if data["path"] is not None:
        data["path"] = str((root / Path(data["path"]).expanduser()).absolute())
    if fold is not None:
        data |= {"folds": folds, "fold": fold}
    return {**values, "data": data, "seed": values["seed"] + turn}


def run(
    sweep: Sweep,
    slot: Worktree,
    number: int,
    repeat: int,
    values: dict[str, Any],
    gpus: str | None,
    env: dict[str, str],
) -> Repeat:
    """Run the DAG with `values` in `slot`; never raises for what goes wrong in the DAG itself.

    Raises:
        KeyboardInterrupt: asked to stop; the training's state is kept in the slot.
    """
    started = time.monotonic()
    folder = sweep.trial_folder(number) / f"r{repeat}"
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{sweep.facts['name']}-{number:04d}" + (f"-r{repeat}" if sweep.facts["repeats"] > 1 else "")
    result = Repeat(repeat, values["seed"], values["data"].get("fold"), "running", experiment=name)
    child = mlflow_record.TrialRun(sweep, number, repeat, name, values)
    result = replace(result, run_id=child.run_id)
    try:
        result = _run(sweep, slot, folder, result, values, gpus, {**env, **child.environment()})
    except RunPruned as problem:
        result = replace(result, state="pruned", error=str(problem))
    except (RunFailed, ValueError, OSError) as problem:
        result = replace(result, state="failed", error=str(problem))
    except BaseException:
        child.close(replace(result, state="stopped", seconds=time.monotonic() - started), folder)
        raise
    result = replace(result, seconds=round(time.monotonic() - started, 2))
    child.close(result, folder)
    return result


def _run(
    sweep: Sweep,
    slot: Worktree,
    folder: Path,
    result: Repeat,
    values: dict[str, Any],
    gpus: str | None,
    extra: dict[str, str],
) -> Repeat:
    # The worktree as the sweep's commit has it, with this trial's parameters.
    slot.start_from(sweep.facts["commit"])
    (slot.folder / PRUNED).unlink(missing_ok=True)
    (slot.folder / PARAMS).write_text(hydra_compose.as_yaml(values), encoding="utf-8")
    link_source(values["data"]["path"], slot.folder / SOURCE)
    env = environment(slot, gpus, sweep.facts["threads"], {"DVC_EXP_NAME": str(result.experiment), **extra})
    log = folder / "log.txt"
    log.unlink(missing_ok=True)
    # Of trials with the same data and augmentation one runs the first stages; the others take them from DVC's cache.
    upstream = hashlib.sha256(json.dumps([values[name] for name in UPSTREAM], sort_keys=True).encode()).hexdigest()
    dvc = [sys.executable, "-m", "dvc", "repro"]
    with alone(sweep.folder / "upstream", upstream[:16]) as first:
        if first and sweep.facts["parallel"] > 1:
            _check(run_guarded(slot, [*dvc, "augment"], env, log, sweep.facts["timeout_s"] or 0), slot, log)
    _check(run_guarded(slot, [*dvc, sweep.facts["until"]], env, log, sweep.facts["timeout_s"] or 0), slot, log)

    # What comparison needs beside the sweep, and a commit where DVC looks for experiments.
    for source, target in COPIED.items():
        if (slot.folder / source).exists() and not (source.parent == EVALUATE and sweep.facts["until"] == "validate"):
            shutil.copyfile(slot.folder / source, folder / target)
    commit = slot.commit(sweep.facts["head"], f"sweep {sweep.facts['name']}: {result.experiment}")
    slot.publish(commit, sweep.facts["head"], str(result.experiment))
    lines = log.read_text(encoding="utf-8", errors="replace")
    ran = list(dict.fromkeys(re.findall(r"^Running stage '(\w+)':", lines, re.MULTILINE)))  # in their order
    return replace(result, state="finished", commit=commit, metrics=metrics(slot.folder, sweep.facts["until"]), ran=ran)


def _check(code: int, slot: Worktree, log: Path) -> None:
    if code == 0:
        return
    if (slot.folder / PRUNED).exists():
        raise RunPruned(read_json(slot.folder / PRUNED)["why"])
    text = log.read_text(encoding="utf-8", errors="replace")
    if code == 124:
        text += "\nsweep.timeout_s is over"
    raise RunFailed(last_lines(text) or f"exit code {code}")


def last_lines(text: str) -> str:
    """The last lines of a failed `dvc repro` without its progress bars and hints, for the record."""
    lines = [line.rpartition("\r")[2].rstrip() for line in text.split("\n")]
    lines = [
        line for line in lines if line and not line.startswith(("To track", "\tgit add", "To enable", "\tdvc conf"))
    ]
    if len(lines) > 1 and lines[-1].startswith("ERROR: failed to reproduce") and not lines[-2].startswith("> "):
        lines.pop()  # the stage itself has printed why
    return "\n".join(lines[-12:])[-2000:]


def metrics(folder: Path, until: str = "report") -> dict[str, float]:
    """What the stages up to `until` measured: val/..., test/..., and what the training cost."""
    out: dict[str, float] = {}
    folders = [("val", VALIDATE), ("test", EVALUATE)]
    for split, stage in folders[: 1 if until == "validate" else 2]:
        values = read_json(folder / stage / "metrics.json")
        out |= {f"{split}/{name}": float(value) for name, value in values.items() if isinstance(value, int | float)}
    summary = read_json(folder / TRAIN / "summary.json")
    return out | {"train/seconds": float(summary["seconds"]), "train/parameters": float(summary["parameters"])}
