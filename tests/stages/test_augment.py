"""The augment stage through its own door, on a tiny made split."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from stillframe.augmentation.online import make_online
from stillframe.config import AugmentConfig
from stillframe.stages import augment as stage
from stillframe.store.split import FILE, Split, SplitWriter
from stillframe.types import DatasetCard
from tiny import LABEL

CONF = Path(__file__).parents[2] / "conf" / "augment"
ROOT = Path(__file__).parents[2]


def policy(name, **changes):
    values = {}
    for part in ("none", name):
        values |= yaml.safe_load((CONF / f"{part}.yaml").read_text())
    values.pop("defaults", None)
    return AugmentConfig(**(values | changes))


def prepared(root, sizes=(9, 4), channels=1, size=28):
    random = np.random.default_rng(0)
    folder = root / "data" / "prepared"
    classes = [f"class {label}" for label in range(len(sizes))]
    with SplitWriter(
        folder / "train", height=size, width=size, channels=channels, encoding="raw", targets=[LABEL]
    ) as writer:
        for label, count in enumerate(sizes):
            for number in range(count):
                name = f"{label}/{number}.png"
                row = {"id": name, "label": label, "weight": 1.0, "group": name, "source_id": name}
                row |= {"source_width": size, "source_height": size, "source_mode": "L", "slices": "{}"}
                image = random.integers(0, 256, (size, size, channels), dtype=np.uint8)
                writer.write([{**row, "image": image.tobytes()}])
    counts = {"train": dict(zip(classes, sizes, strict=True)), "val": {}, "test": {}}
    measured = {"mean": [0.5] * channels, "std": [0.3] * channels, "slices": [], "split_hash": "0"}
    shape = {"channels": channels, "height": size, "width": size}
    DatasetCard(name="made", classes=classes, counts=counts, **shape, **measured).write(folder / "card.json")
    return folder


def run(root, chosen, seed=0):
    folder, out = root / "data" / "prepared", root / "data" / "augmented"
    stage.run("classification", seed, chosen, train=folder / "train", card=folder / "card.json", augmented=out)
    return out


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", sorted(path.stem for path in CONF.glob("*.yaml")))
def test_every_shipped_policy_runs_twice_with_the_same_bytes(tmp_path, name, channels):
    prepared(tmp_path, channels=channels)
    first = {path.name: path.read_bytes() for path in run(tmp_path, policy(name)).iterdir()}
    again = {path.name: path.read_bytes() for path in run(tmp_path, policy(name)).iterdir()}
    assert first == again
    assert set(first) == {FILE, "dataset_info.json", "state.json", "policy.json", "preview.png"}
    assert len(Split(tmp_path / "data" / "augmented")) == 13 * policy(name).copies


def test_policy_json_says_all_and_the_seed_and_the_policy_matter(tmp_path):
    prepared(tmp_path)
    out = run(tmp_path, policy("strong", balance="oversample"))
    said = json.loads((out / "policy.json").read_text())
    assert said["counts"] == {"class 0": {"train": 9, "copies": 9}, "class 1": {"train": 4, "copies": 14}}
    assert said["where"] == "auto" and said["where_on"] == {"cpu": "batch", "cuda": "batch"}
    assert [next(iter(entry)) for entry in said["online"]] == [next(iter(entry)) for entry in policy("strong").online]
    affine = next(entry["Affine"] for entry in said["online"] if "Affine" in entry)
    assert affine["fit_output"] is False and affine["interpolation"] == 1  # defaults are spelt out
    table = Split(out).table
    assert (table["source_id"] + "#aug").tolist() == table["id"].str.replace(r"\d+$", "", regex=True).tolist()
    before = (out / FILE).read_bytes()
    assert (run(tmp_path, policy("strong", balance="oversample"), seed=1) / FILE).read_bytes() != before


def test_the_preview_shows_originals_and_the_draws_that_training_will_make(tmp_path):
    folder = prepared(tmp_path)
    chosen = policy("light", where="item")
    picture = np.asarray(Image.open(run(tmp_path, chosen) / "preview.png").convert("L"))
    big = Split(folder / "train").images(np.arange(13)).repeat(4, axis=1).repeat(4, axis=2)[..., 0]
    online = make_online(chosen, image_size=28, channels=1, device_type="cpu", seed=0)
    drawn = online.items(Split(folder / "train").images(np.arange(13)), 1, np.arange(13))

    def shown(image):
        corner = np.lib.stride_tricks.sliding_window_view(picture, (4, 16))[:, :, ::4, ::4]
        key = image[:4, :16][::4, ::4]
        places = np.argwhere((corner == key).all(axis=(2, 3)))
        return any((picture[y : y + 112, x : x + 112] == image).all() for y, x in places)

    rows = [row for row in range(13) if shown(big[row])]
    assert len(rows) == 8 and sum(row < 9 for row in rows) == 4  # four of each class
    assert all(shown(drawn[row].repeat(4, axis=0).repeat(4, axis=1)[..., 0]) for row in rows)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"online": [{"HorizontalFlipp": {}}]}, ["augment.online[0]", "did you mean 'HorizontalFlip'?"]),
        ({"offline": [{"GaussNoise": {"std": 1}}]}, ["augment.offline[0].GaussNoise", "did you mean 'std_range'?"]),
        ({"offline": [{"Normalize": {}}]}, ["augment.offline", "Normalize makes float32"]),
        ({"offline": [], "copies": 2}, ["augment.copies = 2", "augment.offline"]),
        ({"online": [{"CLAHE": {}}], "where": "batch"}, ["augment.where = 'batch'", "CLAHE"]),
    ],
)
def test_a_wrong_policy_stops_before_any_work(tmp_path, changes, words):
    prepared(tmp_path)
    kept = tmp_path / "data" / "augmented" / "kept"
    kept.parent.mkdir()
    kept.touch()
    with pytest.raises(ValueError) as caught:
        run(tmp_path, policy("none", **changes))
    assert all(word in str(caught.value) for word in words)
    assert kept.exists()


def params(root, changes):
    """params.yaml as composed, with another `augment`."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["augment"] = values["augment"] | changes
    (root / "params.yaml").write_text(yaml.safe_dump(values))


def door(root, code="import runpy; runpy.run_module('stillframe.stages.augment', run_name='__main__')", after=""):
    return subprocess.run(
        [sys.executable, "-c", code + after],
        cwd=root,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONWARNINGS": "error::DeprecationWarning:stillframe"},
    )


def test_the_stage_as_dvc_runs_it_never_imports_torch(tmp_path):
    prepared(tmp_path)
    params(tmp_path, {"offline": [{"GaussNoise": {"p": 1.0}}], "copies": 1, "online": [{"D4": {}}]})
    done = door(tmp_path, after="; import sys; assert 'torch' not in sys.modules, 'torch'; print('no torch')")
    assert done.returncode == 0, done.stderr
    assert "13 offline copies of 13 train images" in done.stdout and "no torch" in done.stdout
    assert len(Split(tmp_path / "data" / "augmented")) == 13


def test_a_users_mistake_is_one_line_and_no_traceback(tmp_path):
    prepared(tmp_path)
    params(tmp_path, {"online": [{"HFlip": {}}]})
    done = door(tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("augment: augment.online[0]: unknown transform 'HFlip'")
    assert done.stderr.count("\n") == 1
    (tmp_path / "data" / "prepared" / "card.json").unlink()
    params(tmp_path, {})
    done = door(tmp_path)
    assert done.returncode == 1 and "card.json is missing" in done.stderr and "Traceback" not in done.stderr
