"""The export stage on made videos: the file answers the raw files as evaluate answered their prepared frames."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made import SECTION, Stages, shipment

from clips import film
from exported import predicted
from stillframe.config import DataConfig, build
from stillframe.inference.load_model import open_model
from stillframe.inference.onnx_model import OnnxModel
from stillframe.inference.predict import predict
from stillframe.inference.trained_model import TrainedModel
from stillframe.models.build import NetworkSpec
from stillframe.paths import read_json
from stillframe.types import DatasetCard
from tiny import DATA, picture

CLIP = {"frames": 4, "stored": None, "fps": 8.0, "sampling": "uniform", "views": 2, "reversible": False}


class ClipStages(Stages):
    """What the stages leave of videos: a recurrent head over a plain net."""

    task = "video_classification"

    def spec(self, card: DatasetCard) -> NetworkSpec:
        return replace(super().spec(card), frames=card.frames, temporal="gru")


def moving(seed: int, *, right: bool, width: int, height: int) -> list[np.ndarray]:
    """Ten frames of a bright square that goes one way over a picture."""
    frames = []
    for number in range(10):
        frame = picture(seed, width, height) // 2
        left = 2 + (number if right else 9 - number) * (width - 14) // 9
        frame[8:18, left : left + 10] = 255
        frames.append(frame)
    return frames


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Stages:
    """Videos of two sizes, two views of each, a mirror image of each view; every variant that a recurrent net has."""
    folder = tmp_path_factory.mktemp("clips")
    for at in range(16):
        size = {"width": 40 + 8 * (at % 3 == 0), "height": 32}
        film(folder / f"source/{'left' if at % 2 else 'right'}/{at:02d}.mp4", moving(at, right=at % 2 == 0, **size))
    changes = {"image_size": 24, "resize": "pad", "symmetry": "mirror", "clip": CLIP, "near_duplicates": "off"}
    data: DataConfig = build("data", {**DATA, **changes, "workers": 1})
    made = ClipStages(folder, folder / "source", data, tta="mirror")
    section = replace(SECTION, variants=["fp32", "fp16", "int8"], choose="smallest_within", within={"accuracy": 1.0})
    shipment(made, section).export()
    return made


def test_the_file_answers_the_raw_videos_as_the_model_answered_their_frames(stages: Stages) -> None:
    table = read_json(stages.exported / "export.json")
    rows = {row["name"]: row for row in table["variants"]}
    said = pd.read_parquet(stages.evaluated / "predictions.parquet")
    assert said["id"].str.endswith(".mp4").all() and table["images"] == len(said) and table["frames"] == 4
    assert rows["fp32"]["changed_decisions"] == 0 and rows["fp32"]["max_probability_difference"] <= 1e-3
    assert rows["fp16"]["max_probability_difference"] <= 1e-2 and rows["int8"]["max_probability_difference"] <= 0.2
    right = float((said["label"] == said["predicted"]).mean())
    assert rows["fp32"]["metrics"]["accuracy"] == table["model"]["metrics"]["accuracy"] == pytest.approx(right)
    assert rows["fp32"]["latency_ms_p50"] > 0 and rows["int8"]["validation"]["accuracy"] >= 0
    facts = OnnxModel(stages.exported / "fp32.onnx", threads=1).metadata
    assert (facts.frames, facts.fps, facts.sampling, facts.views, facts.seconds) == (4, 8.0, "uniform", 2, 0.5)


def test_predict_answers_a_video_as_evaluate_did(stages: Stages, tmp_path: Path) -> None:
    said = pd.read_parquet(stages.evaluated / "predictions.parquet")
    paths, out = [str(stages.source / name) for name in said["id"]], tmp_path / "a.parquet"
    predict(paths, model=str(stages.exported / "fp32.onnx"), out=str(out), threads=1, quiet=True)
    table = pd.read_parquet(out)
    right_NK = np.stack(said["probabilities"].to_list())
    np.testing.assert_allclose(table[["probability/left", "probability/right"]], right_NK, atol=1e-3)
    assert table["end"].tolist() == pytest.approx([0.5] * len(said)) and (table["reason"] == "").all()


def test_the_net_itself_answers_the_same_and_is_explained(stages: Stages, tmp_path: Path) -> None:
    """All views, raw frames of any size, without a file."""
    said = pd.read_parquet(stages.evaluated / "predictions.parquet")
    views = [shipment(stages).images(name).image for name in said["id"]]
    answers = predicted(TrainedModel(stages.trained, stages.metadata, threads=1), views)
    np.testing.assert_allclose(answers.probability_NK, np.stack(said["probabilities"].to_list()), atol=1e-5)
    assert open_model(str(stages.exported / "fp32.onnx"), threads=1).metadata.views == 2
