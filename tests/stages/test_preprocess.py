import inspect
import json
import subprocess
import sys

import pytest

from stillframe.paths import PREPARED, RAW, SOURCE
from stillframe.stages import preprocess
from stillframe.types import DatasetCard


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_stage_through_the_link(class_folders, data, here, capsys):
    folder = class_folders({"a": 10, "b": 10}, under="mine")
    SOURCE.parent.mkdir()
    SOURCE.symlink_to(folder)
    preprocess.run("classification", 0, data())
    assert DatasetCard.read(PREPARED / "card.json").classes == ["a", "b"]
    names = {path.name for path in PREPARED.iterdir()}
    assert names == {"train", "val", "test", "card.json", "audit.json", "audit.html", "quarantine.csv"}
    assert "20 images (train 12, val 4, test 4); 0 quarantined, 0 left out by rule" in capsys.readouterr().out


def test_without_a_link_the_fetched_images_are_read(class_folders, data, here):
    class_folders({"a": 10, "b": 10}, under=str(RAW))
    (RAW / "source.json").write_text(json.dumps({"fetch": None}))
    preprocess.run("classification", 0, data())
    assert sum(DatasetCard.read(PREPARED / "card.json").counts["train"].values()) == 12


def test_no_source_says_what_to_do(data, here):
    with pytest.raises(FileNotFoundError, match="dvc repro fetch"):
        preprocess.run("classification", 0, data())


def test_arguments_mirror_the_stage():
    assert list(inspect.signature(preprocess.run).parameters) == ["task", "seed", "data", "source", "raw", "prepared"]


@pytest.mark.parametrize("stage", ["fetch", "preprocess"])
def test_starting_a_stage_imports_no_torch(stage):
    code = (
        f"import sys, stillframe.stages.{stage}, stillframe.reporting.audit_page\n"
        "print([name for name in ('torch', 'pytorch_lightning', 'mlflow', 'hydra', 'datasets') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_user_error_is_one_line_and_exit_1(here):
    done = subprocess.run([sys.executable, "-m", "stillframe.stages.preprocess"], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("preprocess: params.yaml is missing")
    assert "Traceback" not in done.stderr
