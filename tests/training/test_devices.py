"""Two processes on the CPU: the same counts as one, and none left behind."""

import json

import numpy as np
import pandas as pd
import pytest

from stillframe.stages import validate
from stillframe.training.launch import processes, visible_gpus

SECTIONS = ("task", "seed", "augment", "model", "optim", "trainer", "tracking")


@pytest.mark.slow
def test_two_ranks_train_and_count_each_sample_once(workplace):
    workplace.set("trainer.devices", 2).set("trainer.strategy", "ddp")
    assert workplace.stage("train") == 0, workplace.log()
    summary = json.loads((workplace.folder / "artifacts/train/summary.json").read_text())
    assert summary["devices"] == 2
    assert workplace.stage("validate") == 0, workplace.log()
    two = pd.read_parquet(workplace.folder / "artifacts/validate/predictions.parquet")
    two_scores = json.loads((workplace.folder / "artifacts/validate/metrics.json").read_text())
    assert list(two["index"]) == list(range(63))
    assert two_scores["f1_macro"] == pytest.approx(summary["best_value"], abs=1e-6), (
        "training counted 63 on 2 ranks, too"
    )
    workplace.set("trainer.devices", 1)
    assert workplace.stage("validate") == 0, workplace.log()
    one_scores = json.loads((workplace.folder / "artifacts/validate/metrics.json").read_text())
    one = pd.read_parquet(workplace.folder / "artifacts/validate/predictions.parquet")
    np.testing.assert_allclose(np.stack(one["logits"]), np.stack(two["logits"]), rtol=1e-4, atol=1e-4)
    assert one_scores.keys() == two_scores.keys()
    assert all(one_scores[name] == pytest.approx(two_scores[name], abs=1e-6) for name in one_scores)


@pytest.mark.slow
def test_a_rank_that_dies_ends_the_stage_and_leaves_no_process(workplace):
    import psutil

    workplace.set("trainer.devices", 2).set("trainer.strategy", "ddp").set("trainer.max_epochs", 200)
    process = workplace.start("train")
    import time

    deadline = time.monotonic() + 120
    while "epoch 1/200" not in workplace.log():
        assert process.poll() is None and time.monotonic() < deadline, workplace.log()
        time.sleep(0.05)
    family = psutil.Process(process.pid).children(recursive=True)
    ranks = [child for child in family if "torch.distributed.run" not in " ".join(child.cmdline())]
    assert len(ranks) >= 2
    ranks[-1].kill()
    assert process.wait(timeout=90) not in (0, None)
    gone, alive = psutil.wait_procs(family, timeout=30)
    assert not alive


def test_devices_are_counted_without_torch(monkeypatch, workplace):
    (trainer,) = workplace.params("trainer")
    assert processes(trainer) == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3")
    assert visible_gpus() == 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == 0


def test_validate_needs_a_model(here):
    with pytest.raises(FileNotFoundError, match="dvc repro"):
        validate.run(*here.validation())
