"""Masks through the user's door: `dvc repro` from images/ and masks/, a second time, and a sweep of two trials."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from door import STAGES, checkout, commit, ran, shell
from masked import masked_folder
from stillframe.sweeps import store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
SETTINGS = """
task: segmentation
data: {{path: {images}, image_size: 32, masks: {{overlap: 0.25}}, near_duplicates: "off"}}
model: {{encoder: test_resnet, weights: null, freeze: []}}
optim: {{loss: cross_entropy+dice}}
trainer: {{max_epochs: 2, batch_size: 8, threads: 1, accelerator: cpu, early_stopping: null, monitor: iou_macro}}
evaluate: {{bootstrap: 20, explain: 1, gallery: 4}}
export: {{variants: [fp32], latency_runs: 3, bootstrap: 20}}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A committed checkout that points at 20 pictures of 48 x 40 px, which are cut into tiles of 32 px."""
    folder = tmp_path_factory.mktemp("masks")
    images = masked_folder(folder / "pictures", 20, width=48, height=40)
    project = checkout(folder / "project", images)
    root = project / "conf/config.yaml"
    text = root.read_text(encoding="utf-8")
    for group, option in (("data", "masks"), ("model", "unet")):
        text = re.sub(rf"- {group}: \w+", f"- {group}: {option}", text)
    text = text[: text.index("\ntask: classification")] + SETTINGS.format(images=images) + "seed: 0\n"
    root.write_text(text, encoding="utf-8")
    commit(project, "masks")
    return project


def test_the_whole_way_twice_and_two_trials(project: Path) -> None:
    assert ran(shell(project, "dvc", "repro")) == STAGES
    scores = json.loads((project / "artifacts/evaluate/metrics.json").read_text(encoding="utf-8"))
    assert {"iou_macro", "f1_macro", "accuracy", "recall_macro", "iou/1", "f1/2"} <= set(scores)
    commit(project, "first run")
    assert ran(shell(project, "dvc", "repro")) == []
    words = ["optim.loss=cross_entropy,dice", "trainer.max_epochs=1", "sweep.until=validate", "sweep.test=none"]
    words += ["sweep.objective=val/iou_macro", "sweep.name=two"]
    shell(project, sys.executable, "-m", "stillframe.sweep", "-m", *words)
    trials = store.Sweep.read(project / "sweeps/two").trials()
    assert [trial.state for trial in trials] == ["finished", "finished"]
    assert all(len(trial.values) == 1 and 0 < trial.values[0] < 1 for trial in trials)
