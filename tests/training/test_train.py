"""The train stage in this process: outputs, refusals, options."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from stillframe.stages import train, validate
from stillframe.training.module import NonFiniteLoss, step_seed

SECTIONS = ("task", "seed", "augment", "model", "optim", "trainer", "tracking")


def run(workplace) -> int:
    return train.run(*workplace.params(*SECTIONS))


def test_outputs_and_record(here):
    assert run(here) == 0
    out = here.folder / "artifacts/train"
    history = pd.read_csv(out / "history.csv")
    assert {"epoch", "train/loss", "val/loss", "val/accuracy", "val/f1_macro", "lr"} <= set(history.columns)
    assert list(history["epoch"]) == [0, 1]
    summary = json.loads((out / "summary.json").read_text())
    assert summary["best_value"] == pytest.approx(history["val/f1_macro"].max())
    facts = json.loads((out / "run.json").read_text())
    from mlflow import MlflowClient

    logged = MlflowClient(f"sqlite:///{here.folder / 'mlflow.db'}").get_run(facts["run_id"])
    assert logged.info.status == "FINISHED"
    assert logged.data.params["optim.lr"] == "0.01"
    assert logged.data.metrics["val/f1_macro"] == pytest.approx(history["val/f1_macro"].iloc[-1])
    assert logged.data.tags["version.torch"] == torch.__version__.split("+")[0] or torch.__version__
    validate.run(*here.validation())
    scores = json.loads((here.folder / "artifacts/validate/metrics.json").read_text())
    assert scores["f1_macro"] == pytest.approx(summary["best_value"], abs=1e-6), "the best epoch's weights were kept"


def test_golden_losses(here):
    """A refactoring must not move these; a deliberate change of the mathematics updates them and says so."""
    run(here)
    losses = pd.read_csv(here.folder / "artifacts/train/history.csv")["train/loss"]
    np.testing.assert_allclose(losses, GOLDEN, rtol=2e-3)


GOLDEN = [1.473309, 0.514499]


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("trainer.monitor", "f1_marco", "f1_macro"),
        ("trainer.early_stopping", {"metric": "los", "patience": 1, "min_delta": 0.0}, "loss"),
        ("model.name", "resnet81", "resnet18"),
        ("model.freeze", ["featuers"], "features"),
        ("model.weights", "package:no_such_package/x.pth", "pip install no-such-package"),
        ("optim.name", "AdmW", "adamw"),
        ("optim.layer_decay", 0.5, "timm"),
        ("task", "clasification", "classification"),
        ("trainer.accelerator", "gpu", "GPU"),
    ],
)
def test_what_is_wrong_is_said_before_the_first_step(here, key, value, says):
    if key == "trainer.accelerator" and torch.cuda.is_available():
        return
    here.set(key, value)
    with pytest.raises(ValueError, match=says):
        run(here)
    assert not (here.folder / "artifacts/train").exists()


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_state(here):
    here.set("optim.lr", 1e30).set("trainer.max_epochs", 5)
    here.set("optim.schedule", {"name": "constant", "warmup_fraction": 0.0, "final_fraction": 1.0})
    with pytest.raises(NonFiniteLoss, match="lower optim.lr"):
        run(here)
    assert not (here.folder / "artifacts/train/model.safetensors").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"optim.loss": "focal", "optim.class_weights": "balanced", "optim.sampler": "balanced"},
        {"optim.mixup": 0.4, "optim.cutmix": 1.0, "optim.l1": 1e-6, "optim.clip_norm": 1.0, "optim.accumulate": 2},
        {"model.name": "textbook_cnn", "trainer.precision": "bf16", "optim.ema_decay": 0.9, "skip": "8 px"},
        {"trainer.overfit_batches": 1, "trainer.precision": "auto"},
        {"model.freeze": ["features.0", "features.1"], "model.unfreeze_after": 1, "trainer.limit_batches": 4},
        {"augment.online": [{"HorizontalFlip": {"p": 0.5}}, {"Affine": {"translate_px": [-1, 1], "p": 1.0}}]},
        {"trainer.early_stopping": {"metric": "recall/3", "patience": 1, "min_delta": 2.0}, "trainer.max_epochs": 6},
        {"optim.schedule": {"name": "cosine", "warmup_fraction": 0.2, "final_fraction": 0.1}, "optim.name": "SGD"},
        {"trainer.find_lr": True, "trainer.find_batch_size": True},
    ],
    ids=lambda change: ",".join(key.split(".")[1] for key in change if "." in key),
)
def test_options_train(here, change):
    small = change.pop("skip", None)
    for key, value in change.items():
        here.set(key, value)
    if small:
        with pytest.raises(ValueError, match="10 px"):
            run(here)
        here.set("model.name", "plain_cnn")
    assert run(here) == 0
    history = pd.read_csv(here.folder / "artifacts/train/history.csv")
    assert np.isfinite(history["train/loss"]).all()
    summary = json.loads((here.folder / "artifacts/train/summary.json").read_text())
    if "trainer.early_stopping" in change:
        assert summary["stopped_early"] and summary["epochs"] == 2
    if "trainer.find_lr" in change:
        assert summary["lr"] != 0.01 and summary["batch_size"] >= 32
    if "model.unfreeze_after" in change:
        assert summary["trainable_parameters"] == summary["parameters"]


def test_overfitting_one_batch_learns_it_by_heart(here):
    here.set("trainer.overfit_batches", 1).set("trainer.max_epochs", 40).set("optim.label_smoothing", 0.0)
    run(here)
    assert pd.read_csv(here.folder / "artifacts/train/history.csv")["train/loss"].iloc[-1] < 0.05


def test_seeds_of_steps_differ():
    seeds = {step_seed(0, epoch, batch, rank) for epoch in range(3) for batch in range(5) for rank in range(2)}
    assert len(seeds) == 30


def test_out_of_memory_says_what_to_change(here, monkeypatch):
    from stillframe.training.module import TrainingModule

    def full(self, batch, batch_idx):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(TrainingModule, "training_step", full)
    with pytest.raises(ValueError, match="batch_size = 32, 8 x 8 px, precision fp32.*optim.accumulate"):
        run(here)


def test_the_quality_bar_stops_with_the_numbers(here):
    run(here)
    here.set("validate.require", {"f1_macro": 1.5})
    with pytest.raises(ValueError, match=r"f1_macro: 0\.\d+, at least 1.5 is required"):
        validate.run(*here.validation())
    here.set("validate.require", {"f1_marco": 0.5})
    with pytest.raises(ValueError, match="did you mean 'f1_macro'"):
        validate.run(*here.validation())
