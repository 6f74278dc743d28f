"""The Arrow store: what is written is read, and what was damaged is named."""

import json

import numpy as np
import pytest

from splits import row, write_split
from stillframe.store.split import FILE, Split, SplitWriter
from stillframe.tasks.segmentation import IGNORE
from tiny import LABEL, MASK


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_images_come_back_in_the_order_asked_for(tmp_path, encoding):
    write_split(tmp_path, 20, encoding=encoding)
    split = Split(tmp_path)
    images = split.images([13, 2, 19, 2])
    assert images.shape == (4, 6, 6, 3) and images.dtype == np.uint8
    assert images[:, 0, 0, 0].tolist() == [13, 2, 19, 2]
    assert len(split) == 20 and split.table["label"].tolist()[:3] == [0, 1, 0]


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_masks_come_back_as_they_were(tmp_path, encoding):
    import cv2

    masks = np.random.default_rng(0).integers(0, 4, (20, 6, 6)).astype(np.uint8)
    masks[:, 0] = IGNORE
    meta = {"height": 6, "width": 6, "channels": 3, "encoding": encoding}
    with SplitWriter(tmp_path, **meta, targets=[LABEL, MASK], tiles=True) as writer:
        for start in range(0, 20, 7):
            stored = [cv2.imencode(".png", mask)[1] if encoding == "jpeg" else mask for mask in masks]
            places = range(start, min(start + 7, 20))
            tile = {"origin": "big", "top": 3, "left": 4}
            writer.write([{**row(i, 6, encoding), **tile, "mask": stored[i].tobytes()} for i in places])
    split = Split(tmp_path)
    assert "mask" in split.targets and split.tiled
    found = split.target("mask", [13, 2, 19, 2])
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, masks[[13, 2, 19, 2]])
    assert split.images([13])[0, 0, 0, 0] == 13
    assert split.table[["origin", "top", "left"]].iloc[5].tolist() == ["big", 3, 4]


def test_a_split_without_masks_says_so(tmp_path):
    write_split(tmp_path, 3)
    assert "mask" not in Split(tmp_path).targets and not Split(tmp_path).tiled
    with pytest.raises(ValueError, match=r"no target 'mask', only label.*dvc repro"):
        Split(tmp_path).target("mask", [0])


def test_an_empty_split_is_a_split(tmp_path):
    write_split(tmp_path, 0)
    assert len(Split(tmp_path)) == 0


def test_the_hub_library_opens_it(tmp_path):
    import datasets

    write_split(tmp_path / "train", 20)
    opened = datasets.load_from_disk(str(tmp_path / "train"))
    assert len(opened) == 20 and opened[3]["id"] == "i3"


def test_the_same_rows_give_the_same_bytes(tmp_path):
    write_split(tmp_path / "a", 20)
    write_split(tmp_path / "b", 20)
    assert (tmp_path / "a" / FILE).read_bytes() == (tmp_path / "b" / FILE).read_bytes()


def test_a_file_cut_short_is_named_with_what_to_do(tmp_path):
    write_split(tmp_path / "train", 20)
    path = tmp_path / "train" / FILE
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match="train.*(damaged|cut short).*dvc"):
        Split(tmp_path / "train")


def test_rows_that_are_missing_are_found(tmp_path):
    write_split(tmp_path / "train", 20)
    state = json.loads((tmp_path / "train/state.json").read_text())
    state["stillframe"]["rows"] = 21
    (tmp_path / "train/state.json").write_text(json.dumps(state))
    with pytest.raises(ValueError, match="20 of 21"):
        Split(tmp_path / "train")


def test_nothing_there_says_how_to_make_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="dvc repro"):
        Split(tmp_path / "nowhere")
