"""conf/ becomes params.yaml: plainly, with overrides, and never on stale values."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
import yaml

from stillframe import config
from stillframe.config import hydra_compose
from stillframe.stages import compose as stage

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the repository's conf/ (on the demo's data), to change."""
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    (tmp_path / "src").symlink_to(ROOT / "src")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    return tmp_path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def params(project: Path) -> dict:
    return yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))


def test_writes_every_section_and_the_link(project: Path) -> None:
    stage.run()
    assert list(params(project)) and set(params(project)) == set(config.TYPES)
    assert os.readlink(project / "data/source") == "raw"
    assert stage.stale() == []


def test_an_edit_in_conf_shows_as_stale_and_is_composed(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage.run()
    edit(project / "conf/optim/adamw.yaml", "lr: 1.0e-3", "lr: 3.0e-4")
    assert stage.stale() == ["optim.lr: 0.001 -> 0.0003"]
    capsys.readouterr()
    stage.run()
    assert "optim.lr: 0.001 -> 0.0003" in capsys.readouterr().out
    assert params(project)["optim"]["lr"] == 3e-4


def test_a_hand_edit_of_params_is_restored(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage.run()
    edit(project / "params.yaml", "seed: 0", "seed: 7")
    capsys.readouterr()
    stage.run()
    assert "seed: 7 -> 0" in capsys.readouterr().out
    assert params(project)["seed"] == 0


def test_the_same_conf_gives_the_same_bytes(project: Path) -> None:
    stage.run()
    first = (project / "params.yaml").read_bytes()
    stage.run()
    assert (project / "params.yaml").read_bytes() == first


def test_an_experiment_of_dvc_is_left_alone(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = project / "images"
    images.mkdir()
    hydra_compose.write(hydra_compose.compose(["data=folder", f"data.path={images}", "optim.lr=3e-4"]))
    before = (project / "params.yaml").read_bytes()
    monkeypatch.setenv("DVC_EXP_NAME", "wild-goose")
    stage.run()
    assert (project / "params.yaml").read_bytes() == before
    assert os.readlink(project / "data/source") == str(images)


def test_an_experiment_of_dvc_is_checked(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = hydra_compose.compose([])
    values["optim"]["lrr"] = values["optim"].pop("lr")
    hydra_compose.write(values)
    monkeypatch.setenv("DVC_EXP_NAME", "wild-goose")
    with pytest.raises(ValueError, match=r"unknown key optim\.lrr = 0\.001: did you mean 'lr'"):
        stage.run()


def test_a_policy_that_turns_upright_images_is_said(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage.run()
    assert "warning" not in capsys.readouterr().err
    edit(project / "conf/data/elpv.yaml", "symmetry: d4", "symmetry: none")
    stage.run()
    assert "warning: augment = symmetric turns images upside down (D4)" in capsys.readouterr().err


def test_no_state_is_left_in_hydra(project: Path) -> None:
    from hydra.core.global_hydra import GlobalHydra

    assert hydra_compose.compose(["seed=1"])["seed"] == 1
    assert hydra_compose.compose([])["seed"] == 0
    with pytest.raises(ValueError):
        hydra_compose.compose(["model=resnet19"])
    assert hydra_compose.compose([])["seed"] == 0
    assert not GlobalHydra.instance().is_initialized()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("modle=resnet18", "unknown 'modle': did you mean 'model'"),
        ("model=resnet19", "no conf/model/resnet19.yaml: did you mean 'resnet18'"),
        ("experiment=elpv_dmo", "did you mean 'elpv_demo'"),
        ("optim.lrr=3", "unknown key optim.lrr: did you mean 'lr'"),
        ("optim.schedule.nmae=x", "unknown key optim.schedule.nmae: did you mean 'name'"),
        ("+optim.lrr=3", "unknown key optim.lrr = 3: did you mean 'lr'"),
        ("optim.lr=fast", "optim.lr = 'fast': Input should be a valid number"),
        ("optim.lr", "Error parsing override 'optim.lr'"),
        ("+optin={}", "unknown section 'optin': did you mean 'optim'"),
    ],
)
def test_a_wrong_override_names_the_nearest_right_one(project: Path, override: str, message: str) -> None:
    with pytest.raises(ValueError) as error:
        hydra_compose.compose([override], Path("conf"))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_conf_that_does_not_compose_is_one_line(project: Path) -> None:
    edit(project / "conf/config.yaml", "- model: efficientnet_lite0", "- model: efficientnet_lite9")
    with pytest.raises(ValueError, match=r"^conf/ does not compose: .*efficientnet_lite9") as error:
        stage.run()
    assert "\n" not in str(error.value)


def test_outside_the_repository_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    with pytest.raises(FileNotFoundError, match="run this in the repository's root"):
        stage.run()


def test_a_folder_that_is_not_there_is_named(project: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"data\.path = '/no/such': no such folder"):
        stage.link_source("/no/such", project / "data/source")


def test_what_the_user_put_at_the_link_is_not_deleted(project: Path) -> None:
    (project / "data/source").mkdir(parents=True)
    (project / "data/source/mine.txt").write_text("x")
    with pytest.raises(ValueError, match="must be a link"):
        stage.run()
    assert (project / "data/source/mine.txt").exists()


def test_damaged_params_are_replaced(project: Path) -> None:
    (project / "params.yaml").write_text("a: [1,\n")
    with pytest.raises(ValueError, match=r"params\.yaml is not plain YAML"):
        stage.stale()
    stage.run()
    assert stage.stale() == []


def test_dvc_composes_the_same_values(project: Path) -> None:
    """`dvc exp run` composes conf/ by itself, with another version base: the values must not differ."""
    from dvc.utils.hydra import compose_and_dump

    overrides = ["model=resnet18", "optim.lr=3e-4", "experiment=digits_smoke"]
    compose_and_dump(project / "dvc.yaml.params.yaml", str(project / "conf"), None, "config", "", overrides)
    theirs = yaml.safe_load((project / "dvc.yaml.params.yaml").read_text(encoding="utf-8"))
    assert hydra_compose.differences(theirs, hydra_compose.compose(overrides)) == []


def test_the_code_of_each_stage_is_written(project: Path) -> None:
    stage.run()
    written = {
        path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (project / "artifacts/code").iterdir()
    }
    assert set(written) == {path.stem for path in (ROOT / "src/stillframe/stages").glob("*.py")} - {"__init__"}
    trained = written["train"]["stillframe/training/loop.py"]
    assert trained == hashlib.sha256((ROOT / "src/stillframe/training/loop.py").read_bytes()).hexdigest()
    assert "stillframe/training/loop.py" not in written["evaluate"]
