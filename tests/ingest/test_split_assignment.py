import numpy as np
import pandas as pd
import pytest

from stillframe.ingest.split_assignment import assign, split_hash

FRACTIONS = {"val_fraction": 0.15, "test_fraction": 0.15}


def rows(counts, group=lambda name, index: f"{name}{index}", split=None):
    out = [
        (f"{name}/{index}", name, group(name, index), split) for name, count in counts.items() for index in range(count)
    ]
    frame = pd.DataFrame(out, columns=["id", "stratum", "group", "split"])
    return frame.astype({"split": object})


def test_stratified_seeded_and_independent_of_order():
    frame = rows({"a": 100, "b": 40, "c": 7})
    first = assign(frame, seed=1, **FRACTIONS)
    table = pd.crosstab(frame["stratum"], first)
    assert table.loc["a"].to_dict() == {"test": 15, "train": 70, "val": 15}
    assert table.loc["b"].to_dict() == {"test": 6, "train": 28, "val": 6}
    assert (table.loc["c"] >= 1).all()
    mixed = frame.sample(frac=1.0, random_state=3)
    assert assign(mixed, seed=1, **FRACTIONS).sort_index().equals(first)
    assert not assign(frame, seed=2, **FRACTIONS).equals(first)


def test_the_hash_is_known():
    """Another machine, another version: the same split, or this fails."""
    frame = rows({"a": 30, "b": 20})
    parts = assign(frame, seed=0, **FRACTIONS)
    pairs = list(zip(frame["id"], parts, strict=True))
    assert split_hash(pairs) == split_hash(reversed(pairs)) == PINNED
    assert split_hash([("a", "train")]) != split_hash([("a", "val")])


PINNED = "c70680cd83bd28a63b71c353c0924574423f0ae6051632318ae13fec4f23e6c0"


@pytest.mark.parametrize("mixed", [False, True])
def test_groups_stay_whole(mixed):
    rng = np.random.default_rng(0)
    owner = {(name, index): int(rng.integers(0, 40)) for name in "ab" for index in range(150)}
    frame = rows({"a": 150, "b": 150}, group=lambda name, index: f"p{owner[name, index]}{'' if mixed else name}")
    parts = assign(frame, seed=0, **FRACTIONS)
    assert frame.assign(part=parts).groupby("group")["part"].nunique().max() == 1
    shares = parts.value_counts(normalize=True)
    assert abs(shares["test"] - 0.15) < 0.05 and abs(shares["val"] - 0.15) < 0.05
    assert (pd.crosstab(frame["stratum"], parts) > 0).all().all()
    assert assign(frame.sample(frac=1.0, random_state=1), seed=0, **FRACTIONS).sort_index().equals(parts)


def test_given_splits_stay_and_what_is_missing_is_carved():
    frame = pd.concat([rows({"a": 100}, split="train"), rows({"b": 60}, split="train")], ignore_index=True)
    held = rows({"a": 20, "b": 20}, split="test").assign(
        id=lambda part: "t" + part["id"], group=lambda part: "t" + part["group"]
    )
    frame = pd.concat([frame, held], ignore_index=True)
    parts = assign(frame, seed=0, val_fraction=0.1, test_fraction=0.5)
    assert parts.value_counts().to_dict() == {"train": 144, "test": 40, "val": 16}
    assert (parts[frame["split"] == "test"] == "test").all()
    only_val = frame.assign(split=frame["split"].replace("test", "val"))
    assert (assign(only_val, seed=0, **FRACTIONS).value_counts()[["val", "test"]] == [40, 24]).all()


def test_rows_without_a_split_are_dealt_out_and_groups_stay_whole():
    """Test is named for some rows: they stay, their groups follow, and val is carved out of the rest."""
    frame = rows({"a": 60, "b": 60}, group=lambda name, index: f"{name}{index // 3}")
    frame.loc[frame["id"].isin(["a/0", "b/0", "b/30"]), "split"] = "test"
    frame.loc[frame["id"].isin(["a/5", "b/5"]), "split"] = "train"
    parts = assign(frame, seed=0, val_fraction=0.25, test_fraction=0.5)
    assert sorted(frame["id"][parts == "test"]) == ["a/0", "a/1", "a/2", "b/0", "b/1", "b/2", "b/30", "b/31", "b/32"]
    assert frame.assign(part=parts).groupby("group")["part"].nunique().max() == 1
    assert 24 <= (parts == "val").sum() <= 30
    frame.loc[frame["id"].isin(["a/7", "b/7"]), "split"] = "val"
    parts = assign(frame, seed=0, val_fraction=0.25, test_fraction=0.5)
    assert parts.value_counts().to_dict() == {"train": 105, "test": 9, "val": 6}


@pytest.mark.parametrize(
    ("counts", "fractions", "message"),
    [
        ({"a": 50, "b": 2}, FRACTIONS, "class 'b' has 2 usable image"),
        ({"a": 50, "b": 1}, FRACTIONS, "class 'b' has 1 usable image"),
        ({"a": 50, "b": 50}, {"val_fraction": 0.0, "test_fraction": 0.1}, "data.val_fraction = 0"),
        ({"a": 50, "b": 50}, {"val_fraction": 0.6, "test_fraction": 0.4}, "leave nothing to train on"),
    ],
)
def test_what_cannot_be_split_is_named(counts, fractions, message):
    with pytest.raises(ValueError, match=message):
        assign(rows(counts), seed=0, **fractions)


def test_too_few_groups_are_named():
    frame = rows({"a": 30, "b": 30}, group=lambda name, index: f"p{index % 2}")
    with pytest.raises(ValueError, match="2 group"):
        assign(frame, seed=0, **FRACTIONS)
