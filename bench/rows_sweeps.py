"""Rows 10 to 12: what a sweep adds to the DAG, and what it saves, in clones of this checkout, on digits."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

from bench.measuring import Result, Setting, call, ratio, spread
from bench.rows_dag import DVC, checkout, clone, unchanged


def sweep(folder: Path, env: dict[str, str], name: str, *words: str) -> tuple[list[dict[str, Any]], float]:
    """Run a sweep through its door: the facts of its trials, and the seconds of the whole command."""
    started = time.perf_counter()
    call(sys.executable, "-m", "stillframe.sweep", "-m", f"sweep.name={name}", *words, cwd=folder, env=env)
    took = time.perf_counter() - started
    places = sorted((folder / "sweeps" / name / "trials").glob("*/trial.json"))
    return [json.loads(place.read_text(encoding="utf-8")) for place in places], took


def ran(trials: list[dict[str, Any]]) -> Counter[str]:
    """How often each stage ran; compose, which writes parameters, left out."""
    counts = Counter(stage for trial in trials for one in trial["repeats"] for stage in one["ran"])
    counts.pop("compose", None)
    return counts


def at_once(count: int) -> tuple[str, str]:
    """The engine: processes."""
    return "hydra/launcher=joblib", f"hydra.launcher.n_jobs={count}"


def cached_trial(setting: Setting) -> list[Result]:
    """Row 10: a trial whose stages are all in DVC's cache."""
    folder, env, _ = clone(setting)
    count, half = setting.pick(8, 3), setting.pick(4, 2)
    words = ["optim.lr=" + ",".join(f"{0.01 + number / 1e4:.4f}" for number in range(count)), "trainer.max_epochs=1"]
    sweep(folder, env, "fill", *words)
    call(*DVC, "repro", cwd=folder, env=env)  # row 7 leaves other parameters behind
    bare = [unchanged(folder, env) for _ in range(half)]
    trials, _ = sweep(folder, env, "cached", *words)
    bare += [unchanged(folder, env) for _ in range(half)]
    assert not ran(trials), ran(trials)
    starts = [trial["started"] for trial in trials]
    steps = [after - before for before, after in zip(starts, starts[1:], strict=False)]
    more = ratio(steps, bare)
    note = (
        f"{count} settings of `digits_smoke` whose stages have all run before, one after the other: from a trial's "
        f"start to the next one's {spread(steps)}, with git, the files from DVC's cache, the DVC experiment and the "
        f"MLflow run; `dvc repro` with nothing to do, before and after, {spread(bare)}."
    )
    what = "one more trial in a sweep whose stages are all cached"
    return [Result(10, what, "<= 3 x a bare `dvc repro`", f"{more:.2f} x", more <= 3, note)]


def grid(setting: Setting) -> list[Result]:
    """Row 11: 2 x 2 x 2 settings, one axis of them the augmentation, against eight runs from scratch."""
    axes = {"augment": ("none", "small"), "trainer.batch_size": ("64", "32"), "optim.lr": ("0.02", "0.005")}
    words = [f"{key}={','.join(values)}" for key, values in axes.items()]
    settings = [
        [f"{key}={value}" for key, value in zip(axes, chosen, strict=True)] for chosen in product(*axes.values())
    ]
    jobs = setting.threads
    trials, sequential = sweep(*checkout(setting, "grid"), "grid", *words)
    stages, alone = 0, 0.0
    for number, chosen in enumerate(settings[: setting.pick(8, 1)]):
        seconds, count = scratch(setting, f"scratch{number}", chosen)
        alone, stages = alone + seconds, stages + count
    alone *= len(settings) / setting.pick(8, 1)
    again, together = sweep(*checkout(setting, "grid-at-once"), "grid", *words, *at_once(jobs))
    counted = " ".join(f"{stage} {count}" for stage, count in ran(trials).items())
    note = (
        f"`digits_smoke` with {' '.join(f'`{word}`' for word in words)}, each in fresh clones with empty caches. Eight "
        f"`dvc repro`, one after the other: {stages} stages, {alone:.0f} s. The sweep, one trial after the other: "
        f"{sum(ran(trials).values())} stages ({counted}), {sequential:.0f} s with its page; {jobs} at once (joblib), "
        f"one core each: {sum(ran(again).values())} stages, {together:.0f} s. On digits a stage is mostly its start-up."
    )
    what = "a 2 x 2 x 2 sweep with an augmentation axis against eight `dvc repro` from scratch, wall time"
    return [
        Result(11, what, "-", f"{sequential / alone:.2f} x", None, note),
        Result(11, f"the same sweep, {jobs} trials at once", "-", f"{together / alone:.2f} x", None),
    ]


def scratch(setting: Setting, name: str, words: list[str]) -> tuple[float, int]:
    """Seconds and stages (without compose) of one `dvc repro` in a fresh clone with an empty cache."""
    folder, env = checkout(setting, name)
    call(sys.executable, "-m", "stillframe.cli", "compose", *words, cwd=folder, env=env)
    started = time.perf_counter()
    said = call(*DVC, "repro", cwd=folder, env=env | {"DVC_EXP_NAME": name})  # parameters stay as they were composed
    return time.perf_counter() - started, said.count("Running stage '") - 1


def slots(setting: Setting) -> list[Result]:
    """Row 12: 1, 2 and 4 trials at once, 24 in all."""
    folder, env, _ = clone(setting)
    count, seconds, states = setting.pick(8, 2), {}, Counter[str]()
    for many in (1, 2, 4):
        rates = ",".join(f"{0.004 + many / 1e3 + number / 1e5:.5f}" for number in range(count))
        words = [f"optim.lr={rates}", "trainer.max_epochs=1", "sweep.until=validate", *at_once(many)]
        trials, seconds[many] = sweep(folder, env, f"slots{many}", *words)
        states.update(trial["state"] for trial in trials)
        assert len({trial["slot"] for trial in trials}) <= many
    total, failed = sum(states.values()), sum(states.values()) - states["finished"]
    timed = ", ".join(f"{many} at once {took:.0f} s" for many, took in seconds.items())
    note = (
        f"{count} settings of `digits_smoke` each, train and validate run in all of them, and the best goes on to the "
        f"test split: {timed}; the cores ({setting.threads} threads) are shared out among the slots."
    )
    what = f"trials that failed, of {total} with 1, 2 and 4 slots at once"
    return [Result(12, what, "0", f"{failed}", failed == 0, note)]
