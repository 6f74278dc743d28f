"""Params become dataclasses: every fault is one line with the key, the value and the nearest right name."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from stillframe import config
from stillframe.config import hydra_compose

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"


@pytest.fixture(scope="module")
def composed() -> dict[str, Any]:
    return hydra_compose.compose([], ROOT / "conf")


def changed(values: dict[str, Any], section: str, **new: Any) -> dict[str, Any]:
    out = copy.deepcopy(values)
    out[section] |= new
    return out


def test_each_section_is_a_frozen_dataclass_without_defaults(composed: dict[str, Any]) -> None:
    for section, kind in config.TYPES.items():
        built = config.build(section, composed[section])
        if dataclasses.is_dataclass(kind):
            for field in dataclasses.fields(kind):
                assert field.default is dataclasses.MISSING, f"{section}.{field.name} has a default: conf/ says all"
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(built, dataclasses.fields(kind)[0].name, 1)


@pytest.mark.parametrize(
    ("section", "new", "message"),
    [
        ("data", {"pth": 3}, "unknown key data.pth = 3: did you mean 'path'"),
        ("optim", {"lr": "x"}, "optim.lr = 'x'"),
        ("optim", {"lr": -1.0}, "optim.lr = -1.0: Input should be greater than 0"),
        ("augment", {"balance": "overs"}, "augment.balance = 'overs': did you mean 'oversample'"),
        ("trainer", {"max_epochs": 0}, "trainer.max_epochs = 0"),
        ("trainer", {"max_epochs": "8"}, "trainer.max_epochs = '8'"),
        ("trainer", {"compile": 1}, "trainer.compile = 1"),
        ("optim", {"schedule": {"name": "cosine", "final_fraction": 0.0}}, "optim.schedule.warmup_fraction is missing"),
        (
            "optim",
            {"schedule": {"name": "cosine", "warmup_fracton": 0.1, "warmup_fraction": 0.1, "final_fraction": 0.0}},
            "unknown key optim.schedule.warmup_fracton = 0.1: did you mean 'warmup_fraction'",
        ),
    ],
)
def test_a_fault_is_one_line(composed: dict[str, Any], section: str, new: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:
        config.check_all(changed(composed, section, **new), origin="params.yaml")
    assert f"params.yaml: {message}" in str(error.value)
    assert "\n" not in str(error.value)


def test_all_faults_are_told_at_once(composed: dict[str, Any]) -> None:
    values = changed(changed(composed, "optim", lr=0), "trainer", devices=-1)
    with pytest.raises(ValueError) as error:
        config.check_all(values, origin="params.yaml")
    assert len(str(error.value).splitlines()) == 2


def test_a_missing_and_an_unknown_section(composed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="section 'optim' is missing"):
        config.check_all({key: value for key, value in composed.items() if key != "optim"}, origin="params.yaml")
    with pytest.raises(ValueError, match="unknown section 'optin': did you mean 'optim'"):
        config.check_all({**composed, "optin": {}}, origin="params.yaml")


def test_read_params(composed: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    with pytest.raises(FileNotFoundError, match="stillframe compose"):
        config.read_params("seed", path=path)
    path.write_text("- 1\n", encoding="utf-8")
    with pytest.raises(ValueError, match="holds no sections"):
        config.read_params("seed", path=path)
    path.write_text(hydra_compose.as_yaml(composed), encoding="utf-8")
    seed, optim = config.read_params("seed", "optim", path=path)
    assert (seed, optim.name) == (composed["seed"], composed["optim"]["name"])


def test_a_params_file_cannot_run_code(tmp_path: Path) -> None:
    path, mark = tmp_path / "params.yaml", tmp_path / "mark"
    path.write_text(f"seed: !!python/object/apply:os.mkdir ['{mark}']\n", encoding="utf-8")
    with pytest.raises(ValueError, match="is not plain YAML"):
        config.read_params("seed", path=path)
    assert not mark.exists()


UPSIDE_DOWN = [{"OneOf": {"transforms": [{"VerticalFlip": {"p": 0.5}}], "p": 0.3}}]


@pytest.mark.parametrize(
    ("symmetry", "augment", "said"),
    [
        ("none", {"online": [{"D4": {"p": 1.0}}]}, "D4"),
        ("mirror", {"online": UPSIDE_DOWN}, "VerticalFlip"),
        ("none", {"online": [], "offline": [{"RandomRotate90": {}}]}, "RandomRotate90"),
        ("none", {"online": [{"D4": {"p": 0}}, {"HorizontalFlip": {"p": 0.5}}]}, None),
        ("d4", {"online": [{"D4": {"p": 1.0}}]}, None),
    ],
)
def test_turning_what_has_an_up_is_warned_of(
    composed: dict[str, Any], symmetry: str, augment: dict[str, Any], said: str | None
) -> None:
    values = changed(changed(composed, "data", symmetry=symmetry), "augment", **augment)
    config.check_all(values, "here")
    found = config.cautions(values)
    assert len(found) == (said is not None)
    for line in found:
        assert f"({said})" in line and f"data.symmetry = {symmetry}" in line and "augment=upright" in line


@pytest.mark.parametrize("name", [path.stem for path in sorted((CONF / "experiment").glob("*.yaml"))])
def test_our_own_experiments_mean_what_they_do(name: str) -> None:
    assert config.cautions(hydra_compose.compose([f"experiment={name}"], CONF)) == []


def test_a_folder_of_ones_own_does_not_take_the_turns_of_the_demo_in_silence() -> None:
    own = ["data=folder", "data.path=/photos"]
    assert len(config.cautions(hydra_compose.compose([*own, "augment=symmetric"], CONF))) == 1
    assert config.cautions(hydra_compose.compose([*own, "augment=upright"], CONF)) == []
