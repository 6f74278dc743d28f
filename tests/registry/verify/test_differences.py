"""What counts as a difference between a run and its rebuild, and what only explains it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto, helper

from stillframe.registry.verify.differences import VerifyReport, compare
from stillframe.registry.verify.record import RecordedRun, stages_of

LOCK = """schema: '2.0'
stages:
  preprocess:
    deps:
    - {{path: data/source, md5: {source}}}
    - {{path: src/stillframe/ingest/prepare.py, md5: {code}}}
    outs:
    - {{path: data/prepared, md5: {prepared}}}
  train:
    deps:
    - {{path: data/prepared/train, md5: {prepared}1}}
    outs:
    - {{path: artifacts/train, md5: {train}}}
"""
SAME = {"source": "s", "code": "c", "prepared": "p", "train": "t"}


def side(
    folder: Path, metrics: dict[str, float] | None = None, tags: dict[str, str] | None = None, **lock: str
) -> RecordedRun:
    (folder / "lineage").mkdir(parents=True)
    (folder / "train").mkdir()
    (folder / "lineage/dvc.lock").write_text(LOCK.format(**SAME | lock), encoding="utf-8")
    (folder / "train/summary.json").write_text(json.dumps({"best_epoch": 3, "seconds": hash(folder)}), encoding="utf-8")
    (folder / "train/history.csv").write_text("epoch\n1\n", encoding="utf-8")
    return RecordedRun("a" * 32, tags or {}, metrics or {}, folder)


def found(first: RecordedRun, second: RecordedRun, within: float = 0.0) -> VerifyReport:
    return compare(first, second, stages_of(second.folder / "lineage/dvc.lock"), within)


def said(differences: Any) -> list[tuple[str, str, str, str]]:
    return [(one.kind, one.name, one.recorded, one.rebuilt) for one in differences]


def test_equal_runs_are_equal_whatever_time_they_took(tmp_path) -> None:
    nan = math.nan
    first = side(tmp_path / "a", {"test/accuracy": 0.9, "test/auroc": nan, "train/seconds": 3.0}, train="t")
    second = side(tmp_path / "b", {"test/accuracy": 0.9, "test/auroc": nan, "train/seconds": 4.0}, train="u")
    result = found(first, second)
    assert result.equal and not result.surroundings
    assert result.compared == {"metrics": 2, "files": 2, "DVC hashes": 4}


def exported(folder: Path, run_id: str, weight: float) -> None:
    """A file of one addition, with its origin."""
    value = helper.make_tensor("w", TensorProto.FLOAT, [1], [weight])
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    model = helper.make_model(
        helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [value])
    )
    helper.set_model_props(model, {"stillframe.run_id": run_id, "stillframe.net": "plain_cnn"})
    (folder / "export").mkdir()
    (folder / "export/model.onnx").write_bytes(model.SerializeToString())


def test_an_exported_file_may_name_another_run_and_nothing_else(tmp_path) -> None:
    first, second, third = (side(tmp_path / name, {"test/accuracy": 0.9}) for name in "abc")
    exported(first.folder, "one", 0.5)
    exported(second.folder, "two", 0.5)
    exported(third.folder, "one", 0.25)
    assert found(first, second).equal
    assert [one.name for one in found(first, third).results] == ["export/model.onnx"]


def test_each_metric_that_differs_is_named(tmp_path) -> None:
    first = side(tmp_path / "a", {"test/accuracy": 0.9, "test/f1_macro": 0.8, "val/loss": 0.5})
    second = side(tmp_path / "b", {"test/accuracy": 0.9 + 1e-12, "val/loss": 0.5, "val/new": 1.0})
    assert said(found(first, second).results) == [
        ("metric", "test/accuracy", "0.9", "0.900000000001"),
        ("metric", "test/f1_macro", "0.8", "(absent)"),
        ("metric", "val/new", "(absent)", "1.0"),
    ]


def test_within_a_distance_metrics_are_equal_and_files_explain(tmp_path) -> None:
    first = side(tmp_path / "a", {"test/accuracy": 0.900})
    second = side(tmp_path / "b", {"test/accuracy": 0.901}, prepared="q")
    (second.folder / "train/history.csv").write_text("epoch\n2\n", encoding="utf-8")
    result = found(first, second, 0.0011)
    assert result.equal and {one.kind for one in result.surroundings} == {"file", "DVC hash"}
    assert not found(first, second, 0.0009).equal


def test_a_file_that_differs_or_is_gone(tmp_path) -> None:
    first, second = side(tmp_path / "a"), side(tmp_path / "b")
    (second.folder / "train/history.csv").write_text("epoch\n2\n", encoding="utf-8")
    (second.folder / "train/summary.json").write_text('{"best_epoch": 4, "seconds": 1}', encoding="utf-8")
    (first.folder / "model.json").write_text("{}", encoding="utf-8")
    names = {one.name: one.rebuilt for one in found(first, second).results}
    assert set(names) == {"train/history.csv", "train/summary.json", "model.json"} and names["model.json"] == "(absent)"


def test_what_stages_made_is_a_result_and_what_they_read_explains(tmp_path) -> None:
    first, second = side(tmp_path / "a"), side(tmp_path / "b", source="x", code="y", prepared="z")
    result = found(first, second)
    assert [one.name for one in result.surroundings] == [
        "preprocess/deps/data/source",
        "preprocess/deps/src/stillframe/ingest/prepare.py",
    ]
    assert [one.name for one in result.results] == ["preprocess/outs/data/prepared", "train/deps/data/prepared/train"]


def test_versions_threads_and_pins_explain(tmp_path) -> None:
    tags = {"version.torch": "2.15.0", "machine.threads": "2", "machine.host": "here"}
    first = side(tmp_path / "a", tags=tags)
    second = side(tmp_path / "b", tags={**tags, "version.torch": "2.14.0", "machine.threads": "1", "version.new": "1"})
    pins = '# pins\nnumpy==0.0.1\nno-such-package==1.0\npytest==0.1 ; sys_platform == "linux"\n'
    (first.folder / "lineage/requirements.lock").write_text(pins, encoding="utf-8")
    result = found(first, second)
    assert result.equal
    assert said(result.surroundings)[:2] == [("package", "torch", "2.15.0", "2.14.0"), ("machine", "threads", "2", "1")]
    assert [(one.name, one.recorded) for one in result.surroundings[2:]] == [("numpy", "0.0.1"), ("pytest", "0.1")]


def test_a_record_without_a_lock_compares_no_hashes(tmp_path) -> None:
    first, second = side(tmp_path / "a"), side(tmp_path / "b", prepared="z")
    (first.folder / "lineage/dvc.lock").unlink()
    result = found(first, second)
    assert result.equal and result.compared["DVC hashes"] == 0


@pytest.mark.parametrize("name", ["artifacts/report", "artifacts/export", "params.yaml"])
def test_outputs_that_name_their_run_are_compared_by_file_only(tmp_path, name) -> None:
    first, second = side(tmp_path / "a", prepared="1"), side(tmp_path / "b", prepared="2")
    for one in (first, second):
        path = one.folder / "lineage/dvc.lock"
        path.write_text(path.read_text(encoding="utf-8").replace("data/prepared", name), encoding="utf-8")
    assert found(first, second).equal
