"""Numbers from tables, folders and idx rows: what is refused, how they are split, what the card says of them."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from numbered import SECTION, numbered_folder
from stillframe.config import build
from stillframe.ingest import chunks, prepare, spool, workers
from stillframe.reporting.audit_page import write_page
from stillframe.store.split import Split
from stillframe.tasks.regression import target
from stillframe.types import SPLITS, DatasetCard
from tiny import DATA, picture


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """No pool of processes for a dozen tiny files."""
    monkeypatch.setattr(
        workers, "survey_all", lambda parts, **options: [chunks.process(p) for p in parts if not spool.finished(p)]
    )


def section(**values):
    return build("data", {**DATA, "near_duplicates": "off", "table": "table.csv", **values})


def prepared(tmp_path, folder, data):
    folders = {"out": tmp_path / "out", "work": tmp_path / "work"}
    prepare.prepare(folder, data, target.TARGET, seed=0, page=write_page, **folders)
    return tmp_path / "out"


def edit(folder, change):
    """Change the table as a frame of texts."""
    table = pd.read_csv(folder / "table.csv", dtype=str)
    change(table).to_csv(folder / "table.csv", index=False)


def test_two_numbers_arrive_in_store_card_and_audit(tmp_path):
    folder = numbered_folder(tmp_path / "source", 40)
    out = prepared(tmp_path, folder, section(target=SECTION, columns={**DATA["columns"], "slices": ["maker"]}))
    table, card = pd.read_csv(folder / "table.csv").set_index("path"), DatasetCard.read(out / "card.json")
    stored = {}
    for split in SPLITS:
        rows = Split(out / split)
        stored[split] = rows.target("value", np.arange(len(rows)))
        assert np.allclose(stored[split], table.loc[rows.table["id"], ["light", "dark"]])
    assert card.classes == [] and card.target["names"] == ["light", "dark"] and card.target["units"] == ["cd", ""]
    for name, of in (("mean", np.mean), ("std", np.std), ("min", np.min), ("max", np.max)):
        assert card.target[name] == pytest.approx(of(stored["train"].astype(float), axis=0), rel=1e-5)
    audit = json.loads((out / "audit.json").read_text())
    assert audit["target"]["train"]["dark"]["max"] == pytest.approx(card.target["max"][1])
    assert (out / "audit.html").read_text().count("<h3>light</h3>") == 1


def test_the_splits_have_the_same_range(tmp_path):
    out = prepared(tmp_path, numbered_folder(tmp_path / "source", 100), section(target=SECTION))
    mean = {split: Split(out / split).target("value", np.arange(20))[:, 0].mean() for split in ("val", "test")}
    assert mean["val"] == pytest.approx(12.5, abs=1.0) and mean["test"] == pytest.approx(12.5, abs=1.0)


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "old", "", "1,5"])
def test_what_is_no_finite_number_is_quarantined_with_file_column_and_value(tmp_path, text):
    folder = numbered_folder(tmp_path / "source", 30)
    edit(folder, lambda table: table.assign(light=[text, *table["light"][1:]]))
    out = prepared(tmp_path, folder, section(target=SECTION))
    (bad,) = pd.read_csv(out / "quarantine.csv", keep_default_na=False).to_dict("records")
    assert bad["path"] == "images/000.png" and bad["reason"] == f"not a finite number: light = {text!r}"
    assert bad["label"].startswith(f"{text}, ") and len(bad["sha256"]) == 64, "the image itself was read"


def test_a_file_listed_twice_is_a_conflict_unless_the_numbers_are_equal(tmp_path):
    folder = numbered_folder(tmp_path / "source", 30)
    edit(folder, lambda table: pd.concat([table, table.iloc[:2].assign(light=[table["light"][0] + "0", "99"])]))
    out = prepared(tmp_path, folder, section(target=SECTION))
    (bad,) = pd.read_csv(out / "quarantine.csv").to_dict("records")
    assert bad["path"] == "images/001.png" and bad["reason"].startswith("conflict: listed with ")


def test_copies_of_one_image_with_different_numbers_are_a_conflict(tmp_path):
    folder = numbered_folder(tmp_path / "source", 30)
    (folder / "images/000.png").write_bytes((folder / "images/029.png").read_bytes())
    bad = pd.read_csv(prepared(tmp_path, folder, section(target=SECTION)) / "quarantine.csv")
    assert bad["path"].tolist() == ["images/000.png", "images/029.png"]
    assert bad["reason"].str.startswith("conflict: the same image under different numbers: images/000.png (").all()


def test_folders_named_by_numbers(tmp_path):
    for number in range(24):
        (tmp_path / f"source/{number % 4 - 0.5}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(number)).save(tmp_path / f"source/{number % 4 - 0.5}/{number}.png")
    card = DatasetCard.read(prepared(tmp_path, tmp_path / "source", section(table=None)) / "card.json")
    assert card.target["names"] == ["value"] and (card.target["min"], card.target["max"]) == ([-0.5], [2.5])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"columns": ["light", "weight"]}, "'weight'"),
        ({"columns": []}, r"data.target.columns = \[\]"),
        ({"units": ["cd"]}, r"data.target.units = \['cd'\]: write one for each of"),
        ({"angles": ["ligth"]}, "data.target.angles: 'ligth' is none of the numbers: did you mean 'light'"),
        ({"colums": ["light"]}, "unknown key data.target.colums"),
        ({"angles": ["light"]}, "data.symmetry = 'd4' changes data.target.angles"),
    ],
)
def test_a_wrong_section_names_its_key(tmp_path, changes, says):
    folder = numbered_folder(tmp_path / "source", 10)
    with pytest.raises(ValueError, match=says):
        prepared(tmp_path, folder, section(target={**SECTION, **changes}, symmetry="d4"))


def test_a_number_that_never_varies_cannot_be_learnt(tmp_path):
    folder = numbered_folder(tmp_path / "source", 20)
    edit(folder, lambda table: table.assign(light="3"))
    with pytest.raises(ValueError, match=".light. is 3 in every train image"):
        prepared(tmp_path, folder, section(target=SECTION))


def test_an_angle_refuses_what_turns_the_image():
    card = DatasetCard("made", [], {}, 1, 8, 8, [0.5], [0.2], [], "", target={"angles": ["tilt"]})
    augment = {"name": "x", "offline": [], "copies": 0, "balance": "none", "where": "auto", "temporal": None}
    turning = {"OneOf": {"transforms": [{"HorizontalFlip": {}}, {"GaussNoise": {}}]}}
    with pytest.raises(
        ValueError, match=r"augment.online: HorizontalFlip would change data.target.angles = \['tilt'\]"
    ):
        target.check_augmentation(build("augment", {**augment, "online": [turning]}), card)
    target.check_augmentation(build("augment", {**augment, "online": [{"GaussNoise": {}}]}), card)
