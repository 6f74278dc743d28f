"""Offline copies: planned evenly, drawn by (seed, copy, row), the same bytes whatever happened on the way."""

import json

import numpy as np
import pytest

from stillframe.augmentation import offline
from stillframe.augmentation.offline import make_copies, plan_copies
from stillframe.config import AugmentConfig
from stillframe.store.encoding import encode
from stillframe.store.split import FILE, Split, SplitWriter
from tiny import LABEL

NOISE = [{"GaussNoise": {"std_range": [0.1, 0.2], "p": 1.0}}]


def augment(policy=NOISE, copies=1, balance="none"):
    return AugmentConfig(
        name="made", offline=policy, copies=copies, balance=balance, online=[], where="auto", temporal=None
    )


def prepared(folder, labels=(0,) * 7 + (1,) * 3, channels=1, encoding="raw", size=16):
    random = np.random.default_rng(0)
    with SplitWriter(folder, height=size, width=size, channels=channels, encoding=encoding, targets=[LABEL]) as writer:
        for number, label in enumerate(labels):
            image = random.integers(0, 256, (size, size, channels), dtype=np.uint8)
            row = {"id": f"c{label}/{number}.png", "label": label, "weight": 0.5, "group": f"g{number}"}
            row |= {"source_id": row["id"], "source_width": 30, "source_height": 40, "source_mode": "L"}
            stored = encode(image, encoding)
            writer.write([{**row, "slices": json.dumps({"n": number}), "image": stored}])
    return folder


def test_every_row_gets_its_copies():
    plan = plan_copies(np.array([0, 1, 1]), copies=2, balance="none", seed=0)
    assert plan.row_M.tolist() == [0, 0, 1, 1, 2, 2]
    assert plan.number_M.tolist() == [0, 1, 0, 1, 0, 1]


@pytest.mark.parametrize("copies", [0, 2])
@pytest.mark.parametrize("sizes", [[50, 7, 23], [4, 4], [1, 9], [5, 0, 3]])
def test_oversampling_brings_each_class_to_the_size_of_the_largest(sizes, copies):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    plan = plan_copies(labels, copies=copies, balance="oversample", seed=0)
    made = np.bincount(labels[plan.row_M], minlength=len(sizes))
    target = [max(sizes) * (1 + copies) if size else 0 for size in sizes]
    assert (np.array(sizes) + made).tolist() == target
    for label in range(len(sizes)):
        per_row = np.bincount(plan.row_M, minlength=len(labels))[labels == label]
        assert not len(per_row) or (np.ptp(per_row) <= 1 and per_row.min() >= copies)
    other = plan_copies(labels, copies=copies, balance="oversample", seed=1)
    assert len(other) == len(plan)
    if sizes == [50, 7, 23]:
        assert other.row_M.tolist() != plan.row_M.tolist()


def test_no_rows_no_copies():
    assert len(plan_copies(np.array([], dtype=np.int64), copies=3, balance="oversample", seed=0)) == 0


@pytest.mark.parametrize("channels, encoding", [(1, "raw"), (3, "raw"), (1, "jpeg"), (3, "jpeg")])
def test_copies_carry_what_their_original_carries(tmp_path, channels, encoding):
    train = Split(prepared(tmp_path / "train", channels=channels, encoding=encoding))
    plan = make_copies(train.folder, augment(copies=2), seed=0, out=tmp_path / "out", work=tmp_path / "work")
    made = Split(tmp_path / "out")
    assert (len(made), made.encoding, made.channels) == (20, encoding, channels)
    source = train.table.iloc[plan.row_M].reset_index(drop=True)
    assert made.table["id"].tolist() == [f"{i}#aug{n}" for i, n in zip(source["id"], plan.number_M, strict=True)]
    assert made.table["source_id"].tolist() == source["id"].tolist()
    same = ["label", "weight", "group", "source_width", "source_height", "source_mode", "slices"]
    assert made.table[same].equals(source[same])
    images = made.images(np.arange(20))
    change = np.abs(images.astype(int) - train.images(plan.row_M).astype(int)).mean(axis=(1, 2, 3))
    assert (change > 5).all()  # each is noisy
    assert len(np.unique(images.reshape(20, -1), axis=0)) == 20  # and no two are alike
    assert not (tmp_path / "work" / "augment").exists()


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_balancing_without_a_policy_repeats_the_images_as_they_are(tmp_path, encoding):
    train = Split(prepared(tmp_path / "train", encoding=encoding))
    chosen = augment([], copies=0, balance="oversample")
    plan = make_copies(train.folder, chosen, seed=0, out=tmp_path / "out", work=tmp_path / "work")
    made = Split(tmp_path / "out")
    assert made.table["label"].tolist() == [1] * 4
    np.testing.assert_array_equal(made.images(np.arange(4)), train.images(plan.row_M))


def test_nothing_to_do_is_a_split_of_no_rows(tmp_path):
    train = prepared(tmp_path / "train")
    plan = make_copies(train, augment(copies=0), seed=0, out=tmp_path / "out", work=tmp_path / "work")
    made = Split(tmp_path / "out")
    assert len(plan) == len(made) == 0
    assert made.images(np.array([], dtype=np.int64)).shape == (0, 16, 16, 1)
    assert list(made.table["label"]) == []
    datasets = pytest.importorskip("datasets")
    assert len(datasets.load_from_disk(str(tmp_path / "out"))) == 0


def output(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_bytes_from_one_process_and_from_two(tmp_path, monkeypatch):
    train = prepared(tmp_path / "train")
    monkeypatch.setattr(offline, "PIECE", 3)
    for workers in (1, 2):
        out, work = tmp_path / f"by_{workers}" / "augmented", tmp_path / f"work_{workers}"
        make_copies(train, augment(copies=2), seed=0, out=out, work=work, workers=workers)
    assert output(tmp_path / "by_1" / "augmented") == output(tmp_path / "by_2" / "augmented")
    make_copies(train, augment(copies=2), seed=1, out=tmp_path / "other" / "augmented", work=tmp_path / "work")
    assert (tmp_path / "other" / "augmented" / FILE).read_bytes() != (
        tmp_path / "by_1" / "augmented" / FILE
    ).read_bytes()


def test_a_killed_run_goes_on_with_the_pieces_it_had(tmp_path, monkeypatch):
    train, work = prepared(tmp_path / "train"), tmp_path / "work"
    make_copies(train, augment(), seed=0, out=tmp_path / "straight" / "augmented", work=tmp_path / "else", workers=1)
    monkeypatch.setattr(offline, "PIECE", 2)
    make, made = offline._make, []

    def dying(piece):
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(piece.name)
        return make(piece)

    monkeypatch.setattr(offline, "_make", dying)
    with pytest.raises(KeyboardInterrupt):
        make_copies(train, augment(), seed=0, out=tmp_path / "again" / "augmented", work=work, workers=1)
    pieces = sorted((work / "augment").iterdir())
    assert len(pieces) == 3
    damaged = pieces[0].name.split(".")[0]
    pieces[0].write_bytes(pieces[0].read_bytes()[:-100])
    begun = set(made)
    made.clear()
    monkeypatch.setattr(offline, "_make", lambda piece: made.append(piece.name) or make(piece))
    make_copies(train, augment(), seed=0, out=tmp_path / "again" / "augmented", work=work, workers=1)
    assert len(made) == 3 and set(made) & begun == {damaged}  # two new ones, and the damaged one again
    ours, straight = Split(tmp_path / "again" / "augmented"), Split(tmp_path / "straight" / "augmented")
    assert ours.table.equals(straight.table)
    np.testing.assert_array_equal(ours.images(np.arange(10)), straight.images(np.arange(10)))


def test_a_killed_run_with_other_parameters_or_images_is_not_gone_on_with(tmp_path, monkeypatch):
    train, work = prepared(tmp_path / "train"), tmp_path / "work"
    monkeypatch.setattr(offline.shutil, "rmtree", lambda *given, **named: None)  # the spool stays as after a kill
    make, log = offline._make, []
    monkeypatch.setattr(offline, "_make", lambda piece: log.append(piece) or make(piece))
    make_copies(train, augment(), seed=0, out=tmp_path / "a", work=work, workers=1)
    make_copies(train, augment(), seed=0, out=tmp_path / "b", work=work, workers=1)
    assert len(log) == 1
    make_copies(train, augment(), seed=1, out=tmp_path / "c", work=work, workers=1)
    make_copies(train, augment([{"GaussNoise": {}}]), seed=0, out=tmp_path / "d", work=work, workers=1)
    other = prepared(tmp_path / "train2", labels=(0, 1, 0))
    make_copies(other, augment(), seed=0, out=tmp_path / "e", work=work, workers=1)
    assert len(log) == 4
