"""Clips through the user's door: `dvc repro` from class folders of films, a second time, and a sweep of two trials."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from clips import film
from door import STAGES, checkout, commit, ran, shell
from stillframe.sweeps import store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
SETTINGS = """
task: video_classification
data: {{path: {films}, image_size: 16, near_duplicates: "off", clip: {{frames: 4, stored: 6, fps: null,
  sampling: segments, views: 2, reversible: false}}}}
augment: {{temporal: {{jitter: true, reverse: 0.0, speed: 0.2}}}}
trainer: {{max_epochs: 2, batch_size: 8, threads: 1, accelerator: cpu, early_stopping: null}}
evaluate: {{bootstrap: 20, explain: 1, gallery: 4}}
export: {{variants: [fp32], latency_runs: 3, bootstrap: 20}}
"""


def walks(folder: Path, count: int) -> Path:
    """Films of 24 x 32 px, half a second, in which a bar goes to the right or to the left."""
    random = np.random.default_rng(0)
    for number in range(count):
        name, first = ("right", "left")[number % 2], int(random.integers(32))
        frames = random.integers(0, 60, (10, 24, 32, 3), dtype=np.uint8)
        for at in range(10):
            frames[at, :, (first + 3 * (at if name == "right" else -at)) % 32] = 250
        film(folder / name / f"{number:02d}.mp4", frames)
    return folder


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A committed checkout that points at 30 films and one file that is none."""
    folder = tmp_path_factory.mktemp("clips")
    films = walks(folder / "films", 30)
    (films / "left" / "broken.mp4").write_bytes(b"no film")
    project = checkout(folder / "project", films)
    root = project / "conf/config.yaml"
    text = re.sub(r"- model: \w+", "- model: cnn_gru", root.read_text(encoding="utf-8"))
    text = text[: text.index("\ntask: classification")] + SETTINGS.format(films=films) + "seed: 0\n"
    root.write_text(text, encoding="utf-8")
    commit(project, "clips")
    return project


def test_the_whole_way_twice_and_two_trials(project: Path) -> None:
    assert ran(shell(project, "dvc", "repro")) == STAGES
    card = json.loads((project / "data/prepared/card.json").read_text(encoding="utf-8"))
    predictions = pd.read_parquet(project / "artifacts/evaluate/predictions.parquet")
    assert len(predictions) == sum(card["counts"]["test"].values()), "two views a video, one answer"
    assert "not a video" in (project / "data/prepared/quarantine.csv").read_text(encoding="utf-8")
    assert list((project / "artifacts/export").glob("*.onnx"))
    commit(project, "first run")
    assert ran(shell(project, "dvc", "repro")) == []
    words = ["model=cnn_gru,frame_average", "trainer.max_epochs=1", "sweep.until=validate", "sweep.test=none"]
    words += ["sweep.objective=val/f1_macro", "sweep.name=two"]
    shell(project, sys.executable, "-m", "stillframe.sweep", "-m", *words)
    trials = store.Sweep.read(project / "sweeps/two").trials()
    assert [trial.state for trial in trials] == ["finished", "finished"]


def test_report_predictions_and_registration(project: Path, tmp_path: Path) -> None:
    """With the first test nothing is left to do here but what comes after the DAG."""
    shell(project, "dvc", "repro")
    page = (project / "artifacts/report/report.html").read_text(encoding="utf-8")
    count = len(pd.read_parquet(project / "artifacts/evaluate/predictions.parquet"))
    assert f"On {count} test clips" in page and "broken.mp4" in page and "test images" not in page
    table = json.loads((project / "artifacts/export/export.json").read_text(encoding="utf-8"))
    assert table["frames"] == 4 and table["variants"][0]["changed_decisions"] == 0
    frames = np.random.default_rng(1).integers(0, 60, (41, 24, 32, 3), dtype=np.uint8)
    long, out = film(tmp_path / "long.mp4", frames), tmp_path / "answers.parquet"
    shell(project, "stillframe", "predict", str(long), "--out", str(out), "--annotate", str(tmp_path / "drawn"))
    said = pd.read_parquet(out)
    np.testing.assert_allclose(said["start"], [0.0, 0.5, 1.0, 1.5], atol=1e-6)
    assert said["end"].iloc[-1] == pytest.approx(2.05) and (tmp_path / "drawn/0001_long.mp4").is_file()
    rules = (project / "conf/gate/default.yaml").read_text(encoding="utf-8")
    rules = re.sub(r"(recall|f1): 0.5", r"\1: 0.0", rules).replace("ece: 0.1", "ece: 1.0")
    (tmp_path / "lax.yaml").write_text(rules, encoding="utf-8")
    assert "is the champion now" in shell(project, "stillframe", "gate", "--rules", str(tmp_path / "lax.yaml"))
    (made,) = project.glob("mlruns/*/*/artifacts/serving/*/MLmodel")
    assert '"name": "video"' in made.read_text(encoding="utf-8"), "what MLflow serves takes videos"
