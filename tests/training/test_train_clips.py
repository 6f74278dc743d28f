"""Clips through the train stage: the same stage, another task."""

import json
import os
import signal
import time

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from stillframe.stages import train

SECTIONS = ("task", "seed", "augment", "model", "optim", "trainer", "tracking")
GOLDEN = [0.874089, 0.691192]


def run(workplace) -> pd.DataFrame:
    assert train.run(*workplace.params(*SECTIONS)) == 0
    return pd.read_csv(workplace.folder / "artifacts/train/history.csv")


def test_golden_losses(walks_here):
    """A refactoring must not move these; a deliberate change of the mathematics updates them and says so."""
    history = run(walks_here)
    np.testing.assert_allclose(history["train/loss"], GOLDEN, rtol=2e-3)
    facts = json.loads((walks_here.folder / "artifacts/train/model.json").read_text())
    assert (facts["task"], facts["frames"], facts["temporal"]) == ("video_classification", 4, "gru")


@pytest.mark.parametrize(
    "change",
    [
        {"model.temporal": "attention", "optim.mixup": 0.4, "optim.cutmix": 1.0, "augment.temporal": None},
        {"model.temporal": "lstm", "augment.online": [{"D4": {"p": 1.0}}], "augment.where": "batch"},
        {"model.name": "mc3_18", "model.temporal": None, "trainer.limit_batches": 1},
    ],
    ids=["attention", "batch", "mc3_18"],
)
def test_options_train(walks_here, change):
    walks_here.set("trainer.max_epochs", 1).set("trainer.limit_batches", 2)
    for key, value in change.items():
        walks_here.set(key, value)
    history = run(walks_here)
    assert np.isfinite(history["train/loss"]).all() and np.isfinite(history["val/loss"]).all()


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("task", "classification", "the data are clips of 4 frames .*: set task = video_classification"),
        ("model.temporal", None, "model.temporal is null: plain_cnn takes pictures"),
        ("augment.temporal", {"jitter": False, "reverse": 0.5, "speed": 0.0}, "needs data.clip.reversible = true"),
        ("augment.temporal", {"jitter": False, "revers": 0.5, "speed": 0.0}, "reverse"),
    ],
)
def test_what_is_wrong_is_said_before_the_first_step(walks_here, key, value, says):
    walks_here.set(key, value)
    with pytest.raises(ValueError, match=says):
        run(walks_here)
    assert not (walks_here.folder / "artifacts/train").exists()


def test_twice_the_same_bytes(walks_here):
    walks_here.set("augment.online", [{"HorizontalFlip": {"p": 0.5}}]).set("optim.mixup", 0.4)
    out = walks_here.folder / "artifacts/train"
    made = []
    for _ in range(2):
        run(walks_here)
        made.append([(out / name).read_bytes() for name in ("model.safetensors", "history.csv")])
    assert made[0] == made[1]


@pytest.mark.slow
def test_two_ranks_count_every_video_once(walks):
    walks.set("trainer.devices", 2).set("trainer.strategy", "ddp").set("trainer.max_epochs", 1)
    assert walks.stage("train") == 0, walks.log()
    assert walks.stage("validate") == 0, walks.log()
    two = (walks.folder / "artifacts/validate/metrics.json").read_bytes()
    predictions = pd.read_parquet(walks.folder / "artifacts/validate/predictions.parquet")
    assert len(predictions) == 21 and predictions["id"].is_unique, "two views a video, one row"
    walks.set("trainer.devices", 1)
    assert walks.stage("validate") == 0, walks.log()
    one = json.loads((walks.folder / "artifacts/validate/metrics.json").read_text())
    assert one == pytest.approx(json.loads(two), abs=1e-6)


@pytest.mark.slow
def test_a_killed_training_ends_with_the_weights_of_one_never_killed(walks):
    walks.set("trainer.checkpoint_seconds", 1e-6).set("optim.mixup", 0.5).set("model.drop_rate", 0.2)
    walks.set("augment.online", [{"D4": {"p": 1.0}}]).set("augment.where", "item")
    assert walks.stage("train") == 0, walks.log()
    straight = load_file(walks.folder / "artifacts/train/model.safetensors")
    history = (walks.folder / "artifacts/train/history.csv").read_text()
    process = walks.start("train")
    deadline = time.monotonic() + 120
    while not walks.checkpoints():
        assert process.poll() is None and time.monotonic() < deadline, walks.log()
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"
    assert walks.stage("train") == 0, walks.log()
    assert "resuming from" in walks.log()
    resumed = load_file(walks.folder / "artifacts/train/model.safetensors")
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    assert (walks.folder / "artifacts/train/history.csv").read_text() == history
