import csv
import hashlib
import os
import shutil
import signal
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from stillframe.ingest import check, write_splits
from stillframe.ingest import prepare as room
from stillframe.ingest.decode import decode, prepare
from stillframe.ingest.ingest_config import IngestConfig
from stillframe.paths import read_json
from stillframe.reporting.audit_page import write_page
from stillframe.store.split import Split
from stillframe.tasks.classification.target import TARGET
from stillframe.types import DatasetCard
from tiny import picture

check_folder = partial(check.check_folder, target=TARGET)


@pytest.fixture
def go(tmp_path):
    """Prepare a folder; gives the folder of the outputs."""

    def run(folder, section, seed=0, out="out", **options):
        folders = {"out": tmp_path / out, "work": tmp_path / "work"}
        room.prepare(folder, section, TARGET, seed=seed, page=write_page, **folders, **options)
        return tmp_path / out

    return run


def digest(folder):
    """sha256 of every file below a folder, by name."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def table(out):
    return pd.concat([Split(out / name).table.assign(split=name) for name in ("train", "val", "test")])


def quarantine(path):
    with open(path, encoding="utf-8", newline="") as file:
        return {row["path"]: row for row in csv.DictReader(file)}


def test_the_outputs_of_class_folders(class_folders, data, go):
    folder = class_folders({"cat": 20, "dog": 10})
    before = digest(folder)
    out = go(folder, data())
    card, rows = DatasetCard.read(out / "card.json"), table(out)
    assert digest(folder) == before  # the user's files are not altered
    assert card.classes == ["cat", "dog"] and (card.channels, card.height, card.width) == (3, 16, 16)
    assert card.counts == {
        split: {"cat": cat, "dog": dog} for split, cat, dog in (("train", 12, 6), ("val", 4, 2), ("test", 4, 2))
    }
    assert len(rows) == 30 and rows["id"].is_unique and set(rows["source_mode"]) == {"RGB"}
    train = Split(out / "train")
    assert train.table["id"].is_monotonic_increasing
    images = train.images(range(len(train)))
    for index, row in train.table.iterrows():
        source = decode((folder / row["id"]).read_bytes()).image
        assert np.array_equal(images[index], prepare(source, 16, "squash", 3))
        assert card.classes[row["label"]] == row["id"].split("/")[0]
    values = images.reshape(-1, 3) / 255.0
    assert np.allclose(card.mean, values.mean(axis=0), atol=1e-6) and np.allclose(
        card.std, values.std(axis=0), atol=1e-5
    )
    found = read_json(out / "audit.json")
    assert found["kept"] == 30 and found["modes"] == {"RGB": 30} and found["sizes"] == {"24 x 20": 30}
    page = (out / "audit.html").read_text(encoding="utf-8")
    assert page.count('<img src="data:image/') >= 18 and "http" not in page
    assert not (out.parent / "work" / "preprocess").exists()


def test_same_bytes_again_and_another_seed(class_folders, data, go):
    folder = class_folders({"a": 12, "b": 12})
    first, again, other = (
        go(folder, data(), out="1"),
        go(folder, data(workers=1), out="2"),
        go(folder, data(), seed=5, out="3"),
    )
    assert digest(first) == digest(again)
    assert DatasetCard.read(first / "card.json").split_hash != DatasetCard.read(other / "card.json").split_hash


def test_idx_files_keep_their_test_split(idx_folder, data, go):
    out = go(
        idx_folder(train=40, test=6), data(image_size=8, near_duplicates="off", classes={"even": ["0"], "odd": ["1.0"]})
    )
    assert DatasetCard.read(out / "card.json").counts["test"] == {"even": 3, "odd": 3}
    test = Split(out / "test")
    expected = np.random.default_rng(6).integers(0, 256, (6, 8, 8), dtype=np.uint8)
    assert np.array_equal(test.images(range(6))[:, :, :, 0], expected) and test.channels == 1
    assert "Not looked for" in (out / "audit.html").read_text(encoding="utf-8")


def test_gray_and_colour_mixed_become_rgb(class_folders, data, go):
    class_folders({"a": 8}, channels=1)
    folder = class_folders({"b": 8}, first=20)
    out = go(folder, data())
    assert DatasetCard.read(out / "card.json").channels == 3
    train = Split(out / "train")
    gray = train.images(np.flatnonzero(train.table["source_mode"] == "L"))
    assert (gray == gray[..., :1]).all()
    assert read_json(out / "audit.json")["modes"] == {"L": 8, "RGB": 8}
    assert DatasetCard.read(go(folder, data(channels="gray"), out="gray") / "card.json").channels == 1


def test_large_images_are_kept_as_jpeg(class_folders, data, go):
    folder = class_folders({"a": 8, "b": 8})
    out = go(folder, data(store="jpeg", image_size=64))
    train = Split(out / "train")
    assert train.encoding == "jpeg"
    expected = prepare(decode((folder / train.table["id"][0]).read_bytes()).image, 64, "squash", 3)
    assert np.abs(train.images([0])[0].astype(int) - expected).mean() < 4
    assert (
        IngestConfig.of(data(image_size=256), TARGET).encoding == "raw"
        and IngestConfig.of(data(image_size=257), TARGET).encoding == "jpeg"
    )


def spoil(folder):
    """Bad files of every kind in class a; name -> kind of reason."""
    a = folder / "a"
    whole = (a / "000.png").read_bytes()
    (a / "empty.png").write_bytes(b"")
    (a / "page.jpg").write_text("<html>not found</html>")
    (a / "cut.png").write_bytes(whole[: len(whole) // 2])
    (a / "dir.jpg").mkdir()
    Image.fromarray(picture(70)[:2, :2]).save(a / "dot.png")
    Image.fromarray(np.zeros((2000, 2000), np.uint8)).save(a / "huge.png")
    Image.fromarray(picture(71)[:, :, 0].astype(np.float32)).save(a / "float.tif")
    (a / "loop").symlink_to(a)
    Image.fromarray(picture(72)).save(a / "really.txt", "PNG")  # an image all the same
    return {
        "a/empty.png": "empty file",
        "a/page.jpg": "not an image",
        "a/cut.png": "damaged",
        "a/dir.jpg": "not a file",
        "a/dot.png": "too small",
        "a/huge.png": "too large",
        "a/float.tif": "mode F",
        "a/loop": "symbolic link loop",
    }


def test_bad_files_are_quarantined_with_their_reason(class_folders, data, go):
    folder = class_folders({"a": 10, "b": 10})
    expected = spoil(folder)
    out = go(folder, data())
    found = quarantine(out / "quarantine.csv")
    assert {path: row["reason"].split(":")[0] for path, row in found.items()} == expected
    assert found["a/cut.png"]["sha256"] == hashlib.sha256((folder / "a/cut.png").read_bytes()).hexdigest()
    assert found["a/cut.png"]["label"] == "a"
    assert "a/really.txt" in set(table(out)["id"]) and len(table(out)) == 21
    assert sum(read_json(out / "audit.json")["quarantined"].values()) == len(expected)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission(class_folders, data, go):
    folder = class_folders({"a": 10, "b": 10})
    (folder / "a/000.png").chmod(0)
    assert quarantine(go(folder, data()) / "quarantine.csv")["a/000.png"]["reason"] == "unreadable: Permission denied"


def test_too_many_bad_files_stop_the_run_before_outputs(class_folders, data, go, tmp_path):
    folder = class_folders({"a": 10, "b": 10})
    spoil(folder)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("of the last good run")
    with pytest.raises(ValueError, match=r"8 of 29 files are bad .*data.max_bad_fraction = 0.1") as stop:
        go(folder, data(max_bad_fraction=0.1))
    assert "quarantine.csv" in str(stop.value)
    assert len(quarantine(tmp_path / "work" / "quarantine.csv")) == 8
    assert (tmp_path / "out" / "old").exists() and not (tmp_path / "out" / "train").exists()


def test_labels_by_rule(class_folders, data, go, tmp_path):
    folder = class_folders({"i": 24})
    labels = ["0.0"] * 10 + ["1.0"] * 10 + ["0.5"] * 2 + ["7", "x"]
    rows = "".join(f"i/{index:03d}.png,{label}\n" for index, label in enumerate(labels))
    (folder / "t.csv").write_text("path,label\n" + rows)
    section = {"classes": {"good": ["0"], "bad": ["1"]}, "leave_out": [".5"]}
    out = go(folder, data(**section))
    assert DatasetCard.read(out / "card.json").classes == ["good", "bad"]
    found = read_json(out / "audit.json")
    assert found["left_out"] == {".5": 2} and found["kept"] == 20
    assert {row["reason"] for row in quarantine(out / "quarantine.csv").values()} == {
        "label not in data.classes: 7",
        "label not in data.classes: x",
    }
    with pytest.raises(ValueError, match=r"2 of 22 files are bad \(2 label not in data.classes\)"):
        go(folder, data(**section, max_bad_fraction=0.05))
    with pytest.raises(ValueError, match="data.classes.bad: label '1' is also in"):
        go(folder, data(classes={"good": ["1.0"], "bad": ["1"]}))


@pytest.mark.parametrize(
    ("counts", "section", "message"),
    [
        ({"a": 20}, {}, "only one class, 'a'"),
        ({"a": 20, "b": 1}, {}, "class 'b' has 1 usable image"),
        ({"a": 20, "b": 20}, {"classes": {"a": ["a"], "c": ["cc"]}}, "class 'c' has no usable image"),
        ({"a": 20, "b": 20}, {"leave_out": ["a", "b"]}, "no image is left to use .40 left out"),
    ],
)
def test_classes_that_cannot_be_learnt_are_named(class_folders, data, go, counts, section, message):
    with pytest.raises(ValueError, match=message):
        go(class_folders(counts), data(**section))


def test_a_class_that_loses_everything_is_named(class_folders, data, go):
    folder = class_folders({"a": 20, "b": 3})
    for path in (folder / "b").iterdir():
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="class 'b' has no usable image .3 listed.: every one is quarantined"):
        go(folder, data())


def test_an_empty_class_folder_and_a_split_without_a_class_warn(class_folders, data, tmp_path):
    class_folders({"a": 8, "b": 8}, under="source/train")
    folder = class_folders({"a": 3}, under="source/test", first=50).parent
    (folder / "train" / "c").mkdir()
    found = check_folder(folder, data())
    assert found.error == ""
    assert found.warnings == [
        "class folder 'train/c' is empty and is no class",
        "class 'b' has no image in the test split: its scores there are not defined",
    ]


def copy_as(source, target, **options):
    with Image.open(source) as image:
        image.save(target, **options)


def test_exact_copies_share_a_split_and_conflicts_go(class_folders, data, go):
    folder = class_folders({"a": 12, "b": 12})
    for index in range(6):
        copy_as(folder / f"a/{index:03d}.png", folder / f"a/copy{index}.bmp")  # other bytes, the same pixels
    shutil.copy(folder / "a/011.png", folder / "b/same.png")
    out = go(folder, data())
    rows = table(out).set_index("id")
    for index in range(6):
        pair = rows.loc[[f"a/{index:03d}.png", f"a/copy{index}.bmp"]]
        assert pair["split"].nunique() == 1 and pair["group"].nunique() == 1
    found = quarantine(out / "quarantine.csv")
    assert set(found) == {"a/011.png", "b/same.png"} and found["b/same.png"]["reason"].startswith("conflict: ")
    facts = read_json(out / "audit.json")
    assert facts["exact"] == {"groups": 6, "images": 12} and facts["conflicts"] == 2
    assert facts["leaks"]["exact_across_splits"] == 0
    with pytest.raises(ValueError, match="2 files are in conflict, e.g. a/011.png"):
        go(folder, data(conflicts="error"))


@pytest.mark.parametrize("rule", ["group", "report", "off"])
def test_near_copies_by_rule(class_folders, data, go, rule):
    folder = class_folders({"a": 10, "b": 10})
    for index in range(10):
        values = np.asarray(Image.open(folder / f"a/{index:03d}.png")).astype(int)
        Image.fromarray(np.clip(values + 1, 0, 255).astype(np.uint8)).save(folder / f"a/near{index}.png")
    out = go(folder, data(near_duplicates=rule))
    rows, facts = table(out).set_index("id"), read_json(out / "audit.json")
    together = [rows.loc[[f"a/{i:03d}.png", f"a/near{i}.png"], "split"].nunique() == 1 for i in range(10)]
    assert facts["near"]["rule"] == rule
    assert facts["near"]["pairs"] == (0 if rule == "off" else 10)
    assert all(together) == (rule == "group")
    crossing = facts["leaks"]["near_pairs_across_splits"]
    assert crossing == (together.count(False) if rule == "report" else 0)


def test_train_images_that_are_in_test_are_removed(class_folders, data, go):
    class_folders({"a": 10, "b": 10}, under="source/train")
    folder = class_folders({"a": 4, "b": 4}, under="source/test", first=50).parent
    shutil.copy(folder / "test/a/000.png", folder / "train/a/leak.png")
    out = go(folder, data())
    found = quarantine(out / "quarantine.csv")
    assert found["train/a/leak.png"]["reason"] == "leak: the same image is in the test split" and len(found) == 1
    assert read_json(out / "audit.json")["leaks"]["exact_removed"] == 1


def crash_on_red(content, **limits):
    """A decoder with a fault in native code: some file kills its process."""
    seen = decode(content, **limits)
    if (seen.image == (255, 0, 0)).all():
        os.kill(os.getpid(), signal.SIGSEGV)
    return seen


@pytest.mark.parametrize("workers", [1, 2])
def test_a_crash_in_a_decoder_costs_one_file(class_folders, data, go, workers):
    folder = class_folders({"a": 40, "b": 40})
    Image.new("RGB", (24, 20), "red").save(folder / "a/crash.png")
    out = go(folder, data(workers=workers), decoder=crash_on_red)
    found = quarantine(out / "quarantine.csv")
    assert {path: row["reason"] for path, row in found.items()} == {
        "a/crash.png": "crash: the decoder died on this file"
    }
    assert len(table(out)) == 80


def refuse(content, **limits):
    raise AssertionError("a finished chunk was read again")


def test_a_killed_stage_goes_on_where_it_was(class_folders, data, go, tmp_path, monkeypatch):
    folder = class_folders({"a": 12, "b": 12})
    whole = digest(go(folder, data()))
    with monkeypatch.context() as patch:
        patch.setattr(room, "check_unchanged", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            go(folder, data(), out="killed")
    spool = tmp_path / "work" / "preprocess"
    (chunk,) = spool.glob("*.arrow")
    assert digest(go(folder, data(), out="resumed", decoder=refuse)) == whole
    assert not spool.exists() and not chunk.exists()


def test_a_damaged_chunk_is_made_again(class_folders, data, go, tmp_path, monkeypatch):
    folder = class_folders({"a": 12, "b": 12})
    whole = digest(go(folder, data()))
    with monkeypatch.context() as patch:
        patch.setattr(room, "write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            go(folder, data(), out="killed")
    (chunk,) = (tmp_path / "work" / "preprocess").glob("*.arrow")
    content = bytearray(chunk.read_bytes())
    content[-2000] ^= 1
    chunk.write_bytes(content)
    assert digest(go(folder, data(), out="resumed")) == whole


def test_a_file_that_changes_meanwhile_is_found(class_folders, data, go, tmp_path, monkeypatch):
    folder = class_folders({"a": 12, "b": 12})
    before = room.write

    def write(*args):
        Image.fromarray(picture(99)).save(folder / "a/003.png")
        return before(*args)

    monkeypatch.setattr(room, "write", write)
    with pytest.raises(ValueError, match="1 source file.s. changed while the stage ran, e.g. a/003.png"):
        go(folder, data())


def test_unusual_names_reach_the_outputs(class_folders, data, go):
    folder = class_folders({"a": 9, "b": 9})
    for index, name in enumerate(["ü é.png", "line\nbreak.png", os.fsdecode(b"bad\xff.png")]):
        Image.fromarray(picture(200 + index)).save(folder / "a" / name)
    (folder / "b" / 'broken\n"name".png').write_bytes(b"x")
    out = go(folder, data())
    assert {"a/ü é.png", "a/line\nbreak.png", "a/bad\\xff.png"} <= set(table(out)["id"])
    assert set(quarantine(out / "quarantine.csv")) == {'b/broken\n"name".png'}


def test_check_writes_nothing_and_says_what_would_stop(class_folders, data, tmp_path):
    folder = class_folders({"a": 10, "b": 10})
    good = check_folder(folder, data())
    assert good.error == "" and good.usable == 20 and good.counts["train"] == {"a": 6, "b": 6}
    expected = spoil(folder)
    bad = check_folder(folder, data(max_bad_fraction=0.1))
    assert "8 of 29 files are bad" in bad.error and sum(bad.quarantined.values()) == len(expected)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_weights_groups_and_slices_are_kept(class_folders, data, go):
    folder = class_folders({"i": 30})
    lines = [f"i/{i:03d}.png,{'ab'[i % 2]},p{i // 3},{i / 10},s{i % 2}" for i in range(30)]
    (folder / "t.csv").write_text("path,label,who,w,site\n" + "\n".join(lines) + "\n")
    section = data(columns={"group": "who", "weight": "w", "slices": ["site"]})
    rows = table(go(folder, section)).set_index("id").sort_index()
    assert np.allclose(rows["weight"], np.arange(30) / 10)
    assert rows.groupby("group")["split"].nunique().max() == 1 and rows.loc["i/004.png", "group"] == "p1"
    assert rows.loc["i/001.png", "slices"] == '{"site": "s1"}'


def test_memory_holds_no_pixels(class_folders, data, go, monkeypatch):
    """What is held between the passes is names and numbers: no column of pixels."""
    folder = class_folders({"a": 10, "b": 10})
    verdict = room.survey_and_validate(folder, data(), TARGET, seed=0, work=Path(folder.parent / "spool"))[0]
    assert not {"image", "thumb"} & set(verdict.frame.columns)
    monkeypatch.setattr(write_splits, "BATCH", 3)
    assert max(len(chunk) for chunk in Split(go(folder, data()) / "train").arrow["image"].chunks) == 3


def test_rows_without_a_split_follow_their_copies(class_folders, data, go):
    """A table that names the test rows only: a copy of one of them joins it, and val is carved out of the rest."""
    folder = class_folders({"a": 20, "b": 20})
    shutil.copy(folder / "a/000.png", folder / "a/copy.png")
    lines = [f"{path.relative_to(folder)},{path.parent.name}" for path in sorted(folder.rglob("*.png"))]
    named = ("a/000.png", "a/001.png", "b/000.png", "b/001.png")
    text = "".join(f"{line},{'test' if line.startswith(named) else ''}\n" for line in lines)
    (folder / "t.csv").write_text(f"path,label,split\n{text}")
    out = go(folder, data(columns={"split": "split"}))
    rows = table(out).set_index("id")["split"]
    assert set(rows.index[rows == "test"]) == {*named, "a/copy.png"}
    assert rows.value_counts().to_dict() == {"train": 28, "val": 8, "test": 5}
    assert not quarantine(out / "quarantine.csv")
