"""The command line, as a user meets it: what it prints, what it writes, how it fails."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from clips import film, numbered
from masked import masked_folder
from stillframe import cli, onboarding

ROOT = Path(__file__).parents[1]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout's conf/ and params.yaml."""
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    onboarding.select(tmp_path / "conf/config.yaml", "elpv")
    return tmp_path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two classes of 20 noise images, 48 x 40 px, and a table that names them otherwise."""
    draw = np.random.default_rng(0)
    rows = ["file,species,ward"]
    for name in ("cat", "dog"):
        for at in range(20):
            path = tmp_path / "my images" / name / f"{at}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw.integers(0, 255, (40, 48, 3), dtype=np.uint8)).save(path)
            rows.append(f"{name}/{at}.png,{name},{at % 3}")
    (tmp_path / "my images" / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return tmp_path / "my images"


def run(*words: str | Path) -> int:
    return cli.main([str(word) for word in words])


def message(*words: str | Path) -> str:
    """The one line with which a command refuses."""
    with pytest.raises(SystemExit) as refused:
        run(*words)
    text = str(refused.value.code)
    assert text.startswith("stillframe: ") and "\n" not in text
    return text


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        run("--help")
    assert done.value.code == 0
    shown = capsys.readouterr().out
    for command in ("check", "use", "compose", "scores", "report", "compare", "promote", "ui", "sync"):
        assert f"\n    {command} " in shown


def test_check_says_what_is_there(project: Path, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (images / "cat/page.jpg").write_text("<html>", encoding="utf-8")
    before = sorted(path.name for path in project.rglob("*"))
    assert run("check", images) == 0
    shown = capsys.readouterr().out
    assert "40 of 41 images usable" in shown
    assert "48 x 40: 40" in shown
    assert "stillframe use" in shown
    assert sorted(path.name for path in project.rglob("*")) == before


def test_check_exits_1_for_what_would_be_refused(
    project: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for at in range(19):
        (images / f"cat/{at}.png").write_bytes(b"")
    assert run("check", images) == 1
    assert "would be refused" in capsys.readouterr().err
    assert "would be refused" in message("use", images)
    assert not (project / "conf/data/mine.yaml").exists()


def test_use_points_the_project_at_the_folder(project: Path, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    comments = [line for line in (project / "conf/config.yaml").read_text().splitlines() if line.startswith("#")]
    assert run("use", images) == 0
    assert "dvc repro" in capsys.readouterr().out
    text = (project / "conf/config.yaml").read_text(encoding="utf-8")
    assert "- data: mine\n" in text and "- experiment: null " in text
    assert [line for line in text.splitlines() if line.startswith("#")] == comments
    params = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
    assert params["data"]["path"] == str(images)
    assert params["data"]["image_size"] == 32
    assert params["data"]["fetch"] is None
    assert os.readlink(project / "data/source") == str(images)
    assert run("compose", "--check") == 0


def test_use_with_masks_chooses_the_task_and_a_net_for_it(project: Path) -> None:
    folder = masked_folder(project / "my masks")
    assert run("use", folder) == 0
    params = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
    assert (params["task"], params["model"]["name"]) == ("segmentation", "unet")
    assert params["data"]["masks"]["folder"] == "masks" and params["data"]["image_size"] == 32
    assert run("compose", "--check") == 0


def test_use_with_videos_chooses_the_task_and_a_net_for_it(project: Path) -> None:
    folder = project.parent / "films"
    for number in range(12):
        frames = numbered(12, mark=number)
        film(folder / ("up", "down")[number % 2] / f"{number}.mp4", frames if number % 2 else frames[::-1])
    assert run("use", folder) == 0
    values = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
    assert (values["task"], values["model"]["temporal"]) == ("video_classification", "gru")
    assert values["augment"]["online"] == [], "a mirror image goes the other way"
    assert values["data"]["clip"]["frames"] == 16 and values["data"]["image_size"] == 32


def test_use_with_a_table(project: Path, images: Path) -> None:
    assert "--columns label=NAME" in message("use", images, "--table", "labels.csv")
    assert "did you mean 'species'" in message("use", images, "--table", "labels.csv", "--columns", "label=speces")
    assert "not of the form role=column" in message("use", images, "--table", "labels.csv", "--columns", "label")
    assert "no such table" in message("use", images, "--table", "label.csv")
    assert run("use", images, "--table", "labels.csv", "--columns", "label=species", "group=ward") == 0
    data = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))["data"]
    assert (data["format"], data["table"]) == ("table", "labels.csv")
    assert data["columns"] == {
        "path": "file",
        "label": "species",
        "split": None,
        "group": "ward",
        "weight": None,
        "start": None,
        "end": None,
        "slices": [],
    }


def test_no_such_folder(project: Path) -> None:
    assert message("check", "nowhere") == "stillframe: nowhere: no such folder"
    assert message("use", "nowhere") == "stillframe: nowhere: no such folder"


def test_a_name_that_yaml_would_read_as_something_else(project: Path, images: Path) -> None:
    for name in ("on", "2024", "a: b #c"):
        renamed = images.rename(images.with_name(name))
        assert run("use", renamed) == 0
        data = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))["data"]
        assert (data["name"], data["path"]) == (name, str(renamed))
        images = renamed


@pytest.mark.parametrize(
    ("sizes", "side"),
    [
        ({"28 x 28": 9}, 28),
        ({"6 x 9": 9}, 8),
        ({"48 x 40": 5, "900 x 900": 4}, 32),
        ({"300 x 300": 5}, 128),
        ({"80 x 64": 3, "other": 9}, 64),
        ({}, 128),
    ],
)
def test_the_image_size_fits_the_images(sizes: dict[str, int], side: int) -> None:
    assert onboarding.image_size_for(sizes) == side


def test_compose_with_overrides_warns(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("compose") == 0
    assert run("compose", "--check") == 0
    capsys.readouterr()
    assert run("compose", "model=resnet18", "optim.lr=3e-4") == 0
    shown = capsys.readouterr()
    assert "optim.lr: 0.001 -> 0.0003" in shown.out
    assert "dvc exp run -S 'model=resnet18' -S 'optim.lr=3e-4'" in shown.err
    assert run("compose", "--check") == 1
    assert "params.yaml is stale" in capsys.readouterr().out
    assert "did you mean 'resnet18'" in message("compose", "model=resnet81")


def test_scores_of_the_last_run(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "dvc repro" in message("scores")
    files: dict[str, dict[str, object]] = {
        "train/model.json": {"task": "classification"},
        "validate/metrics.json": {"accuracy": 0.91, "f1_macro": 0.9},
        "evaluate/metrics.json": {"accuracy": 0.89, "f1_macro": 0.88},
        "evaluate/intervals.json": {"accuracy": [0.85, 0.93]},
        "evaluate/baseline.json": {"accuracy": 0.68, "f1_macro": 0.4, "class": "functional"},
    }
    for name, values in files.items():
        path = project / "artifacts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values), encoding="utf-8")
    assert run("scores") == 0
    shown = capsys.readouterr().out
    for word in ("0.910", "0.890", "0.850 to 0.930", "0.680", "artifacts/report/report.html", "make ui"):
        assert word in shown


def test_ui_becomes_one_quiet_worker(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Twenty seconds and 2.5 GB by default; one worker without a job queue starts in six with 0.5."""
    started: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda program, command: started.append(command))
    monkeypatch.setenv("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "false")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run("compose")
    run("ui", "--port", "5123")
    (command,) = started
    assert os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert command[command.index("--workers") + 1] == "1"
    assert command[command.index("--port") + 1] == "5123"
    assert command[command.index("--backend-store-uri") + 1].startswith("sqlite:///")
    assert "http://127.0.0.1:5123/#/experiments?workflowType=machine_learning" in capsys.readouterr().out


def test_the_address_of_the_experiment_in_the_ui(project: Path) -> None:
    """MLflow's page starts in another mode than model training unless the address names it."""
    from stillframe.config import read_params
    from stillframe.tracking.record import RunRecord, page_of

    run("compose")
    (tracking,) = read_params("tracking")
    uri = f"sqlite:///{Path('mlflow.db').resolve()}"
    record = RunRecord("1", tracking, uri=uri)
    record.tags({"a": "b"})
    assert record.close()
    assert re.fullmatch(
        r"http://h:1/#/experiments/\d+\?workflowType=machine_learning", page_of(tracking, uri, "http://h:1")
    )


def test_sync_with_nothing_waiting(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("compose")
    assert run("sync") == 0
    assert "nothing is waiting" in capsys.readouterr().out


def test_compare_and_promote_without_a_sweep(project: Path) -> None:
    assert message("compare").endswith("there are none yet: python -m stillframe.sweep -m ...")
    assert "sweeps/other is no sweep" in message("compare", "other")
    assert "sweeps/other is no sweep" in message("promote", "best", "--sweep", "other")


def test_promote_takes_a_trial(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        run("promote")
    assert refused.value.code == 2 and "trial" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run("promote", "3", "--repeat", "first")
    assert "invalid int value" in capsys.readouterr().err
