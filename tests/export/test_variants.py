"""Smaller files: each is made, answers, says what it is, and the rule chooses by the validation split."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from made import SECTION, Stages, shipment
from onnx import numpy_helper

from stillframe.export.format_table import format_table
from stillframe.export.variants import choose
from stillframe.inference.onnx_model import OnnxModel
from stillframe.paths import read_json
from stillframe.tasks.classification import TASK

ALL = ["fp32", "fp16", "int8", "sparse", "slim"]


@pytest.fixture(scope="module")
def compressed(shipped: Stages, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All variants of the shared model, chosen by the rule."""
    out = tmp_path_factory.mktemp("compressed") / "export"
    out.mkdir()
    one = shipment(shipped, replace(SECTION, variants=ALL[::-1], choose="smallest_within", within={"f1_macro": 1.0}))
    one.out = out
    one.export()
    return out


def rows_of(folder: Path) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in read_json(folder / "export.json")["variants"]}


def test_every_variant_has_its_price(compressed: Path, shipped: Stages) -> None:
    rows, table = rows_of(compressed), read_json(compressed / "export.json")
    assert list(rows) == ["fp32", "slim", "sparse", "int8", "fp16"], "fp32 first, then as they are asked for"
    for name, row in rows.items():
        assert row["bytes"] == (compressed / row["file"]).stat().st_size
        assert row["latency_ms_p50"] > 0 and set(row["intervals"]) == set(row["metrics"]) == set(row["validation"])
        file = OnnxModel(compressed / row["file"], threads=1)
        assert file.metadata == replace(shipped.metadata, variant=name)
        onnx.checker.check_model(str(compressed / row["file"]), full_check=True)
        assert name in format_table(table, TASK)
    assert rows["fp16"]["bytes"] < 0.6 * rows["fp32"]["bytes"]
    assert rows["int8"]["bytes"] < 0.4 * rows["fp32"]["bytes"]
    assert rows["slim"]["bytes"] < 0.5 * rows["fp32"]["bytes"]
    assert rows["fp32"]["max_probability_difference"] < rows["fp16"]["max_probability_difference"] < 0.05
    assert rows["int8"]["max_probability_difference"] < 0.2
    smallest = min(rows.values(), key=lambda row: row["bytes"])
    assert table["chosen"] == smallest["name"] and smallest["file"] == "model.onnx"


def test_sparse_has_zeros_and_slim_has_fewer_channels(compressed: Path) -> None:
    rows = rows_of(compressed)

    def weights(name: str) -> np.ndarray:
        graph = onnx.load(compressed / rows[name]["file"]).graph
        arrays = [numpy_helper.to_array(tensor) for tensor in graph.initializer]
        return np.concatenate([array.ravel() for array in arrays if array.dtype == np.float32 and array.ndim > 1])

    assert (weights("sparse") == 0).mean() == pytest.approx(0.6, abs=0.02)
    assert (weights("fp32") == 0).mean() < 0.01
    assert weights("slim").size < 0.5 * weights("fp32").size


def test_int8_computes_in_eight_bits_and_the_answer_in_fp32(compressed: Path) -> None:
    graph = onnx.load(compressed / rows_of(compressed)["int8"]["file"]).graph
    kinds = {node.op_type for node in graph.node}
    assert {"QuantizeLinear", "DequantizeLinear", "Softmax"} <= kinds
    weights = [numpy_helper.to_array(tensor) for tensor in graph.initializer]
    eight = sum(array.size for array in weights if array.dtype == np.int8)
    assert eight > 0.95 * sum(array.size for array in weights if array.ndim > 1)
    scales = [tensor for tensor in graph.initializer if tensor.name.endswith("_scale") and tensor.dims]
    assert scales, "one scale a channel"


def test_the_rule_looks_at_validation_scores_only() -> None:
    def row(name: str, size: int, validation: float, test: float) -> dict[str, Any]:
        scores = {"metrics": {"f1_macro": test}, "validation": {"f1_macro": validation}}
        return {"name": name, "bytes": size, "latency_ms_p50": 1.0, **scores}

    rows = [row("fp32", 100, 0.9, 0.9), row("fp16", 50, 0.895, 0.1), row("int8", 25, 0.88, 0.99)]
    rule = replace(SECTION, choose="smallest_within", within={"f1_macro": 0.01})
    assert choose(rows, rule, TASK) == "fp16"
    assert choose(rows, replace(rule, within={"f1_macro": 0.03}), TASK) == "int8"
    assert choose(rows, replace(rule, within={"f1_macro": 0.0}), TASK) == "fp32"
    assert choose(rows, replace(rule, choose="int8"), TASK) == "int8"
    with pytest.raises(ValueError, match="'slim' is not in export.variants"):
        choose(rows, replace(rule, choose="slim"), TASK)
    with pytest.raises(ValueError, match="export.within.f2: no such score: known: f1_macro"):
        choose(rows, replace(rule, within={"f2": 0.1}), TASK)


def test_files_are_the_same_when_they_are_made_again(compressed: Path, shipped: Stages, tmp_path: Path) -> None:
    one = shipment(shipped, replace(SECTION, variants=["int8", "sparse"]))
    one.out = tmp_path
    one.export()
    for name in ("int8", "sparse"):
        assert (tmp_path / f"{name}.onnx").read_bytes() == (compressed / rows_of(compressed)[name]["file"]).read_bytes()
    shutil.rmtree(tmp_path)
