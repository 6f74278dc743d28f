"""The export stage's work on made sources: the file is the model, or the stage fails with the numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from made import SECTION, Stages, shipment

from exported import predicted
from stillframe.config import DataConfig, ParityBound
from stillframe.export import exporter
from stillframe.export.format_table import format_table
from stillframe.export.source_samples import source_samples
from stillframe.inference.onnx_model import OnnxModel
from stillframe.inference.predictor import predict_images
from stillframe.inference.trained_model import TrainedModel
from stillframe.paths import read_json
from stillframe.store.split import Split
from stillframe.tasks.classification import TASK


def test_the_file_answers_the_raw_files_as_the_model_answered_the_prepared_ones(shipped: Stages) -> None:
    table = read_json(shipped.exported / "export.json")
    (row,) = table["variants"]
    assert table["chosen"] == row["name"] == "fp32" and row["file"] == "model.onnx"
    assert row["changed_decisions"] == 0 and row["max_probability_difference"] <= 1e-3
    said = pd.read_parquet(shipped.evaluated / "predictions.parquet")
    right = float((said["label"] == said["predicted"]).mean())
    assert row["metrics"]["accuracy"] == table["model"]["metrics"]["accuracy"] == pytest.approx(right, abs=1e-9)
    low, high = row["intervals"]["accuracy"]
    assert low <= right <= high
    assert row["bytes"] == (shipped.exported / "model.onnx").stat().st_size
    assert 0 < row["latency_ms_p50"] <= row["latency_ms_p99"] and row["images_per_s"] > 0
    assert sorted(path.name for path in shipped.exported.iterdir()) == ["export.json", "model.onnx"]
    assert "0 of 8" in format_table(table, TASK)


def test_the_file_is_one_valid_model_that_names_its_origin(shipped: Stages) -> None:
    model = onnx.load(shipped.exported / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert {opset.domain: opset.version for opset in model.opset_import} == {"": 18}
    assert all(not tensor.external_data for tensor in model.graph.initializer)
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node), "paths of this machine"
    facts = OnnxModel(shipped.exported / "model.onnx", threads=1).metadata
    assert facts == replace(shipped.metadata, variant="fp32")
    assert facts.classes == ["cat", "dog ü"] and facts.threshold == 0.4 and facts.temperature == 1.3
    assert (facts.run_id, facts.git_commit, len(facts.data_hash)) == ("r1", "c1", 64)


def test_images_of_any_size_and_number_at_once_answer_as_one_by_one(shipped: Stages) -> None:
    file = OnnxModel(shipped.exported / "model.onnx", threads=1)
    random = np.random.default_rng(0)
    shapes = [(30, 20, 3), (7, 90, 1), (30, 20, 3), (64, 64, 3), (16, 16, 1), (7, 90, 1)]
    images = [random.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]
    together = predicted(file, images)
    for at, image in enumerate(images):
        alone = predicted(file, [image])
        np.testing.assert_allclose(alone.probability_NK[0], together.probability_NK[at], atol=1e-6)
        assert together.decision_N[at] == int(together.probability_NK[at, 1] >= 0.4)
    np.testing.assert_allclose(together.probability_NK.sum(1), 1, atol=1e-5)
    assert predicted(file, []).probability_NK.shape == (0, 2)


@pytest.mark.parametrize("wrong", [np.zeros((9, 9, 4), np.uint8), np.zeros((9, 9), np.uint8), np.zeros((9, 9, 3)), "x"])
def test_what_is_no_image_is_refused(shipped: Stages, wrong: object) -> None:
    with pytest.raises(ValueError, match="an image"):
        predict_images(OnnxModel(shipped.exported / "model.onnx", threads=1), [wrong])


def test_a_file_that_answers_otherwise_fails_the_stage_with_the_numbers(
    shipped: Stages, tmp_path: Path, monkeypatch: Any
) -> None:
    """The model decides otherwise: as if the choices had not been carried into the file."""

    class Otherwise(TrainedModel):
        def run(self, image_NHWC: Any) -> dict[str, Any]:
            arrays = super().run(image_NHWC)
            return {**arrays, "decisions": 1 - arrays["decisions"]}

    other = shipment(shipped)
    other.out = tmp_path
    monkeypatch.setattr(exporter, "TrainedModel", Otherwise)
    copied = lambda *_: [_copy(shipped.exported / "model.onnx", tmp_path / "fp32.onnx")]  # noqa: E731
    monkeypatch.setattr(exporter, "make_variants", copied)
    with pytest.raises(ValueError, match=r"8 of 8 decisions differ.*export\.bound.*accuracy of the file"):
        other.export()
    assert read_json(tmp_path / "export.json")["variants"][0]["changed_decisions"] == 8
    other.section = replace(SECTION, bound=ParityBound(probability=0.0, decisions=1.0))
    with pytest.raises(ValueError, match="largest probability difference"):
        other.export()


def _copy(source: Path, to: Path) -> Path:
    to.write_bytes(source.read_bytes())
    return to


def test_idx_rows_and_jpeg_stored_images_are_held_against_their_source(
    idx_folder: Callable[..., Path], class_folders: Callable[..., Path], data: Callable[..., DataConfig], tmp_path: Path
) -> None:
    made = {
        "idx": (idx_folder(train=30, test=6, side=20), data(image_size=16, near_duplicates="off")),
        "jpeg": (class_folders({"cat": 10, "dog": 12}), data(image_size=16, store="jpeg", resize="crop")),
    }
    for name, (source, section) in made.items():
        stages = Stages(tmp_path / name, source, section)
        table = shipment(stages).export()
        assert table["variants"][0]["changed_decisions"] == 0
        assert not (stages.exported / "unpacked").exists()


def test_a_source_file_that_changed_is_named(shipped: Stages, tmp_path: Path) -> None:
    said = pd.read_parquet(shipped.evaluated / "predictions.parquet")
    path = shipped.source / said["id"].iloc[3]
    content = path.read_bytes()
    path.write_bytes(b"GIF89a of nothing")
    try:
        split, file = Split(shipped.prepared / "test"), OnnxModel(shipped.exported / "model.onnx", threads=1)
        with pytest.raises(ValueError, match=rf"{path.name}: .*dvc repro preprocess"):
            shipment(shipped).evaluate([file], source_samples(split), split, None)
    finally:
        path.write_bytes(content)


def test_a_file_of_somebody_else_or_a_damaged_one_is_an_error(shipped: Stages, tmp_path: Path) -> None:
    whole = shipped.exported / "model.onnx"
    (tmp_path / "cut.onnx").write_bytes(whole.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"cut\.onnx cannot be opened"):
        OnnxModel(tmp_path / "cut.onnx")
    model = onnx.load(whole)
    kept = [entry for entry in model.metadata_props if entry.key != "stillframe.classes"]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    onnx.save(model, tmp_path / "theirs.onnx")
    with pytest.raises(ValueError, match=r"stillframe\.classes: not a file that stillframe exported"):
        OnnxModel(tmp_path / "theirs.onnx")
    with pytest.raises(FileNotFoundError, match="dvc repro export"):
        OnnxModel(tmp_path / "none.onnx")
