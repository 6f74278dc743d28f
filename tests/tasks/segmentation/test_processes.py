"""A real net asked about masks by one process and by two: the same counts, and those of scikit-learn."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.metrics import f1_score, jaccard_score

from masked import write_scenes
from segmented import evaluate
from stillframe.config import TrainerConfig, build
from stillframe.config.hydra_compose import compose
from stillframe.inference.split_predictor import SplitPredictor
from stillframe.models import weights
from stillframe.models.build import NetworkSpec, rebuild
from stillframe.paths import write_json
from stillframe.store.split import Split

CHOICES = {"temperature": 1.5, "threshold": None, "tta": "mirror", "bins": 10}


@pytest.mark.slow
def test_two_processes_count_what_one_counts(tmp_path: Path) -> None:
    card = write_scenes(tmp_path, {"test": 9})
    torch.manual_seed(0)
    spec = NetworkSpec("unet", 3, 3, 32, card.mean, [0.05] * 3, 0.0, 0.0, encoder="test_resnet")
    weights.save(rebuild(spec).eval(), tmp_path / "train/model.safetensors")
    write_json(tmp_path / "train/model.json", {"task": "segmentation", **asdict(spec)})
    values = compose(["experiment=digits_smoke"])["trainer"] | {"accelerator": "cpu", "threads": 1}
    trainer: TrainerConfig = build("trainer", values)
    found = []
    for devices in (1, 2):
        out = tmp_path / str(devices)
        out.mkdir()
        asking = SplitPredictor(tmp_path / "train", tmp_path / "test", replace(trainer, devices=devices), "mirror", 4)
        found.append(evaluate(asking, out, gallery=2, bootstrap=10, choices=CHOICES, facts=card))
    one, two = found
    assert one.keys() == two.keys() and all(one[name] == pytest.approx(two[name], abs=1e-6) for name in one)
    said = pd.read_parquet(tmp_path / "2/predictions.parquet")
    assert json.loads((tmp_path / "2/metrics.json").read_text()) == two
    with zipfile.ZipFile(tmp_path / "2/masks.zip") as archive:
        masks = [np.asarray(Image.open(io.BytesIO(archive.read(name)))) for name in said["mask"]]
    label, answer = Split(tmp_path / "test").target("mask", said["index"].to_numpy()).ravel(), np.stack(masks).ravel()
    assert two["iou_macro"] == pytest.approx(jaccard_score(label, answer, average="macro"), abs=1e-6)
    assert two["f1_macro"] == pytest.approx(f1_score(label, answer, average="macro"), abs=1e-6)
