"""`stillframe predict` through its door: order, bad files, formats, heat maps, and memory that does not grow."""

from __future__ import annotations

import csv
import io
import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from made import Stages
from PIL import Image

from exported import predicted
from stillframe.cli import main
from stillframe.config.hydra_compose import compose
from stillframe.inference.onnx_model import OnnxModel
from stillframe.inference.predict import predict
from stillframe.ingest.decode import decode
from stillframe.paths import read_json
from tiny import picture

ROOT = Path(__file__).parents[2]


@pytest.fixture
def model(shipped: Stages) -> str:
    return str(shipped.exported / "model.onnx")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Good pictures of several sizes and modes at two depths, bad ones between them, and what is passed over."""
    folder = tmp_path / "in put"
    (folder / "deep/er").mkdir(parents=True)
    for at in range(5):
        Image.fromarray(picture(at, width=20 + at, channels=1 if at == 3 else 3)).save(folder / f"{at}.png")
    Image.fromarray(picture(9)).save(folder / "deep/er/ü é.jpg")
    (folder / "2b.jpg").write_bytes(b"<html>")
    (folder / "4b.png").write_bytes((folder / "4.png").read_bytes()[:300])
    (folder / "deep/gone.png").symlink_to(tmp_path / "nowhere")
    (folder / "notes.txt").write_text("passed over")
    return folder


def table_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))


NAMES = ["0.png", "1.png", "2.png", "2b.jpg", "3.png", "4.png", "4b.png", "deep/er/ü é.jpg", "deep/gone.png"]
BAD = {"2b.jpg": "not an image", "4b.png": "damaged", "deep/gone.png": "broken symbolic link"}


def test_every_file_has_its_row_in_the_order_of_the_input(model: str, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "answers.csv"
    done = predict([str(images)], model=model, out=str(out), batch=2, threads=2, quiet=True)
    assert (done.predicted, done.refused) == (6, 3)
    rows = table_of(out)
    assert [row["path"] for row in rows] == [f"{images}/{name}" for name in NAMES]
    file = OnnxModel(Path(model), threads=1)
    for row, name in zip(rows, NAMES, strict=True):
        if name in BAD:
            assert row["reason"].startswith(BAD[name]) and row["predicted"] == row["confidence"] == ""
            continue
        right = predicted(file, [decode((images / name).read_bytes()).image])
        assert row["predicted"] == file.metadata.classes[right.decision_N[0]] and row["reason"] == ""
        stated = [float(row[f"probability/{label}"]) for label in file.metadata.classes]
        np.testing.assert_allclose(stated, right.probability_NK[0], atol=2e-6)
        assert float(row["confidence"]) == stated[right.decision_N[0]]


def test_arguments_keep_their_order_and_patterns_match(model: str, images: Path, capfd: Any) -> None:
    paths = [str(images / "4.png"), f"{images}/**/*.jpg", f"{images}/[01].png", "no-such.png", f"{images}/*.tif"]
    assert main(["predict", *paths, "--model", model, "--out", "jsonl", "--threads", "1"]) == 0
    out, said = capfd.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    tail = [Path(row["path"]).name for row in rows]
    assert tail == ["4.png", "2b.jpg", "ü é.jpg", "0.png", "1.png", "no-such.png", "*.tif"]
    assert rows[5]["reason"] == "unreadable: No such file or directory" and "matches no file" in rows[6]["reason"]
    assert set(rows[0]["probabilities"]) == {"cat", "dog ü"} and sum(
        rows[0]["probabilities"].values()
    ) == pytest.approx(1)
    assert "refused: 3" in said and "2b.jpg: not an image" in said


def test_formats_hold_the_same(model: str, images: Path, tmp_path: Path) -> None:
    for ending in ("csv", "jsonl", "parquet"):
        predict([str(images)], model=model, out=str(tmp_path / f"a.{ending}"), threads=1, quiet=True)
    table = pd.read_parquet(tmp_path / "a.parquet")
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines()]
    assert table["path"].tolist() == [line["path"] for line in lines]
    assert table["reason"].tolist() == [line["reason"] for line in lines]
    stated = [line["probabilities"]["cat"] for line in lines if not line["reason"]]
    np.testing.assert_allclose(table["probability/cat"].dropna(), stated, atol=1e-6)


def test_strict_exits_1_and_faults_of_the_user_are_one_line(model: str, images: Path, tmp_path: Path) -> None:
    given = ["predict", str(images), "--model", model, "--out", str(tmp_path / "a.csv"), "--quiet"]
    assert main([*given, "--threads", "1"]) == 0
    assert main([*given, "--threads", "1", "--strict"]) == 1
    (tmp_path / "empty").mkdir()
    for wrong, words in [
        (["predict", str(tmp_path / "empty"), "--model", model], "no images in"),
        (["predict", str(images), "--model", model, "--out", "a.cvs"], "did you mean 'csv'"),
        (["predict", str(images), "--model", model, "--explain"], "give it a file"),
        (["predict", str(images), "--model", model, "--batch", "0"], "--batch 0"),
        (["predict", str(images), "--model", str(tmp_path / "none.onnx")], "dvc repro export"),
        (["predict", str(images), "--model", str(tmp_path / "empty")], "neither model.onnx nor model.safetensors"),
    ]:
        with pytest.raises(SystemExit, match=words):
            main(wrong)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "empty", "in put"]


def test_an_output_is_whole_or_not_there(model: str, images: Path, tmp_path: Path, monkeypatch: Any) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("stillframe.inference.predict.row", broken)
    with pytest.raises(OSError, match="disk full"):
        predict([str(images)], model=model, out=str(tmp_path / "a.csv"), threads=1, quiet=True)
    assert [path.name for path in tmp_path.iterdir()] == ["in put"]


def test_a_heat_map_shows_what_the_file_looks_at(model: str, images: Path, tmp_path: Path) -> None:
    predict([str(images)], model=model, out=str(tmp_path / "a.csv"), explain=True, threads=1, quiet=True)
    rows = table_of(tmp_path / "a.csv")
    drawn = [row["heat"] for row in rows if not row["reason"]]
    assert sorted(drawn) == sorted(f"a_heat/{path.name}" for path in (tmp_path / "a_heat").iterdir())
    assert all(row["heat"] == "" for row in rows if row["reason"])
    with Image.open(tmp_path / drawn[0]) as image:
        assert image.size == (32, 16)


def test_a_folder_of_the_train_stage_answers_as_evaluate_did(shipped: Stages, tmp_path: Path, monkeypatch: Any) -> None:
    values = compose(["data=folder", "augment=none"], ROOT / "conf")
    values["data"] |= {"image_size": 16, "resize": "pad", "min_px": 4, "max_megapixels": 1.0}
    project = shipped.trained.parents[1]
    monkeypatch.chdir(project)
    (project / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    said = pd.read_parquet(shipped.evaluated / "predictions.parquet")
    paths = [str(shipped.source / name) for name in said["id"]]
    out = tmp_path / "a.parquet"
    predict(paths, model="artifacts/train", out=str(out), explain=True, threads=1, quiet=True)
    table = pd.read_parquet(out)
    classes = read_json(project / "data/prepared/card.json")["classes"]
    assert table["predicted"].tolist() == [classes[at] for at in said["predicted"]]
    right = np.stack(said["probabilities"].to_list())
    np.testing.assert_allclose(table[[f"probability/{name}" for name in classes]], right, atol=2e-6)
    assert (tmp_path / table["heat"].iloc[0]).is_file()
    by_default = tmp_path / "b.parquet"
    predict(paths, out=str(by_default), threads=1, quiet=True)
    np.testing.assert_allclose(pd.read_parquet(by_default)["probability/cat"], table["probability/cat"], atol=1e-3)


def test_memory_does_not_grow_with_the_number_of_files(shipped: Stages, tmp_path: Path) -> None:
    """Links to four pictures of 40 x 40 px: the pixels of 1,200 of them would be 5.8 MB."""
    folder = tmp_path / "many"
    folder.mkdir()
    for at in range(4):
        Image.fromarray(picture(at, width=40, height=40)).save(tmp_path / f"{at}.png")
    peaks = []
    for count in (400, 1_600):
        for at in range(len(os.listdir(folder)), count):
            os.link(tmp_path / f"{at % 4}.png", folder / f"{at:06d}.png")
        model = str(shipped.exported / "model.onnx")
        tracemalloc.start()
        done = predict([str(folder)], model=model, out=str(tmp_path / "a.csv"), threads=1, quiet=True)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert done.predicted == count
    assert peaks[1] - peaks[0] < 1_200 * 300, f"{peaks} bytes: more than the names of the files in one folder"


def test_predicting_with_a_file_needs_no_torch(model: str, images: Path) -> None:
    import subprocess
    import sys

    program = (
        "import sys\nfrom stillframe.cli import main\n"
        f"main(['predict', {str(images)!r}, '--model', {model!r}, '--quiet', '--threads', '1'])\n"
        "sys.exit(str({'torch', 'mlflow', 'pandas', 'onnx'} & set(sys.modules) or '') or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
