"""Learning from a larger trained net: the loss, where the teacher comes from, and what is refused."""

from __future__ import annotations

import json
import shutil

import pandas as pd
import pytest
import torch
from safetensors import safe_open

from stillframe.config import DistillConfig
from stillframe.models.build import NetworkSpec, rebuild
from stillframe.stages import train
from stillframe.tasks.classification.learning import distill_loss
from stillframe.training import teacher
from stillframe.types import Batch, DatasetCard

SECTIONS = ("task", "seed", "augment", "model", "optim", "trainer", "tracking")


def run(workplace) -> int:
    return train.run(*workplace.params(*SECTIONS))


def test_the_loss_is_hintons():
    """(1 - w) * loss + w * T^2 * KL, weighted by the samples; only the student learns."""
    torch.manual_seed(0)
    net = rebuild(NetworkSpec("plain_cnn", 3, 1, 8, [0.5], [0.2], 0.5, 0.0)).train()
    images = torch.randint(0, 256, (6, 1, 8, 8), dtype=torch.uint8)
    weight_B = torch.tensor([1.0, 2.0, 0.0, 1.0, 1.0, 1.0])
    batch = Batch({"image": images}, {"label": torch.zeros(6, dtype=torch.int64)}, weight_B, torch.arange(6))
    logits = torch.randn(6, 3, requires_grad=True)
    both = distill_loss(lambda logits_BK, batch: logits_BK.sum(), net, DistillConfig("somewhere", 4.0, 0.7))
    with torch.no_grad():
        wanted = (net.eval()(images) / 4).softmax(1)
        said = (logits / 4).softmax(1)
        apart = (wanted * (wanted.log() - said.log())).sum(1)
        expected = 0.3 * logits.sum() + 0.7 * 16 * (apart * weight_B).sum() / weight_B.sum()
    loss = both(logits, batch)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert logits.grad is not None and all(part.grad is None for part in net.parameters())
    same = distill_loss(lambda *_: logits.sum(), net, DistillConfig("somewhere", 1.0, 1.0))(net(images).detach(), batch)
    assert float(same.detach()) == pytest.approx(0, abs=1e-6), "a student that says the same has nothing to learn"


def test_a_smaller_net_learns_from_a_folder_and_keeps_nothing_of_it(here):
    run(here)
    shutil.copytree(here.folder / "artifacts/train", here.folder / "large")
    first = pd.read_csv(here.folder / "artifacts/train/history.csv")
    here.values["optim"]["distill"] = {"teacher": "large", "temperature": 2.0, "weight": 0.9}
    here.set("trainer.max_epochs", 1)
    shutil.rmtree(here.folder / "artifacts/train")
    assert run(here) == 0
    again = pd.read_csv(here.folder / "artifacts/train/history.csv")
    assert again["train/loss"].iloc[0] != pytest.approx(first["train/loss"].iloc[0], rel=1e-3)
    with safe_open(here.folder / "artifacts/train/model.safetensors", "pt") as student:
        with safe_open(here.folder / "large/model.safetensors", "pt") as large:
            assert set(student.keys()) == set(large.keys()), "the teacher is no part of the model"
    facts = json.loads((here.folder / "artifacts/train/run.json").read_text())
    from mlflow import MlflowClient

    logged = MlflowClient(f"sqlite:///{here.folder / 'mlflow.db'}").get_run(facts["run_id"])
    assert logged.data.params["optim.distill.teacher"] == "large"
    (tracking,) = here.params("tracking")
    card = DatasetCard.read(here.folder / "data/prepared/card.json")
    of_a_run = DistillConfig(f"runs:/{facts['run_id']}", 1.0, 0.5)
    assert teacher.load(of_a_run, tracking, card, trained=here.folder / "artifacts/train").spec.classes == 10
    with pytest.raises(FileNotFoundError, match=r"runs:/nosuch.*model/model\.json"):
        teacher.load(DistillConfig("runs:/nosuch", 1.0, 0.5), tracking, card, trained=here.folder)


@pytest.mark.parametrize(
    ("name", "says"),
    [("artifacts/train", "copy it elsewhere"), ("none", "none/model.json is missing"), ("two", "2 classes")],
)
def test_a_teacher_that_cannot_teach_is_refused_before_the_first_step(here, name, says):
    (here.folder / "two").mkdir()
    from dataclasses import asdict

    from stillframe.models import weights

    spec = NetworkSpec("plain_cnn", 2, 1, 8, [0.5], [0.2], 0.0, 0.0)
    weights.save(rebuild(spec), here.folder / "two/model.safetensors")
    (here.folder / "two/model.json").write_text(json.dumps({"task": "classification", **asdict(spec)}))
    here.values["optim"]["distill"] = {"teacher": name, "temperature": 2.0, "weight": 0.9}
    here.set("trainer.max_epochs", 1)
    with pytest.raises((ValueError, FileNotFoundError), match=says):
        run(here)
    assert not (here.folder / "artifacts/train/model.safetensors").exists()
