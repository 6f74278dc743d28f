"""A net that answers masks as a file: the same answers over raw files, whole or in tiles, and `predict` with it."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made import SECTION, Stages, shipment
from PIL import Image

from exported import FACTS
from masked import MASKS, masked_folder
from stillframe.cli import main
from stillframe.config import DataConfig, build
from stillframe.inference.onnx_model import OnnxModel
from stillframe.inference.predict import predict
from stillframe.inference.predictor import predict_images, predict_strips
from stillframe.models.build import NetworkSpec
from stillframe.tasks.segmentation import IGNORE
from stillframe.tasks.segmentation.gallery import read_mask
from stillframe.tasks.segmentation.output import crop_to_image
from stillframe.types import DatasetCard
from tiny import DATA


class MaskStages(Stages):
    """What the stages before export leave of made masks: an untrained U-Net."""

    task = "segmentation"

    def spec(self, card: DatasetCard) -> NetworkSpec:
        deviation = [0.05] * card.channels
        facts = (len(card.classes), card.channels, card.height, card.mean, deviation, 0.0, 0.0)
        return NetworkSpec("unet", *facts, encoder="test_resnet")


def stages_of(folder: Path, *, overlap: float | None, resize: str, tta: str, store: str = "raw") -> MaskStages:
    masks = {**MASKS, "overlap": overlap}
    section = {**DATA, "masks": masks, "image_size": 32, "resize": resize, "store": store, "classes": None}
    data: DataConfig = build("data", section)
    return MaskStages(folder, masked_folder(folder / "source", count=15, width=52, height=41), data, tta=tta)


@pytest.fixture(scope="module")
def resized(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MaskStages]:
    stages = stages_of(tmp_path_factory.mktemp("resized"), overlap=None, resize="pad", tta="d4", store="jpeg")
    shipment(stages, replace(SECTION, variants=["fp32", "fp16", "int8"])).export()
    yield stages


@pytest.fixture(scope="module")
def tiled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MaskStages]:
    stages = stages_of(tmp_path_factory.mktemp("tiled"), overlap=0.25, resize="squash", tta="none")
    shipment(stages, SECTION).export()
    yield stages


@pytest.mark.parametrize("name", ["resized", "tiled"])
def test_the_file_answers_raw_images_as_the_model_does(name: str, request: pytest.FixtureRequest) -> None:
    stages = request.getfixturevalue(name)
    table = json.loads((stages.exported / "export.json").read_text())
    first, metrics = table["variants"][0], json.loads((stages.evaluated / "metrics.json").read_text())
    assert first["name"] == "fp32" and first["changed_decisions"] <= 2 and first["max_probability_difference"] < 1e-3
    said = pd.read_parquet(stages.evaluated / "predictions.parquet")
    assert table["pixels"] == sum(map(sum, said["pixels"])) and table["images"] == len(said)
    near = 1e-9 if name == "resized" else 1e-12
    assert table["model"]["metrics"] == pytest.approx(
        {key: metrics[key] for key in ("iou_macro", "f1_macro")}, abs=near
    )
    for key, value in first["metrics"].items():
        assert value == pytest.approx(metrics[key], abs=0.02 if name == "resized" else 1e-3)


def test_smaller_files_answer_nearly_so(resized: MaskStages) -> None:
    rows = json.loads((resized.exported / "export.json").read_text())["variants"]
    assert [row["name"] for row in rows] == ["fp32", "fp16", "int8"]
    assert rows[1]["bytes"] < 0.7 * rows[0]["bytes"] and rows[1]["max_probability_difference"] < 0.05
    assert rows[2]["bytes"] < 0.6 * rows[0]["bytes"]


def test_the_masks_of_evaluate_are_those_of_the_file(tiled: MaskStages) -> None:
    file, said = (
        OnnxModel(tiled.exported / "model.onnx", threads=1),
        pd.read_parquet(tiled.evaluated / "predictions.parquet"),
    )
    image = np.asarray(Image.open(tiled.source / said["id"][0]))
    (mask,) = predict_images(file, [image])
    saved = read_mask(tiled.evaluated / "masks.zip", said["mask"][0])
    assert mask.class_HW.shape == image.shape[:2] == saved.shape
    assert (mask.class_HW != saved).mean() < 0.002
    assert mask.share_K == pytest.approx(np.bincount(mask.class_HW.ravel(), minlength=3) / mask.class_HW.size)
    assert 0 < mask.confidence <= 1


class Planes:
    """Answers with class 1 on the left third of a square, whatever it is shown."""

    def __init__(self, resize: str, size: int = 30) -> None:
        changes = {"task": "segmentation", "size": size, "resize": resize, "threshold": None, "classes": ["a", "b"]}
        self.metadata = replace(FACTS, **changes)

    def run(self, image_NHWC: np.ndarray) -> dict[str, np.ndarray]:
        size = self.metadata.size
        one = np.where(np.arange(size) < size // 3, 0.9, 0.2).astype(np.float32)
        probability = np.stack([1 - one, one])[None, :, None, :].repeat(size, axis=2)
        return {"probabilities": probability, "decisions": probability.argmax(1)}


def class_map(model: Planes, image: np.ndarray) -> np.ndarray:
    (prediction,) = predict_images(model, [image])
    return np.asarray(prediction.class_HW)


def test_an_answer_is_laid_over_the_image_that_was_resized() -> None:
    image = np.zeros((40, 120, 3), np.uint8)
    squashed = class_map(Planes("squash"), image)
    assert squashed.shape == (40, 120) and abs(int(squashed[0].sum()) - 40) <= 1 and (squashed == squashed[0]).all()
    padded = class_map(Planes("pad"), image.transpose(1, 0, 2))  # the middle third of the square
    assert padded.shape == (120, 40) and padded.max() == 0
    cropped = class_map(Planes("crop"), image)  # the middle third of the image
    assert (cropped[:, :40] == IGNORE).all() and (cropped[:, 80:] == IGNORE).all()
    assert set(np.unique(cropped[:, 40:80])) == {0, 1} and (cropped[:, 41:52] == 1).all()
    assert crop_to_image(np.zeros((2, 30, 30), np.float32), 40, 120, Planes("pad").metadata)[0].shape == (2, 10, 30)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_predict_writes_masks_at_the_images_own_size(tiled: MaskStages, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    out, overlays = tmp_path / "said.csv", tmp_path / "overlays"
    sources = sorted((tiled.source / "images").glob("*.png"))[:3]
    model = str(tiled.exported / "model.onnx")
    arguments = ["predict", *map(str, sources), str(tmp_path / "broken.png"), "--model", model, "--out", str(out)]
    assert main([*arguments, "--annotate", str(overlays), "--quiet"]) == 0
    rows = read(out)
    assert [row["path"] for row in rows[:3]] == [str(path) for path in sources]
    for row, source in zip(rows, sources, strict=False):
        with Image.open(tmp_path / row["mask"]) as mask, Image.open(source) as image:
            assert (
                mask.mode == "P"
                and mask.size == image.size
                and json.loads(mask.text["classes"]) == tiled.metadata.classes
            )
            share = (np.asarray(mask) == 1).mean()
        assert float(row[f"share/{tiled.metadata.classes[1]}"]) == pytest.approx(share, abs=1e-5)
        assert row["reason"] == "" and Path(row["overlay"]).is_file()
    assert rows[3]["mask"] == "" and rows[3]["reason"]
    legend = read(tmp_path / "said_masks/classes.csv")
    assert [row["class"] for row in legend] == [*tiled.metadata.classes, ""] and legend[0]["colour"] == "#000000"


def test_predict_gives_json_lines_and_says_what_does_not_fit(resized: MaskStages, tmp_path: Path) -> None:
    model, source = str(resized.exported / "model.onnx"), str(resized.source / "images/00.png")
    predict([source], model=model, out=str(tmp_path / "a.jsonl"), quiet=True)
    line = json.loads((tmp_path / "a.jsonl").read_text())
    assert sum(line["shares"].values()) == pytest.approx(1, abs=1e-4)
    predict([source], model=model, out=str(tmp_path / "a.parquet"), quiet=True)
    assert pd.read_parquet(tmp_path / "a.parquet")["mask"][0] == "a_masks/000000_00.png"
    with pytest.raises(ValueError, match="--out FILE.csv"):
        predict([source], model=model, quiet=True)
    with pytest.raises(ValueError, match="--explain is about labels"):
        predict([source], model=model, out=str(tmp_path / "b.csv"), explain=True, quiet=True)


def test_a_part_of_the_answer_never_holds_more_than_one_row_of_tiles(tiled: MaskStages) -> None:
    file = OnnxModel(tiled.exported / "model.onnx", threads=1)
    image = np.zeros((200, 40, 3), np.uint8)
    rows = [len(arrays["decisions"]) for _, arrays in predict_strips(file, [image])[0]]
    assert max(rows) <= file.metadata.size < sum(rows)
