"""Pass 2 begins: what is kept, what is quarantined and why; every image has a class, a group and a split at the end.

The rows travel as a pandas frame, sorted by id. A step that quarantines a row fills its `reason` ("kind: detail").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from stillframe.config import DataConfig, nearest
from stillframe.ingest import duplicates, split_assignment
from stillframe.ingest.duplicates import Pairs
from stillframe.ingest.sources import SourceRow
from stillframe.ingest.tables import canonical
from stillframe.types import SPLITS

ThumbnailLoader = Callable[[list[int]], Mapping[int, bytes]]


@dataclass
class DatasetReport:
    """The judged rows.

    Attributes:
        frame: one row a sample: columns id, label, name, split, group, weight, slices, reason and those of the survey.
        classes: names in the order of the class indices.
        near: confirmed near duplicates, as positions in `frame`, with hash distance and likeness.
        near_rule: `data.near_duplicates`.
        scenes: groups of look-alikes that were too large to be one image.
        warnings: what the user should know.
    """

    frame: pd.DataFrame
    classes: list[str]
    near: pd.DataFrame
    near_rule: str = "group"
    scenes: int = 0
    warnings: list[str] = field(default_factory=list)

    @property
    def kept(self) -> pd.DataFrame:
        """The rows that go into a split."""
        return self.frame[self.frame["reason"] == ""]

    @property
    def quarantined(self) -> pd.DataFrame:
        """The rows that do not."""
        return self.frame[self.frame["reason"] != ""]


def name_classes(
    rows: list[SourceRow], data: DataConfig
) -> tuple[list[SourceRow], dict[str, str], dict[str, int], list[str]]:
    """Rows that are used, label -> class name, left-out labels with their counts, and the classes in order.

    A label in neither `data.classes` nor `data.leave_out` gets no name, and its rows are quarantined later.

    Raises:
        ValueError: a label in two classes, or in a class and in `data.leave_out`.
    """
    dropped = {canonical(label) for label in data.leave_out}
    owner: dict[str, str] = {}
    for name, labels in (data.classes or {}).items():
        for label in labels:
            if owner.setdefault(canonical(label), name) != name or canonical(label) in dropped:
                raise ValueError(
                    f"data.classes.{name}: label {label!r} is also in {owner[canonical(label)]!r} or data.leave_out"
                )
    used, left = [], dict.fromkeys(data.leave_out, 0)
    spelt = {canonical(label): label for label in data.leave_out}
    for row in rows:
        if canonical(row.label) in dropped:
            left[spelt[canonical(row.label)]] += 1
        else:
            used.append(row)
    found = {row.label for row in used if row.label and not row.problem.startswith("conflict")}
    if data.classes is not None:
        names = {label: owner[canonical(label)] for label in found if canonical(label) in owner}
        return used, names, left, list(data.classes)
    names = {label: label for label in found}
    return used, names, left, sorted(found, key=_natural)


def _natural(label: str) -> tuple[int, float, str]:
    """Numbers by value and before words, so that "10" follows "9"."""
    try:
        return 0, float(label), label
    except ValueError:
        return 1, 0.0, label


def judge(
    frame: pd.DataFrame, data: DataConfig, *, classes: list[str], seed: int, left_out: int, thumbs: ThumbnailLoader
) -> DatasetReport:
    """Judge surveyed rows.

    Args:
        frame: columns id, label, name ("" for none), answer (that copies of one image must agree in), holds (names of
            the classes in the image), split, group, weight, reason, sha256, pixels, phash.
        data: section `data`.
        classes: names, in order.
        seed: of the split.
        left_out: rows that were left out by rule, for the message only.
        thumbs: gives the thumbnails of positions in `frame`.

    Raises:
        ValueError: too much is bad, a class has nothing left, or the splits cannot be made.
    """
    verdict = DatasetReport(
        frame, classes, pd.DataFrame(columns=["first", "second", "bits", "likeness"]), data.near_duplicates
    )
    unknown = (frame["name"] == "") & (frame["reason"] == "")
    frame.loc[unknown, "reason"] = "label not in data.classes: " + frame.loc[unknown, "label"].astype(str)
    _conflicts(frame, data)
    _leaks(frame, "pixels", "the same image")
    if "file" in frame:
        _leaks(frame, "file", "another part of the same video")
    _bar(frame, data, left_out)
    near = _near(verdict, data, thumbs) if data.near_duplicates != "off" else np.empty((0, 2), dtype=np.int64)
    linked = near if data.near_duplicates == "group" else near[:0]
    kept = frame.index[frame["reason"] == ""].to_numpy()
    place = np.full(len(frame), -1, dtype=np.int64)
    place[kept] = np.arange(len(kept))
    linking = ["id", "group", "pixels", *(["file"] if "file" in frame else [])]
    part = frame.loc[kept, linking].reset_index(drop=True)
    groups = duplicates.name_groups(part, place[linked])
    frame["own_group"] = frame["group"]
    frame.loc[kept, "group"] = groups
    _check_classes(frame, classes)
    strata = (
        split_assignment.without_rare(frame.loc[kept], max(split_assignment.LEAST, data.folds))
        if data.masks
        else frame.loc[kept]
    )
    frame.loc[kept, "split"] = split_assignment.assign(
        strata,
        seed=seed,
        val_fraction=data.val_fraction,
        test_fraction=data.test_fraction,
        folds=data.folds,
        fold=data.fold,
    )
    _check_splits(verdict)
    return verdict


def _conflicts(frame: pd.DataFrame, data: DataConfig) -> None:
    """Equal pixels under two labels (or masks): all copies are quarantined, or the run stops."""
    usable = frame[(frame["reason"] == "") & (frame["pixels"] != "")]
    names = usable.groupby("pixels")["answer"].nunique()
    fights = usable[usable["pixels"].isin(names.index[names > 1])]
    for _, copies in fights.groupby("pixels"):
        words = ", ".join(
            f"{row.id} ({row.name_})" for row in copies.rename(columns={"name": "name_"}).head(4).itertuples()
        )
        frame.loc[copies.index, "reason"] = f"conflict: the same image under different labels: {words}"
    conflicts = frame[frame["reason"].str.startswith("conflict")]
    if len(conflicts) and data.conflicts == "error":
        raise ValueError(
            f"{len(conflicts)} files are in conflict, e.g. {conflicts['id'].iloc[0]}: {conflicts['reason'].iloc[0]}"
        )


def _leaks(frame: pd.DataFrame, column: str, what: str) -> None:
    """Of equals (by a column) in several given splits only those of one split stay: test before val before train.

    Those without a split are no leak: they will follow their copies.
    """
    usable = frame[(frame["reason"] == "") & (frame[column] != "") & frame["split"].notna()]
    rank = usable["split"].map({"test": 0, "val": 1}).fillna(2)
    best = rank.groupby(usable[column]).transform("min")
    for index in usable.index[rank > best]:
        home = "test" if best[index] == 0 else "val"
        frame.loc[index, "reason"] = f"leak: {what} is in the {home} split"


def _bar(frame: pd.DataFrame, data: DataConfig, left_out: int) -> None:
    """Stop when too large a share is quarantined, or when nothing was there."""
    bad = int((frame["reason"] != "").sum())
    if not len(frame):
        raise ValueError(
            f"no image is left to use ({left_out} left out by data.leave_out): check data.classes and data.leave_out"
        )
    if bad > data.max_bad_fraction * len(frame):
        kinds = frame.loc[frame["reason"] != "", "reason"].map(kind).value_counts()
        words = ", ".join(f"{count} {name}" for name, count in kinds.items())
        hint = ""
        if any(str(name).startswith("label not in") for name in kinds.index):
            hint = f"; labels in the source: {', '.join(sorted(set(frame['label'].astype(str)))[:12])}"
        raise ValueError(
            f"{bad} of {len(frame)} files are bad ({words}), more than "
            f"data.max_bad_fraction = {data.max_bad_fraction:g}{hint}"
        )


def kind(reason: str) -> str:
    """The part of a reason that is counted."""
    return reason.split(":", 1)[0]


def _near(verdict: DatasetReport, data: DataConfig, thumbs: ThumbnailLoader) -> Pairs:
    """Confirmed near duplicates among the kept rows (one of each set of exact copies), noted in the verdict."""
    kept = verdict.kept.drop_duplicates("pixels")
    kept = kept[kept["pixels"] != ""]
    where = kept.index.to_numpy()
    found = duplicates.candidates(kept["phash"].to_numpy(dtype=np.uint64), data.near_duplicate_bits)
    pairs = where[found].reshape(-1, 2)
    if len(pairs):
        some = where[np.linspace(0, len(where) - 1, min(len(where), duplicates.SAMPLE)).round().astype(int)]
        background = duplicates.SimilarityBackground.of(list(thumbs(some.tolist()).values()))
        likeness = duplicates.confirm(pairs, thumbs(sorted(set(pairs.ravel().tolist()))), background)
        sure = likeness >= background.same
    else:
        likeness, sure = np.empty(0), np.empty(0, dtype=bool)
    pairs, likeness = pairs[sure], likeness[sure]
    hashes = verdict.frame["phash"].to_numpy(dtype=np.uint64)
    bits = np.bitwise_count(hashes[pairs[:, 0]] ^ hashes[pairs[:, 1]])
    columns: dict[str, Any] = {"first": pairs[:, 0], "second": pairs[:, 1], "bits": bits, "likeness": likeness}
    verdict.near = pd.DataFrame(columns).sort_values(["likeness", "first"], ascending=[False, True], ignore_index=True)
    linked, verdict.scenes = duplicates.without_scenes(len(verdict.frame), pairs)
    if verdict.scenes and data.near_duplicates == "group":
        verdict.warnings.append(
            f"{verdict.scenes} group(s) of look-alikes are too large to be one image and were not joined: see the audit"
        )
    return linked


def _check_classes(frame: pd.DataFrame, classes: list[str]) -> None:
    counts = frame.loc[frame["reason"] == "", "holds"].explode().value_counts()
    for name in classes:
        if not counts.get(name, 0):
            listed = int((frame["name"] == name).sum())
            spelt = set(frame["labels" if "labels" in frame else "label"].explode().dropna().astype(str)) - {""}
            why = "every one is quarantined" if listed else nearest(name, spelt)
            raise ValueError(f"class {name!r} has no usable image ({listed} listed): {why}")
    if len(classes) < 2:
        hint = "is data.path one folder too high or too low?"
        if "labels" in frame:
            hint = "is the value of another one in data.masks.ignore?"
        raise ValueError(f"only one class, {classes[0]!r}: there is nothing to tell apart; {hint}")


def _check_splits(verdict: DatasetReport) -> None:
    counts = verdict.kept.explode("holds").groupby(["split", "holds"]).size()
    for name in verdict.classes:
        for part in SPLITS:
            if not counts.get((part, name), 0):
                if part == "train":
                    raise ValueError(f"class {name!r} has no image in the train split: it cannot be learnt")
                verdict.warnings.append(
                    f"class {name!r} has no image in the {part} split: its scores there are not defined"
                )
