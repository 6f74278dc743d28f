"""Batches: each row once, the same for any number of ranks and workers, resumable at any place."""

import shutil
from collections import namedtuple

import numpy as np
import pytest

from splits import write_split
from stillframe.store.loader import (
    EpochBatchSampler,
    SequentialBatchSampler,
    SplitDataset,
    check_shared_memory,
    make_loader,
)


def rows_of(sampler):
    return np.concatenate([part for _, part in sampler])


@pytest.mark.parametrize("world", [1, 2, 3])
def test_an_epoch_sees_each_row_once_over_all_ranks(world):
    parts = [EpochBatchSampler(101, 8, seed=3, rank=rank, world=world) for rank in range(world)]
    assert len({len(part) for part in parts}) == 1, "no rank has more batches than another"
    assert sorted(np.concatenate([rows_of(part) for part in parts])) == list(range(101))


def test_order_depends_on_seed_and_epoch_only():
    one = EpochBatchSampler(50, 8, seed=0)
    assert np.array_equal(one.order(4), EpochBatchSampler(50, 16, seed=0, rank=1, world=2).order(4))
    assert not np.array_equal(one.order(4), one.order(5))
    assert not np.array_equal(one.order(4), EpochBatchSampler(50, 8, seed=1).order(4))


def test_a_resumed_epoch_goes_on_where_it_stopped():
    whole = list(EpochBatchSampler(50, 8, seed=0, position=lambda: (2, 0)))
    rest = list(EpochBatchSampler(50, 8, seed=0, position=lambda: (2, 3)))
    assert [epoch for epoch, _ in rest] == [2] * len(rest)
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(whole[3:], rest, strict=True))


def test_limit_and_tiny_sets():
    assert len(list(EpochBatchSampler(100, 10, seed=0, limit=3))) == 3
    assert [len(part) for _, part in EpochBatchSampler(3, 8, seed=0)] == [3]
    assert {len(part) for _, part in EpochBatchSampler(17, 8, seed=0)} <= {5, 6}, "no batch of one sample is left over"


def test_balanced_draws_show_classes_alike():
    label_N = np.array([0] * 900 + [1] * 100)
    weight_N = 1.0 / np.bincount(label_N)[label_N]
    index_N = rows_of(EpochBatchSampler(1000, 50, seed=0, draw_weight_N=weight_N))
    assert 0.42 < label_N[index_N % 1000].mean() < 0.58
    assert len(set(index_N)) == 1000, "a row that is drawn again is augmented by a draw of its own"


def test_in_order_pads_nothing():
    parts = [rows_of(SequentialBatchSampler(63, 16, rank=rank, world=2)) for rank in range(2)]
    assert sorted(np.concatenate(parts)) == list(range(63))


@pytest.fixture
def rows(tmp_path):
    write_split(tmp_path / "train", 20)
    write_split(tmp_path / "augmented", 5, first=100)
    return SplitDataset([tmp_path / "train", tmp_path / "augmented"])


def test_augmented_rows_follow_the_train_rows(rows):
    batch = rows[(0, np.array([19, 20, 3, 24]))]
    values = batch.image[:, 0, 0, 0].tolist()
    assert values == [19, 100, 3, 104]
    assert batch.target["label"].tolist() == [1, 0, 1, 0]
    assert batch.image.shape == (4, 3, 6, 6)


def test_workers_give_the_same_batches(rows):
    here, there = (list(make_loader(rows, EpochBatchSampler(25, 8, seed=0), workers)) for workers in (0, 2))
    assert [b.index_B.tolist() for b in here] == [b.index_B.tolist() for b in there]
    assert all(bool((a.image == b.image).all()) for a, b in zip(here, there, strict=True))


def test_small_shared_memory_is_found_before_training(rows, monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(1000))
    with pytest.raises(ValueError, match="shm-size"):
        check_shared_memory(rows, EpochBatchSampler(25, 8, seed=0), 2, folder="/tmp")
