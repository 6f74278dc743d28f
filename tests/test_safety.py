"""No file that comes from elsewhere runs code: a planted pickle at each place where weights, states or tables are read,
planted tags and targets in each YAML file, and the source itself, which has no way to unpickle one."""

from __future__ import annotations

import ast
import os
import pickle
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from stillframe import config
from stillframe.config import hydra_compose
from stillframe.paths import write_json

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
MARK = "it-ran"
TAG = f"!!python/object/apply:os.mkdir ['{MARK}']"
TARGET = {"_target_": "os.mkdir", "_args_": [MARK]}


class Evil:
    """Makes a folder when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (MARK,)


@pytest.fixture(autouse=True)
def nothing_ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    assert not (tmp_path / MARK).exists()


def test_the_trap_works(tmp_path: Path) -> None:
    """What the other tests plant does run, where it is loaded as is usual elsewhere."""
    pickle.loads(pickle.dumps(Evil()))
    assert (tmp_path / MARK).is_dir()
    (tmp_path / MARK).rmdir()
    yaml.unsafe_load(f"seed: {TAG}")
    (tmp_path / MARK).rmdir()


def planted(path: Path) -> Path:
    """A pickle that runs code, as torch.save writes it where the name is a checkpoint's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".ckpt", ".pth"):
        torch.save({"state_dict": {"weight": torch.ones(2)}, "epoch": Evil()}, path)
    else:
        path.write_bytes(pickle.dumps(Evil()))
    return path


# --- pickles -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["best.pth", "best.ckpt", "best.safetensors"])
def test_pretrained_weights(tmp_path: Path, name: str) -> None:
    from stillframe.models import weights

    with pytest.raises(ValueError, match=re.escape(name)):
        weights.load_pretrained(torch.nn.Linear(2, 2), planted(tmp_path / name))


def test_the_trained_model(tmp_path: Path) -> None:
    """What validate, evaluate and export load."""
    from stillframe.models.build import NetworkSpec
    from stillframe.models.trained import load_net

    spec = {name: 8 for name in NetworkSpec.__dataclass_fields__}
    spec |= {"name": "plain_cnn", "classes": 2, "channels": 1, "mean": [0.5], "std": [0.5]}
    spec |= {"drop_rate": 0.0, "drop_path_rate": 0.0, "encoder": None, "frames": 1, "temporal": None}
    write_json(tmp_path / "train/model.json", {"task": "classification", **spec})
    planted(tmp_path / "train/model.safetensors")
    with pytest.raises(ValueError, match=r"train/model\.safetensors is damaged or not a weights file"):
        load_net(tmp_path / "train")


def test_the_answers_of_a_champion(tmp_path: Path) -> None:
    from stillframe.registry.gate import evidence
    from stillframe.tasks import find_task
    from stillframe.types import DatasetCard

    counts = {split: {"a": 1, "b": 1} for split in ("train", "val", "test")}
    DatasetCard("made", ["a", "b"], counts, 1, 8, 8, [0.5], [0.2], [], "0" * 64).write(tmp_path / "card.json")
    write_json(tmp_path / "metrics.json", {"accuracy": 1.0})
    planted(tmp_path / "predictions.parquet")
    with pytest.raises(ValueError, match=r"predictions\.parquet is not a table of predictions"):
        evidence.of_folder(tmp_path, find_task("classification"))


# --- YAML ----------------------------------------------------------------------------------------------------------


def params(tmp_path: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    change(values)
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


@pytest.mark.parametrize("place", ["seed", "model", "optim"])
def test_a_python_tag_in_params(tmp_path: Path, place: str) -> None:
    path = params(tmp_path, lambda values: values.update({place: "HERE"}))
    path.write_text(path.read_text(encoding="utf-8").replace("HERE", TAG), encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(f"{path} is not plain YAML")):
        config.read_params("seed", path=path)
    with pytest.raises(ValueError, match=re.escape(f"{path} is not plain YAML")):
        hydra_compose.read(path)


@pytest.mark.parametrize("place", ["model", "optim", "optim.schedule", "trainer", "tracking"])
def test_a_target_in_params(tmp_path: Path, place: str) -> None:
    """What Hydra would instantiate is an unknown key here."""

    def change(values: dict[str, Any]) -> None:
        for part in place.split("."):
            values = values[part]
        values.update(TARGET)

    path = params(tmp_path, change)
    with pytest.raises(ValueError, match=re.escape(f"{path}: unknown key {place}._target_ = 'os.mkdir'")):
        config.read_params(place.split(".")[0], path=path)


def test_a_name_that_is_a_path_to_code(tmp_path: Path) -> None:
    """Names of transforms, nets and optimizers are looked up in their libraries, not imported."""
    from stillframe.augmentation.policy import check_policy

    with pytest.raises(ValueError, match=r"augment\.online.*os\.mkdir"):
        check_policy([{"os.mkdir": {"path": MARK}}], "augment.online")


def test_conf_composes_no_code(tmp_path: Path) -> None:
    conf = Path(shutil.copytree(ROOT / "conf", tmp_path / "conf"))
    target = conf / "model/plain_cnn.yaml"
    text = target.read_text(encoding="utf-8")
    target.write_text(f"{text}\n_target_: os.mkdir\n_args_: [{MARK}]\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"conf/ \(composed\): unknown key model\._(target|args)_"):
        hydra_compose.compose(["model=plain_cnn"], conf)
    target.write_text(f"{text}\nextra: {TAG}\n", encoding="utf-8")
    with pytest.raises(ValueError, match="conf/ does not compose"):
        hydra_compose.compose(["model=plain_cnn"], conf)


@pytest.mark.parametrize("name", ["params.yaml", "dvc.lock"])
def test_a_record_in_mlflow(tmp_path: Path, name: str) -> None:
    """`stillframe verify` reads these from a store; it runs the commit's code, and none that they ask for."""
    from stillframe.registry.verify.record import CannotRebuild, RecordedRun

    path = tmp_path / "lineage" / name
    path.parent.mkdir()
    path.write_text(f"stages: {TAG}\n", encoding="utf-8")
    recorded = RecordedRun("a" * 32, {}, {}, tmp_path)
    with pytest.raises(CannotRebuild, match=re.escape(f"{path} is not plain YAML")):
        recorded.params() if name == "params.yaml" else recorded.lock()


# --- the source ----------------------------------------------------------------------------------------------------

UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "jsonpickle"}
CALLS = {  # calls that unpickle, or run what they read -> what makes them safe
    "torch.load": "weights_only=True",
    "np.load": "never",
    "numpy.load": "never",
    "joblib.load": "never",
    "joblib.dump": "never",
    "pd.read_pickle": "never",
    "yaml.load": "never",
    "yaml.full_load": "never",
    "yaml.unsafe_load": "never",
    "eval": "never",
    "exec": "never",
    "hydra.utils.instantiate": "never",
    "instantiate": "never",
}


def faults(text: str) -> list[str]:
    """Imports and calls of a source text that could unpickle or run what they read."""
    tree, found = ast.parse(text), []
    own = {"yaml.load"} if re.search(r"^\s*yaml = YAML\(", text, re.MULTILINE) else set()  # ruamel's, which is safe
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        found += [f"line {node.lineno}: import {name}" for name in names if name.split(".")[0] in UNPICKLERS]
        if isinstance(node, ast.Call):
            call, safe = ast.unparse(node.func), CALLS.get(ast.unparse(node.func))
            given = {f"{word.arg}={ast.unparse(word.value)}" for word in node.keywords}
            if safe is not None and call not in own and safe not in given:
                found.append(f"line {node.lineno}: {call}")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_source_has_no_way_to_unpickle(path: Path) -> None:
    assert faults(path.read_text(encoding="utf-8")) == []


def test_the_check_of_the_source_finds_what_it_should() -> None:
    bad = ["import pickle", "from dill import loads", "torch.load(x)", "torch.load(x, weights_only=False)", "eval(x)"]
    bad += ["yaml.load(x, Loader)", "np.load(x, allow_pickle=True)", "instantiate(x)"]
    assert [len(faults(text)) for text in bad] == [1] * len(bad)
    assert faults("torch.load(x, weights_only=True)\nyaml.safe_load(x)\njson.load(x)") == []


def test_only_the_state_of_an_unfinished_training_is_written_by_torch() -> None:
    """And it is read with weights_only. What is kept, registered and shipped is safetensors, JSON, Parquet or ONNX."""
    writers = [path for path in SOURCES if re.search(r"torch\.(jit\.)?save\(", path.read_text(encoding="utf-8"))]
    assert [path.name for path in writers] == ["resume.py"]
    assert "weights_only=True" in (ROOT / "src/stillframe/training/resume.py").read_text(encoding="utf-8")
