"""Segmentation through the train stage in this process: the same stage, another task."""

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
GOLDEN = [1.320859, 0.521952]


def run(workplace) -> pd.DataFrame:
    assert train.run(*workplace.params(*SECTIONS)) == 0
    return pd.read_csv(workplace.folder / "artifacts/train/history.csv")


def test_golden_losses(masked_here):
    """A refactoring must not move these; a deliberate change of the mathematics updates them and says so."""
    history = run(masked_here)
    np.testing.assert_allclose(history["train/loss"], GOLDEN, rtol=2e-3)
    assert {"val/iou_macro", "val/f1_macro", "val/accuracy", "val/recall_macro"} <= set(history.columns)
    summary = json.loads((masked_here.folder / "artifacts/train/summary.json").read_text())
    assert summary["best_value"] == pytest.approx(history["val/iou_macro"].max())
    facts = json.loads((masked_here.folder / "artifacts/train/model.json").read_text())
    assert (facts["task"], facts["name"], facts["encoder"]) == ("segmentation", "unet", "test_resnet")


@pytest.mark.parametrize(
    "change",
    [
        {"model.name": "deeplabv3plus", "optim.loss": "focal", "optim.class_weights": "balanced"},
        {"optim.loss": "lovasz", "optim.cutmix": 1.0, "model.drop_rate": 0.2, "optim.sampler": "balanced"},
        {
            "augment.online": [{"D4": {"p": 1.0}}],
            "augment.where": "batch",
            "model.freeze": ["encoder.model.conv1", "encoder.model.layer1"],
            "model.unfreeze_after": 1,
        },
    ],
    ids=["deeplabv3plus", "lovasz", "batch"],
)
def test_options_train(masked_here, change):
    masked_here.set("trainer.limit_batches", 3)
    for key, value in change.items():
        masked_here.set(key, value)
    history = run(masked_here)
    assert np.isfinite(history["train/loss"]).all() and (history["val/iou_macro"] > 0).all()


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("trainer.monitor", "iou_marco", "iou_macro"),
        ("model.encoder", "resnet81", "model.encoder = 'resnet81': did you mean 'resnet18'"),
        ("model.encoder", None, "model.encoder is null: unet needs one"),
        ("model.name", "resnet18", "model.name = 'resnet18': this task needs a net for masks: unet, deeplabv3plus"),
        ("model.freeze", ["encoder.model.blocks"], "did you mean"),
        ("optim.mixup", 0.4, "use optim.cutmix"),
        ("optim.loss", "dise", "optim.loss = 'dise'"),
        ("task", "classification", "model.name = 'unet': this task needs a net for labels"),
    ],
)
def test_what_is_wrong_is_said_before_the_first_step(masked_here, key, value, says):
    masked_here.set(key, value)
    if key == "task":
        masked_here.set("trainer.monitor", "f1_macro")
    with pytest.raises(ValueError, match=says):
        run(masked_here)
    assert not (masked_here.folder / "artifacts/train").exists()


def test_labels_without_masks_are_no_segmentation(here):
    here.set("task", "segmentation").set("model.name", "unet").set("model.encoder", "test_resnet")
    here.set("trainer.monitor", "iou_macro")
    with pytest.raises(ValueError, match=r"digits has no masks.*data\.masks"):
        train.run(*here.params(*SECTIONS))


def test_twice_the_same_bytes(masked_here):
    masked_here.set("augment.online", [{"HorizontalFlip": {"p": 0.5}}]).set("optim.cutmix", 1.0)
    out = masked_here.folder / "artifacts/train"
    made = []
    for _ in range(2):
        run(masked_here)
        made.append([(out / name).read_bytes() for name in ("model.safetensors", "history.csv")])
    assert made[0] == made[1]


@pytest.mark.slow
def test_two_ranks_count_every_pixel_once(masked):
    masked.set("trainer.devices", 2).set("trainer.strategy", "ddp").set("trainer.max_epochs", 1)
    assert masked.stage("train") == 0, masked.log()
    two = pd.read_csv(masked.folder / "artifacts/train/history.csv").iloc[0]
    masked.set("trainer.devices", 1)
    assert masked.stage("validate") == 0, masked.log()
    one = json.loads((masked.folder / "artifacts/validate/metrics.json").read_text())
    compared = [name for name in one if f"val/{name}" in two.index and name != "loss"]
    assert {"iou_macro", "f1_macro", "accuracy", "recall_macro"} <= set(compared)
    assert all(one[name] == pytest.approx(two[f"val/{name}"], abs=1e-6) for name in compared)


@pytest.mark.slow
def test_a_killed_training_ends_with_the_weights_of_one_never_killed(masked):
    masked.set("trainer.checkpoint_seconds", 1e-6).set("optim.cutmix", 0.5).set("model.drop_rate", 0.2)
    masked.set("augment.online", [{"D4": {"p": 1.0}}]).set("augment.where", "item")
    assert masked.stage("train") == 0, masked.log()
    straight = load_file(masked.folder / "artifacts/train/model.safetensors")
    history = (masked.folder / "artifacts/train/history.csv").read_text()
    process = masked.start("train")
    deadline = time.monotonic() + 120
    while not masked.checkpoints():
        assert process.poll() is None and time.monotonic() < deadline, masked.log()
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"
    assert masked.stage("train") == 0, masked.log()
    assert "resuming from" in masked.log()
    resumed = load_file(masked.folder / "artifacts/train/model.safetensors")
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    assert (masked.folder / "artifacts/train/history.csv").read_text() == history
