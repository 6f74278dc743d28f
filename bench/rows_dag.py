"""Rows 1 and 7: what the DAG and its stages cost beyond their work, in a clone of this checkout."""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import time
from pathlib import Path

import yaml
from bench.measuring import ROOT, Result, Setting, call, interleaved, quiet_environment, ratio, spread

HEAVY = tuple(
    "torch torchvision torchmetrics timm pytorch_lightning mlflow albumentations cv2 pandas sklearn scipy joblib hydra "
    "matplotlib captum datasets".split()
)
LEAN = ("fetch", "preprocess", "augment")  # the stages that must not import torch
DVC = (sys.executable, "-m", "dvc")


def checkout(setting: Setting, name: str) -> tuple[Path, dict[str, str]]:
    """A clone of the last commit that runs on digits and has made nothing yet, and its environment."""
    folder = setting.work / name
    env = quiet_environment(setting.threads, folder / "src")
    if not folder.exists():
        call("git", "clone", "-q", "--no-hardlinks", ROOT, folder, cwd=setting.work, env=env)
        root = folder / "conf/config.yaml"
        text = root.read_text(encoding="utf-8")
        assert "experiment: null" in text, f"{root} does not choose its experiment as it did"
        root.write_text(text.replace("experiment: null", "experiment: digits_smoke"), encoding="utf-8")
    return folder, env


def clone(setting: Setting) -> tuple[Path, dict[str, str], float]:
    """A clone of the last commit where the DAG has run on digits, its environment, and the seconds of that run."""
    there = (setting.work / "clone" / "dvc.lock").exists()
    folder, env = checkout(setting, "clone")
    started = time.perf_counter()
    if not there:
        call(*DVC, "repro", "-q", cwd=folder, env=env)
    return folder, env, 0.0 if there else time.perf_counter() - started


def stub(setting: Setting, like: Path, env: dict[str, str]) -> Path:
    """A repository whose DAG has as many stages, in a chain, each with one small file in and out."""
    folder = setting.work / "stub"
    stages = len(yaml.safe_load((like / "dvc.yaml").read_text(encoding="utf-8"))["stages"])
    folder.mkdir()
    call("git", "init", "-q", cwd=folder, env=env)
    call(*DVC, "init", "-q", cwd=folder, env=env)
    shutil.copy(like / ".dvc/config", folder / ".dvc/config")
    (folder / "out0").write_text("0", encoding="utf-8")
    blocks = {
        f"stage{number}": {
            "cmd": f"cp out{number - 1} out{number}",
            "deps": [f"out{number - 1}"],
            "outs": [f"out{number}"],
        }
        for number in range(1, stages + 1)
    }
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": blocks}), encoding="utf-8")
    call(*DVC, "repro", "-q", cwd=folder, env=env)
    return folder


def unchanged(folder: Path, env: dict[str, str]) -> float:
    """Seconds of a `dvc repro` that has nothing to do."""
    started = time.perf_counter()
    said = call(*DVC, "repro", cwd=folder, env=env)
    took = time.perf_counter() - started
    assert "Data and pipelines are up to date" in said and "Running stage" not in said, said[-2000:]
    return took


def second_repro(setting: Setting) -> list[Result]:
    """Row 1: `dvc repro` where nothing changed."""
    folder, env, first = clone(setting)
    bare = stub(setting, folder, env)
    stages = yaml.safe_load((folder / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    files = sum(len(block.get("deps", [])) + len(block.get("outs", [])) for block in stages.values())
    unchanged(folder, env), unchanged(bare, env)
    ours, theirs = interleaved(lambda: unchanged(folder, env), lambda: unchanged(bare, env), setting.pick(7, 2))
    more = ratio(ours, theirs)
    note = (
        f"a clone of this checkout after `digits_smoke` ({first:.0f} s for the first `dvc repro`): {len(stages)} "
        f"stages with {files} deps and outs, no stage ran, {spread(ours)}; a stub with as many stages of one file "
        f"each {spread(theirs)}."
    )
    return [
        Result(
            1,
            "second `dvc repro`, nothing changed, against a bare stub",
            "<= 1.2 x",
            f"{more:.2f} x",
            more <= 1.2,
            note,
        )
    ]


TWICE = """
import json, runpy, sys, time
name, module = sys.argv[1], "stillframe.stages." + sys.argv[1]

def once():
    sys.argv = [module]
    started = time.perf_counter()
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        assert not end.code, end.code
    return time.perf_counter() - started

if __name__ == "__main__":
    from stillframe.tracking import record as tracking

    tracking.start_ahead = lambda: None  # mlflow in this process: a new one would import it in the second run, too
    first = once()
    heavy = [other for other in HEAVY if other in sys.modules]
    print("\\n" + json.dumps({"heavy": heavy, "again": once()}))
"""


def _overhead(
    folder: Path, stage: str, script: Path, env: dict[str, str], rounds: int
) -> tuple[float, float, list[str]]:
    """Seconds of a fresh process, of the same work once everything is imported, and the heavy modules."""
    cold, warm, heavy = [], [], []
    for _ in range(rounds):
        started = time.perf_counter()
        call(sys.executable, "-m", f"stillframe.stages.{stage}", cwd=folder, env=env)
        cold.append(time.perf_counter() - started)
        seen = json.loads(call(sys.executable, script, stage, cwd=folder, env=env).splitlines()[-1])
        warm.append(seen["again"])
        heavy = seen["heavy"]
    return statistics.median(cold), statistics.median(warm), heavy


def stages(setting: Setting) -> list[Result]:
    """Row 7: start-up and import of every stage, on digits."""
    folder, env, _ = clone(setting)
    params = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    params["trainer"]["max_epochs"] = 1
    work = yaml.safe_dump(params, sort_keys=False)
    script = setting.work / "twice.py"
    script.write_text(f"HEAVY = {HEAVY!r}\n{TWICE}", encoding="utf-8")
    out = []
    for stage in yaml.safe_load((folder / "dvc.yaml").read_text(encoding="utf-8"))["stages"]:
        if stage != "compose":
            (folder / "params.yaml").write_text(work, encoding="utf-8")
        cold, warm, heavy = _overhead(folder, stage, script, env, setting.pick(2, 1))
        over = cold - warm
        lean = stage not in LEAN or "torch" not in heavy
        target = "<= 4 s, no torch" if stage in LEAN else "<= 4 s"
        loaded = ", ".join(heavy) or "nothing heavy"
        note = f"`{stage}`: {cold:.1f} s in a fresh process, {warm:.1f} s of it work; imports {loaded}."
        what = f"stage `{stage}`: start-up and import beyond its work on digits"
        out.append(Result(7, what, target, f"{over:.1f} s", over <= 4 and lean, note))
    return out
