"""Labels from tables with a separator, from 0/1 columns and from `_classes.csv`: what is refused, split and stored."""

import csv
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from attributed import LABELS, attributed_folder, present
from stillframe.config import build
from stillframe.ingest import chunks, prepare, sources, spool, workers
from stillframe.reporting.audit_page import write_page
from stillframe.store.split import Split
from stillframe.tasks import find_task
from stillframe.tasks.multilabel import target
from stillframe.types import SPLITS, DatasetCard
from tiny import DATA, picture

ODD = ["a, b", 'say "x"', " lead", "ü|1"]  # labels as column names


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """No pool of processes for a dozen tiny files."""
    monkeypatch.setattr(
        workers, "survey_all", lambda parts, **options: [chunks.process(p) for p in parts if not spool.finished(p)]
    )


def section(**values):
    return build("data", {**DATA, "near_duplicates": "off", **values})


def labels_from(**values):
    return {"columns": [], "separator": "|", "flags": [], **values}


def prepared(tmp_path, folder, data):
    folders = {"out": tmp_path / "out", "work": tmp_path / "work"}
    prepare.prepare(folder, data, target.TARGET, seed=0, page=write_page, **folders)
    return tmp_path / "out"


def quarantine(out):
    with (out / "quarantine.csv").open() as file:
        return {row["path"]: row["reason"] for row in csv.DictReader(file)}


def class_table(folder, flags, columns=ODD, first="filename"):
    """Images and a `_classes.csv`, written as csv does; `flags` are texts, a row an image."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "_classes.csv").open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file)
        lines.writerow([first, *columns])
        for number, row in enumerate(flags):
            seed = 100 * sum(map(ord, folder.name)) + number
            Image.fromarray(picture(seed)).save(folder / f"{number}.png")
            lines.writerow([f"{number}.png", *row])
    return folder


def flags(count, columns=4):
    return (np.random.default_rng(0).random((count, columns)) < 0.5).astype(int).astype(str).tolist()


@pytest.mark.parametrize("separator", ["|", ";", " / "])
def test_a_column_with_a_separator_arrives_in_store_card_and_audit(tmp_path, separator):
    folder = attributed_folder(tmp_path / "source", 60, separator)
    data = section(table="table.csv", target=labels_from(separator=separator))
    out = prepared(tmp_path, folder, data)
    card, expected = DatasetCard.read(out / "card.json"), present(60)
    assert card.classes == LABELS
    for split in SPLITS:
        rows = Split(out / split)
        stored = rows.target("labels", np.arange(len(rows)))
        assert stored.dtype == bool
        assert (stored == expected[[int(name[7:10]) for name in rows.table["id"]]]).all()
        assert card.counts[split] == dict(zip(LABELS, stored.sum(0).tolist(), strict=True))
    assert card.target == {"train_samples": len(Split(out / "train"))}
    audit = json.loads((out / "audit.json").read_text())
    assert sum(sum(sizes.values()) for sizes in audit["target"].values()) == 60
    assert audit["target"]["train"]["0 labels"] > 0
    assert "labels of an image" in (out / "audit.html").read_text()


def test_every_label_is_in_every_split_and_the_split_does_not_depend_on_the_order(tmp_path):
    folder = attributed_folder(tmp_path / "source", 60)
    first = prepared(tmp_path / "a", folder, section(table="table.csv"))
    card = DatasetCard.read(first / "card.json")
    assert min(min(counts.values()) for counts in card.counts.values()) >= 1
    table = pd.read_csv(folder / "table.csv", dtype=str, keep_default_na=False)
    table.iloc[::-1].to_csv(folder / "table.csv", index=False)
    assert DatasetCard.read(prepared(tmp_path / "b", folder, section(table="table.csv")) / "card.json") == card


def test_several_columns_of_labels_are_renamed_merged_and_left_out(tmp_path):
    folder = attributed_folder(tmp_path / "source", 40)
    options = {"target": labels_from(columns=["label", "maker"]), "leave_out": ["y", "red 2"], "table": "table.csv"}
    data = section(classes={"made by x": ["x"], "cold": ["blau ü", "green, light"]}, **options)
    out = prepared(tmp_path, folder, data)
    card = DatasetCard.read(out / "card.json")
    assert card.classes == ["made by x", "cold"]
    rows = present(40)
    assert sum(card.counts[split]["cold"] for split in SPLITS) == rows[:, :2].any(1).sum()
    assert sum(card.counts[split]["made by x"] for split in SPLITS) == 20
    audit = json.loads((out / "audit.json").read_text())
    assert audit["left_out"] == {"y": 20, "red 2": int(rows[:, 2].sum())} and audit["kept"] == 40


def test_labels_beside_the_named_classes_are_quarantined(tmp_path):
    folder = attributed_folder(tmp_path / "source", 40)
    data = section(table="table.csv", classes={"r": ["red 2"], "g": ["green, light"]})
    out = prepared(tmp_path, folder, data)
    reasons = quarantine(out)
    assert set(reasons.values()) == {"label not in data.classes: blau ü"}
    assert len(reasons) == present(40)[:, 0].sum()


def test_values_that_are_neither_0_nor_1_are_quarantined_with_table_column_and_value(tmp_path):
    rows = flags(40)
    rows[3][1], rows[4][0], rows[5][3] = "2", "", "1.0"
    out = prepared(tmp_path, class_table(tmp_path / "source", rows), section())
    assert quarantine(out) == {
        "3.png": "label not 0 or 1: _classes.csv, column 'say \"x\"' = '2'",
        "4.png": "label not 0 or 1: _classes.csv, column 'a, b' = ''",
    }
    stored = pd.concat([Split(out / split).table for split in SPLITS]).set_index("id")["labels"]
    assert bool(stored["5.png"][DatasetCard.read(out / "card.json").classes.index("ü|1")])


def test_a_class_table_is_found_by_its_name_and_its_odd_columns_are_labels(tmp_path):
    rows = flags(40)
    folder = class_table(tmp_path / "source", rows, first="Datei")
    Image.fromarray(picture(7)).save(folder / "more.png")
    out = prepared(tmp_path, folder, section())
    card = DatasetCard.read(out / "card.json")
    assert sorted(card.classes) == sorted(name.strip() for name in ODD)
    for split in SPLITS:
        table = Split(out / split).table
        for name, stored in zip(table["id"], table["labels"], strict=True):
            expected = dict(zip([column.strip() for column in ODD], rows[int(name[:-4])], strict=True))
            assert [expected[label] == "1" for label in card.classes] == stored.tolist()
    assert json.loads((out / "audit.json").read_text())["ignored"] == {"not listed in _classes.csv": 1}
    assert find_task("multilabel").target.onboarding(folder, None).base == "multilabel"


def test_split_folders_with_a_class_table_each_stay_as_they_are(tmp_path):
    folder = tmp_path / "source"
    for name, count in (("train", 20), ("valid", 8), ("test", 6)):
        class_table(folder / name, flags(count))
    out = prepared(tmp_path, folder, section())
    assert [len(Split(out / split)) for split in SPLITS] == [20, 8, 6]
    assert set(Split(out / "val").table["id"]) == {f"valid/{number}.png" for number in range(8)}
    class_table(folder / "test", flags(6), columns=[*ODD[:3], "other"])
    with pytest.raises(ValueError, match=r"test.*_classes.csv|train.*_classes.csv"):
        sources.read_source(folder, section(), target.TARGET)


def test_a_column_without_a_1_is_an_error_unless_it_is_left_out(tmp_path):
    rows = [[*row[:3], "0"] for row in flags(40)]
    folder = class_table(tmp_path / "source", rows)
    with pytest.raises(ValueError, match=r"no image has the label\(s\) \['ü|1'\]: add them to data.leave_out"):
        sources.read_source(folder, section(), target.TARGET)
    assert len(sources.read_source(folder, section(leave_out=["ü|1"]), target.TARGET).rows) == 40
    with pytest.raises(ValueError, match=r"no image has the label\(s\)"):
        prepared(
            tmp_path, folder, section(table="_classes.csv", columns=named("filename"), target=labels_from(flags=ODD))
        )


def named(path):
    return {**DATA["columns"], "path": path}


def test_copies_that_disagree_are_quarantined_and_rows_listed_twice_must_agree(tmp_path):
    folder = attributed_folder(tmp_path / "source", 40)
    table = pd.read_csv(folder / "table.csv", dtype=str, keep_default_na=False)
    table.loc[0, "label"], table.loc[1, "label"] = "red 2|blau ü", "blau ü"
    (folder / "images/001.png").write_bytes((folder / "images/000.png").read_bytes())
    twice = table.iloc[[2, 3]].assign(label=["red 2|new", table.loc[3, "label"]])
    pd.concat([table, twice]).to_csv(folder / "table.csv", index=False)
    out = prepared(tmp_path, folder, section(table="table.csv"))
    reasons = quarantine(out)
    assert set(reasons) == {"images/000.png", "images/001.png", "images/002.png"}
    assert reasons["images/000.png"].startswith("conflict: the same image under different labels: images/000.png (blau")
    assert reasons["images/002.png"].startswith("conflict: listed with ")
    assert "new" not in DatasetCard.read(out / "card.json").classes


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"target": {"separator": "|", "columns": [], "flags": [], "sep": ","}}, "data.target.sep"),
        ({"target": labels_from(separator="")}, "data.target.separator"),
        ({"target": labels_from(columns=["lable"])}, "no column 'lable'.*did you mean 'label'"),
    ],
)
def test_a_wrong_section_names_the_key(tmp_path, values, message):
    folder = attributed_folder(tmp_path / "source", 10)
    with pytest.raises(ValueError, match=message):
        prepared(tmp_path, folder, section(table="table.csv", **values))


def test_a_table_without_any_label_is_an_error(tmp_path):
    folder = attributed_folder(tmp_path / "source", 10)
    pd.read_csv(folder / "table.csv").assign(label="").to_csv(folder / "table.csv", index=False)
    with pytest.raises(ValueError, match="no image has a label: check data.columns.label"):
        prepared(tmp_path, folder, section(table="table.csv"))
