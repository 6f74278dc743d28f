"""Row 6: an epoch of the textbook CNN against Keras, in CPU-seconds."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from bench.made import plan, prepared
from bench.measuring import ROOT, Result, Setting, call, quiet_environment, ratio, spread

WHAT = "an epoch of the textbook CNN on Fashion-MNIST-shaped data against Keras on the same cores, CPU-seconds"
VAL, BATCH = 1000, 64


def install(setting: Setting) -> str | None:
    """Make the environment with Keras if it is not there; the reason when it cannot be had."""
    python = setting.keras / "bin/python"
    env = dict(os.environ)
    try:
        if not python.exists():
            call(sys.executable, "-m", "venv", setting.keras, cwd=ROOT, env=env)
        if subprocess.run([python, "-c", "import importlib.util as u; assert u.find_spec('tensorflow')"]).returncode:
            call(python, "-m", "pip", "install", "-q", "keras", "tensorflow-cpu", cwd=ROOT, env=env)
    except (OSError, RuntimeError) as error:
        return str(error).splitlines()[-1]
    return None


@contextmanager
def keras_process(setting: Setting, images: int) -> Iterator[subprocess.Popen[str]]:
    """The other side, ready to train an epoch for each line it gets."""
    command = [setting.keras / "bin/python", ROOT / "bench/keras_side.py", setting.threads, images, VAL, BATCH]
    with subprocess.Popen(
        list(map(str, command)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
        env=quiet_environment(setting.threads),
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def _ask(process: subprocess.Popen[str]) -> tuple[float, None]:
    """CPU-seconds of one epoch over there."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("go\n")
    for line in process.stdout:
        if line.startswith("epoch"):
            return float(line.split()[1]), None
    raise RuntimeError("the Keras process ended")


def keras_epoch(setting: Setting) -> list[Result]:
    """Row 6: with the precision that the experiment asks for, and with the one that a probe finds faster."""
    from bench.turns import take_turns

    problem = install(setting)
    if problem:
        return [Result(6, WHAT, "<= 0.9 x", "not measured", None, f"Keras cannot be installed here: {problem}")]
    os.chdir(setting.work)
    images = setting.pick(24_000, 4_000)
    prepared(setting.work / "data/prepared", train=images, val=VAL, side=28, channels=1, classes=10)
    experiment = ("experiment=fashion_mnist_cnn", f"trainer.max_epochs={setting.pick(4, 2)}")
    out = []
    for changes, name in (((), "as the experiment says"), (("trainer.precision=auto",), "precision: auto")):
        with keras_process(setting, images) as process:
            assert process.stdout is not None
            ready = process.stdout.readline().split()
            seen = take_turns(
                plan(setting.work, setting.threads, *experiment, *changes), lambda _: lambda: _ask(process)
            )
        share = ratio(seen.ours_cpu, seen.theirs)
        note = (
            f"{name} ({seen.precision}): {images:,} images, batch {BATCH}, Adam, {setting.threads} threads on both "
            f"sides; ours with validation, checkpoint, history and MLflow {spread(seen.ours_cpu, unit='CPU-s')}; Keras "
            f"{ready[1]} (TensorFlow {ready[2]}) `fit` on float32 arrays in memory, with validation and accuracy, "
            f"{spread(seen.theirs, unit='CPU-s')}."
        )
        out.append(Result(6, f"{WHAT}; {name}: {seen.precision}", "<= 0.9 x", f"{share:.2f} x", share <= 0.9, note))
    return out
