"""Train, validation and test: stratified, group-aware, and the same on any machine and for any order of files.

Images are ordered by sha256(seed, group), not by a library's random generator: the result depends on the names and the
seed alone, and a new image moves few of the old ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from stillframe.types import SPLITS

LEAST = 3  # groups of a stratum: one for each split
FOLDS = 20  # groups that mix classes are dealt into so many folds: fractions in steps of 5 %


def assign(
    frame: pd.DataFrame, *, seed: int, val_fraction: float, test_fraction: float, folds: int = 0, fold: int = 0
) -> pd.Series[str]:
    """The split of every row.

    Given splits stay. A row without one goes where its group was put by name: to test, else to val. What is missing of
    val and test is carved out of the train and the other unassigned rows, each as its fraction of those rows; where
    both were given, the unassigned rows are train.

    Args:
        frame: columns id, stratum (class), group, split (given, or None).
        seed: another seed, another split.
        val_fraction: 0..1.
        test_fraction: 0..1.
        folds: K >= 2: train and validation rows together are dealt into K folds; 0: the split as it is.
        fold: 0..K-1, the one that is the validation split.

    Raises:
        ValueError: a fraction is missing, or a class has too few images (or groups) for its splits.
    """
    split = _assign(frame, seed, val_fraction, test_fraction)
    return _dealt(frame, split, seed, folds, fold) if folds else split


def _dealt(frame: pd.DataFrame, split: pd.Series[str], seed: int, folds: int, fold: int) -> pd.Series[str]:
    """Fold `fold` of `folds` is the validation split, the others are for training; the test split stays."""
    from sklearn.model_selection import StratifiedGroupKFold

    if not 0 <= fold < folds or folds < 2:
        raise ValueError(f"data.fold = {fold} of data.folds = {folds}: folds count from 0, and there are two or more")
    pool = frame[split != "test"]
    fewest = pool.groupby("stratum")["group"].nunique()
    if len(fewest) and fewest.min() < folds:
        raise ValueError(
            f"data.folds = {folds}: class {fewest.idxmin()!r} has {fewest.min()} usable image(s) or group(s) beside "
            "the test split: fewer folds, or more images"
        )
    pool = pool.loc[pool["group"].map(lambda group: _key(seed, str(group))).sort_values().index]  # no order of files
    parts = StratifiedGroupKFold(folds).split(np.zeros(len(pool)), pool["stratum"], pool["group"])
    val_rows = list(parts)[fold][1]
    out = split.copy()
    out.loc[pool.index] = "train"
    out.loc[pool.index[val_rows]] = "val"
    return out


def _assign(frame: pd.DataFrame, seed: int, val_fraction: float, test_fraction: float) -> pd.Series[str]:
    fixed = _followed(frame)
    carve = {"test": test_fraction, "val": val_fraction}
    carve = {name: fraction for name, fraction in carve.items() if not (fixed == name).any()}
    for name, fraction in carve.items():
        if fraction <= 0:
            raise ValueError(
                f"data.{name}_fraction = 0, and the source has no {name} split of its own: give it a fraction"
            )
    if sum(carve.values()) >= 1:
        raise ValueError("data.val_fraction + data.test_fraction leave nothing to train on")
    out = fixed.where(fixed.isin(["val", "test"]), "train").astype(object)
    pool = frame[out == "train"].sort_values("id")
    if not carve or pool.empty:
        return out
    # Where each group is of one class, whole groups can be dealt class by class, which meets the fractions best.
    if pool.groupby("group")["stratum"].nunique().max() > 1:
        parts = _by_folds(pool, seed, carve)
    else:
        parts = _by_class(pool, seed, carve)
    out.loc[parts.index] = parts
    return out


def _followed(frame: pd.DataFrame) -> pd.Series[str]:
    """The given splits; rows without one join the test or val rows of their group, so that no group is torn apart."""
    rank = frame["split"].map({"test": 0, "val": 1})
    home = rank.groupby(frame["group"]).transform("min").map({0: "test", 1: "val"})
    return frame["split"].where(frame["split"].notna() | home.isna(), home)


def _key(seed: int, group: str) -> str:
    return hashlib.sha256(f"{seed}\0{group}".encode("utf-8", "surrogatepass")).hexdigest()


def _by_class(pool: pd.DataFrame, seed: int, carve: dict[str, float]) -> pd.Series[str]:
    """Class by class, whole groups in hashed order until each split has its share, and at least one group."""
    parts: dict[str, str] = {}
    for name, rows in pool.groupby("stratum"):
        sizes = rows.groupby("group").size()
        if len(sizes) < len(carve) + 1:
            raise ValueError(
                f"class {name!r} has {len(rows)} usable image(s) in {len(sizes)} group(s), and needs at least "
                f"{len(carve) + 1} to be in train, {' and '.join(reversed(carve))}: add some, or see data.leave_out"
            )
        order = sorted(sizes.index, key=lambda group: _key(seed, str(group)))
        for split, fraction in carve.items():
            wanted, taken, rest = fraction * len(rows), 0, []
            for group in order:
                size = int(sizes[group])
                # the last group may overshoot by less than half of itself; the first always fits
                if taken == 0 or taken + size / 2 <= wanted:
                    parts[str(group)] = split
                    taken += size
                else:
                    rest.append(group)
            order = rest
        if not order:
            raise ValueError(
                f"class {name!r}: its {len(sizes)} groups are too few to leave one for train: see `group` in the table"
            )
    return pool["group"].map(lambda group: parts.get(group, "train"))


def _by_folds(pool: pd.DataFrame, seed: int, carve: dict[str, float]) -> pd.Series[str]:
    """Groups that hold several classes: scikit-learn's stratified group folds, some of them for each split."""
    from sklearn.model_selection import StratifiedGroupKFold

    groups = pool["group"].nunique()
    folds = min(FOLDS, groups)
    if folds < len(carve) + 1:
        raise ValueError(
            f"{groups} group(s) are too few for train, {' and '.join(reversed(carve))}: see data.columns.group"
        )
    fewest = int(pool["stratum"].value_counts().min())
    folds = max(2, min(folds, fewest)) if fewest < folds else folds
    if folds < len(carve) + 1:
        rare = pool["stratum"].value_counts().idxmin()
        raise ValueError(f"class {rare!r} has {fewest} usable image(s), and needs at least {len(carve) + 1}")
    # Equal small folds, of which each split takes as many as its fraction comes to.
    dealer = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    number = np.empty(len(pool), dtype=np.int64)
    for fold, (_, rows) in enumerate(dealer.split(np.zeros(len(pool)), pool["stratum"], pool["group"])):
        number[rows] = fold
    out, first = np.full(len(pool), "train", dtype=object), 0
    for split, fraction in carve.items():
        count = max(1, round(fraction * folds))
        out[(number >= first) & (number < first + count)] = split
        first += count
    return pd.Series(out, index=pool.index)


def merge_rare(strata: pd.Series[Any], groups: pd.Series[Any], least: int) -> pd.Series[Any]:
    """Strata of fewer than `least` groups joined with the most frequent one.

    For targets of which the stratum is only a summary, such as the largest class in the image: a rare one must not
    make the split impossible.
    """
    sizes = groups.groupby(strata).nunique()
    if not len(sizes):
        return strata
    rare = set(sizes.index[sizes < least])
    return strata.where(~strata.isin(rare), sizes.idxmax())


def split_hash(pairs: Iterable[tuple[str, str]]) -> str:
    """sha256 over (id, split), sorted by id."""
    digest = hashlib.sha256()
    for row_id, split in sorted(pairs):
        assert split in SPLITS
        digest.update(f"{row_id}\0{split}\n".encode())
    return digest.hexdigest()
