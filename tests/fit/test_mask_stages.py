"""Masks through the stages: trained, tuned, scored on two processes, and reported."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import f1_score, jaccard_score

from stillframe.data.store import Split
from stillframe.stages import evaluate, report, train, validate

TRAIN = ("task", "seed", "augment", "model", "optim", "trainer", "tracking")
EVALUATE = ("task", "seed", "trainer", "evaluate", "tracking")


@pytest.mark.slow
def test_masks_from_training_to_the_report(masked_here, capsys: pytest.CaptureFixture[str]) -> None:
    here = masked_here.set("validate.require", {"iou_macro": 0.05}).set("evaluate.bootstrap", 20)
    train.run(*here.params(*TRAIN))
    validate.run(*here.validation())
    evaluate.run(*here.set("trainer.devices", 2).params(*EVALUATE))
    metrics = json.loads(Path("artifacts/evaluate/metrics.json").read_text())
    _as_scikit_learn_says(metrics, Path("artifacts/evaluate"))
    report.run(*here.params("tracking"))
    assert "mean IoU" in Path("artifacts/report/MODEL_CARD.md").read_text(encoding="utf-8")
    said = capsys.readouterr().out
    assert f"iou_macro {metrics['iou_macro']:.4f}" in said and "boundary_f1" in said


def _as_scikit_learn_says(metrics: dict[str, float], evaluated: Path) -> None:
    """From the saved masks and the prepared ones."""
    said = pd.read_parquet(evaluated / "predictions.parquet")
    with zipfile.ZipFile(evaluated / "masks.zip") as archive:
        masks = [np.asarray(Image.open(io.BytesIO(archive.read(name)))) for name in said["mask"]]
    truth = Split(Path("data/prepared/test")).masks(said["index"].to_numpy())
    label, answer = truth.ravel(), np.stack(masks).ravel()
    assert metrics["iou_macro"] == pytest.approx(jaccard_score(label, answer, average="macro"), abs=1e-6)
    assert metrics["f1_macro"] == pytest.approx(f1_score(label, answer, average="macro"), abs=1e-6)
    assert metrics["accuracy"] == pytest.approx((label == answer).mean(), abs=1e-6)
