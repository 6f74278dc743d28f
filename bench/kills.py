"""Twenty SIGKILLs at random moments of one training, then its end: are the weights those of one never killed?

`python -m bench.kills` (about 3 CPU-minutes; `--kills 20 --workers 0 --seed 0`). Not a part of `make test`, which
kills twice. Each attempt is a fork of this process, which has imported everything and computed nothing: a start costs
one second instead of seven. The state is saved after every step, so many a kill falls into the writing of a state.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import yaml
from bench.measuring import ROOT
from safetensors.torch import load_file

from stillframe.config import read_params
from stillframe.config.hydra_compose import compose
from stillframe.stages import train
from stillframe.tracking import record  # noqa: F401  imported before the forks
from stillframe.training.launch import die_with_parent

SECTIONS = ("task", "seed", "augment", "model", "optim", "trainer", "tracking")
LONGEST_S = 0.5  # a kill comes so long after the first new state, at most


def prepare(folder: Path, workers: int, epochs: int) -> None:
    """1,797 real digits, prepared; every source of randomness at work, a state after every step."""
    values = compose(["experiment=digits_smoke"], ROOT / "conf")
    values["augment"] |= {"online": [{"HorizontalFlip": {"p": 0.5}}], "where": "item"}
    values["model"]["drop_rate"] = 0.3
    values["optim"] |= {"mixup": 0.2, "ema_decay": 0.9}
    values["trainer"] |= {"max_epochs": epochs, "early_stopping": None, "workers": workers, "accelerator": "cpu"}
    values["trainer"] |= {"checkpoint_seconds": 1e-6, "threads": 1, "precision": "fp32"}
    folder.mkdir(parents=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    (folder / "data").mkdir()
    (folder / "data/source").symlink_to("raw")
    for stage in ("fetch", "preprocess", "augment"):
        command = [sys.executable, "-m", f"stillframe.stages.{stage}"]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _child(folder: Path, parent: int) -> None:
    die_with_parent(parent)
    os.setsid()
    os.chdir(folder)
    log = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.exit(train.run(*read_params(*SECTIONS)))


def start(folder: Path) -> multiprocessing.process.BaseProcess:
    """The train stage in a fork of this process, a leader of its own group."""
    process = multiprocessing.get_context("fork").Process(target=_child, args=(folder, os.getpid()))
    process.start()
    return process


def state_of(folder: Path) -> tuple[int, int]:
    """What tells one state from the next: (inode, time) of the newest; (0, 0) before the first."""
    for path in (folder / ".resume").glob("*/last.ckpt"):
        found = path.stat()
        return found.st_ino, found.st_mtime_ns
    return 0, 0


def kill_one(folder: Path, dice: random.Random) -> None:
    """Start or resume the training; kill it and its loaders a random while after it has made a step."""
    before, process = state_of(folder), start(folder)
    while state_of(folder) == before:
        assert process.is_alive(), f"it ended by itself:\n{(folder / 'log.txt').read_text()[-2000:]}"
        time.sleep(0.005)
    time.sleep(dice.uniform(0.0, LONGEST_S))
    assert process.is_alive(), f"it ended before the kill:\n{(folder / 'log.txt').read_text()[-2000:]}"
    os.killpg(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL


def _read_step(state: Path) -> int:
    return int(torch.load(state, weights_only=True)["global_step"])


def step_of(folder: Path) -> int:
    """The step of the kept state, read in a fork: this process computes nothing, so that it can be forked again."""
    (state,) = (folder / ".resume").glob("*/last.ckpt")
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(_read_step, (state,))


def finish(folder: Path) -> None:
    """Let the training end."""
    process = start(folder)
    process.join()
    assert process.exitcode == 0, (folder / "log.txt").read_text()[-2000:]


def main() -> None:
    """Kill, finish, compare, say."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in (("kills", 20), ("workers", 0), ("seed", 0), ("epochs", 8)):
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        straight, killed = Path(place, "straight"), Path(place, "killed")
        prepare(straight, args.workers, args.epochs)
        shutil.copytree(straight, killed, symlinks=True)
        finish(straight)
        dice, steps = random.Random(args.seed), []
        for _ in range(args.kills):
            kill_one(killed, dice)
            steps.append(step_of(killed))
        finish(killed)
        resumed = (killed / "log.txt").read_text().count("resuming from")
        one, other = (load_file(folder / "artifacts/train/model.safetensors") for folder in (straight, killed))
        equal = one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
        histories = [(folder / "artifacts/train/history.csv").read_bytes() for folder in (straight, killed)]
    print(f"{args.kills} kills with {args.workers} loader processes, after the steps {steps}; resumed {resumed} times")
    print(f"weights {'equal bit for bit' if equal else 'DIFFER'}, ", end="")
    print(f"histories {'equal' if histories[0] == histories[1] else 'DIFFER'}")
    sys.exit(not (equal and histories[0] == histories[1] and resumed == args.kills))


if __name__ == "__main__":
    main()
