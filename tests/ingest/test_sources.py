import os
import shutil
import socket
from functools import partial

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from stillframe.ingest import idx, sources
from stillframe.ingest.listing import to_id, to_path
from stillframe.ingest.tables import canonical
from stillframe.tasks.classification.target import TARGET
from tiny import picture

read_source = partial(sources.read_source, target=TARGET)


def ids(listing, problem=""):
    return [row.id for row in listing.rows if (row.problem != "") == (problem != "") and problem in row.problem]


def test_class_folders_with_nested_files_and_strays(class_folders, data):
    folder = class_folders({"cat": 2, "dog": 2})
    (folder / "cat" / "more").mkdir()
    Image.fromarray(picture(9)).save(folder / "cat" / "more" / "x.png")
    Image.fromarray(picture(8)).save(folder / "dog" / "no_suffix", "PNG")
    for name in (".DS_Store", "cat/Thumbs.db", "cat/.hidden.png", "cat/notes.txt", "readme.md"):
        (folder / name).write_bytes(b"not an image")
    (folder / "empty").mkdir()
    listing = read_source(folder, data())
    assert ids(listing) == [
        "cat/000.png",
        "cat/001.png",
        "cat/more/x.png",
        "dog/000.png",
        "dog/001.png",
        "dog/no_suffix",
    ]
    assert {row.target for row in listing.rows} == {"cat", "dog"} and listing.layout == "folders"
    expected = {"beside the class folders": 1, "hidden or system file": 3, "not an image by name or content": 1}
    assert listing.ignored == expected
    assert listing.empty == ["empty"]


@pytest.mark.parametrize(
    "names", [("train", "val", "test"), ("train", "valid", "test"), ("Train", "validation", "Test")]
)
def test_folders_already_split(class_folders, data, names):
    for name in names:
        folder = class_folders({"a": 1, "b": 1}, under=f"source/{name}").parent
    listing = read_source(folder, data())
    assert listing.layout == "split_folders"
    assert {row.split for row in listing.rows} == {"train", "val", "test"}
    assert {row.target for row in listing.rows} == {"a", "b"}


UNUSUAL = [
    "ümläut é.png",
    "two  spaces .png",
    "line\nbreak.png",
    'quote",comma.png',
    "back\\x41slash.png",
    "x" * 240 + ".png",
]


def test_unusual_names_round_trip(tmp_path, data):
    folder = tmp_path / "source"
    (folder / "k").mkdir(parents=True)
    for name in [*UNUSUAL, os.fsdecode(b"bad\xff\xfebytes.png")]:
        Image.fromarray(picture(1)).save(folder / "k" / name)
    listing = read_source(folder, data())
    assert len(listing.rows) == len(UNUSUAL) + 1
    for row in listing.rows:
        row.id.encode("utf-8")
        assert to_path(folder, row.id).is_file()
        assert to_id(os.path.relpath(to_path(folder, row.id), folder)) == row.id
    assert "k/bad\\xff\\xfebytes.png" in ids(listing)


def test_loops_pipes_and_folders_are_reported(class_folders, data, tmp_path):
    folder = class_folders({"a": 1, "b": 1})
    (folder / "a" / "loop").symlink_to(folder / "a")
    (folder / "a" / "gone.png").symlink_to(folder / "nowhere.png")
    (folder / "a" / "dir.jpg").mkdir()
    os.mkfifo(folder / "b" / "pipe.png")
    (folder / "b" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(folder / "a" / "000.png", tmp_path / "elsewhere" / "fine.png")
    listing = read_source(folder, data())
    problems = {row.id: row.problem for row in listing.rows if row.problem}
    assert problems == {
        "a/loop": "symbolic link loop",
        "a/gone.png": "broken symbolic link",
        "a/dir.jpg": "not a file: an empty folder named like an image",
        "b/pipe.png": "not a file: a pipe, socket or device",
    }
    assert "b/linked/fine.png" in ids(listing)


def test_nothing_there(tmp_path, data):
    with pytest.raises(FileNotFoundError, match="data.path"):
        read_source(tmp_path / "no", data())
    with pytest.raises(ValueError, match="no images found"):
        read_source(tmp_path, data())


def test_csv_with_every_column(class_folders, data):
    folder = class_folders({"images": 4})
    (folder / "labels.csv").write_text(
        "path,label,part,who,w,site\nimages/000.png,x,train,p1,2,north\nimages/001.png,y,valid,,1,south\n"
        "images/002.png,x,Test,p2,0.5,north\n"
    )
    section = data(columns={"split": "part", "group": "who", "weight": "w", "slices": ["site"]})
    listing = read_source(folder, section)
    first, second, third = listing.rows
    assert (first.split, first.group, first.weight, first.slices) == ("train", "p1", 2.0, {"site": "north"})
    assert (second.split, second.group) == ("val", None) and third.split == "test"
    assert listing.ignored == {"not listed in the table": 1}


def test_an_empty_split_cell_leaves_the_choice(class_folders, data):
    folder = class_folders({"i": 4})
    (folder / "t.csv").write_text(
        "path,label,split\ni/000.png,x,test\ni/001.png,y, \ni/002.png,x,\ni/002.png,x,val\ni/003.png,x,no\n"
    )
    rows = read_source(folder, data(columns={"split": "split"})).rows
    assert [row.split for row in rows[:3]] == ["test", None, "val"]
    assert [row.problem for row in rows] == ["", "", "", "split is not train, val or test: 'no'"]


@pytest.mark.parametrize("suffix", [".tsv", ".parquet", ".csv"])
def test_other_kinds_of_table(class_folders, data, suffix):
    folder = class_folders({"images": 2})
    frame = pd.DataFrame({"path": ["images/000.png", "images/001.png"], "label": [0.0, 1.0]})
    path = folder / f"t{suffix}"
    if suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, sep="\t" if suffix == ".tsv" else ";", index=False)
    listing = read_source(folder, data())
    assert listing.layout == "table" and [canonical(row.target) for row in listing.rows] == ["0", "1"]


def test_white_space_and_no_header(class_folders, data):
    folder = class_folders({"images": 2})
    (folder / "labels.csv").write_text("images/000.png  1.0                 mono\nimages/001.png  0.333333  poly\n")
    listing = read_source(folder, data(columns={"path": "0", "label": "1", "slices": ["2"]}))
    assert [(row.target, row.slices) for row in listing.rows] == [("1.0", {"2": "mono"}), ("0.333333", {"2": "poly"})]


def test_paths_that_leave_the_folder_are_refused(class_folders, data, tmp_path):
    folder = class_folders({"images": 2})
    Image.fromarray(picture(5)).save(tmp_path / "secret.png")
    inside = folder.absolute() / "images" / "000.png"
    (folder / "t.csv").write_text(
        f"path,label\n../secret.png,a\n{tmp_path}/secret.png,a\nimages/../../secret.png,b\n{inside},a\n./images//001.png,b\n,b\n"
    )
    listing = read_source(folder, data())
    assert ids(listing) == ["images/000.png", "images/001.png"]
    assert len(ids(listing, "path outside the source folder")) == 3
    assert len(ids(listing, "path missing")) == 1


def test_rows_that_cannot_be_used_say_why(class_folders, data):
    folder = class_folders({"i": 6})
    (folder / "t.csv").write_text(
        "path,label,w,s\ni/000.png,,1,train\ni/001.png,a,heavy,train\ni/002.png,a,-1,train\n"
        "i/003.png,a,1,holdout\ni/004.png,a,1,train\ni/004.png,b,1,train\ni/005.png,0,1,train\ni/005.png,0.0,1,train\n"
    )
    rows = read_source(folder, data(columns={"weight": "w", "split": "s"})).rows
    assert [row.problem.split(":")[0] for row in rows] == [
        "label missing",
        "weight is not a number",
        "weight is not 0 or more",
        "split is not train, val or test",
        "conflict",
        "",
    ]


def test_a_wrong_column_names_the_nearest(class_folders, data):
    folder = class_folders({"i": 2})
    (folder / "t.csv").write_text("path,label\ni/000.png,a\n")
    with pytest.raises(ValueError, match="no column 'labels'.*did you mean 'label'"):
        read_source(folder, data(table="t.csv", columns={"label": "labels"}))
    with pytest.raises(ValueError, match="data.table: .*u.csv is not there"):
        read_source(folder, data(table="u.csv"))


def test_idx_files(idx_folder, data, tmp_path):
    folder = idx_folder(train=12, test=5)
    listing = read_source(folder, data())
    assert listing.layout == "idx" and len(listing.rows) == 17
    by_id = {row.id: row for row in listing.rows}
    assert by_id["t10k-images-idx3-ubyte#3"].split == "test" and by_id["train-images-idx3-ubyte#3"].target == "1"
    unpacked = idx.unpacked(folder / "t10k-images-idx3-ubyte.gz", tmp_path)
    expected = np.random.default_rng(5).integers(0, 256, (5, 8, 8), dtype=np.uint8)
    assert np.array_equal(idx.pixels(unpacked, 3)[:, :, 0], expected[3])


def test_damaged_idx_files_are_named(idx_folder, data, tmp_path):
    folder = idx_folder()
    images = folder / "train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:-5])
    with pytest.raises(ValueError, match="train-images-idx3-ubyte is cut short"):
        idx.unpacked(images, tmp_path)
    (folder / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(ValueError, match="labels are missing"):
        read_source(folder, data())
    images.write_bytes(b"PNG?")
    with pytest.raises(ValueError, match="not an idx file"):
        idx.header(images)


def test_a_socket_is_no_image(class_folders, data, tmp_path, monkeypatch):
    folder = class_folders({"a": 1})
    monkeypatch.chdir(folder / "a")  # the names of sockets are short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s.png")
        assert ids(read_source(folder, data()), "pipe, socket") == ["a/s.png"]


@pytest.mark.parametrize(
    ("label", "same"), [("0", "0"), ("0.0", "0"), ("-0", "0"), ("1e0", "1"), ("cat", "cat"), ("nan", "nan")]
)
def test_numbers_are_compared_by_value(label, same):
    assert canonical(label) == same
