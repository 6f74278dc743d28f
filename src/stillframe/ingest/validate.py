"""Which samples are usable, which are quarantined and why, and which split every usable one is in.

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
from stillframe.ingest.target import Target, TargetDescription
from stillframe.types import SPLITS

ThumbnailLoader = Callable[[list[int]], Mapping[int, bytes]]


@dataclass
class DatasetReport:
    """The rows with their splits, and what was found out about them.

    Attributes:
        frame: one row a sample: columns id, split, group, weight, slices, reason, and those of the spool and of the
            task (see `ingest.target`).
        classes: names by class index; [] of targets without classes.
        near: confirmed near duplicates, as indices in `frame`, with hash distance and likeness.
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
    def usable(self) -> pd.DataFrame:
        """The rows that go into a split."""
        return self.frame[self.frame["reason"] == ""]

    @property
    def quarantined(self) -> pd.DataFrame:
        """The rows that do not."""
        return self.frame[self.frame["reason"] != ""]


def validate(
    frame: pd.DataFrame,
    data: DataConfig,
    target: Target,
    description: TargetDescription,
    *,
    seed: int,
    left_out: int,
    thumbs: ThumbnailLoader,
) -> DatasetReport:
    """Find what cannot be used, join copies into groups, and assign the splits.

    Args:
        frame: columns id, source_text, split, group, weight, reason, sha256, pixels, phash, and what `target.describe`
            fills in; changed.
        data: section `data`.
        target: what the task knows of its targets.
        description: from `target.describe`.
        seed: of the split.
        left_out: rows that were left out by rule, for the message only.
        thumbs: gives the thumbnails of indices in `frame`.

    Raises:
        ValueError: too much is bad, a class has nothing left, or the splits cannot be made.
    """
    near_duplicates = pd.DataFrame(columns=["first", "second", "bits", "likeness"])
    report = DatasetReport(frame, description.classes, near_duplicates, data.near_duplicates)
    _quarantine_conflicts(frame, data, target)
    _quarantine_leaks(frame, "pixels", "the same image")
    if "file" in frame:
        _quarantine_leaks(frame, "file", "another part of the same video")
    _check_bad_fraction(frame, data, description, left_out)
    # samples of one image, one file or one group of the source stay together
    near = _near(report, data, thumbs) if data.near_duplicates != "off" else np.empty((0, 2), dtype=np.int64)
    linked = near if data.near_duplicates == "group" else near[:0]
    usable = frame.index[frame["reason"] == ""].to_numpy()
    position = np.full(len(frame), -1, dtype=np.int64)  # of a row of the frame among the usable ones
    position[usable] = np.arange(len(usable))
    linking = ["id", "group", "pixels", *(["file"] if "file" in frame else [])]
    groups = duplicates.name_groups(frame.loc[usable, linking].reset_index(drop=True), position[linked])
    frame["own_group"] = frame["group"]
    frame.loc[usable, "group"] = groups
    _check_classes(frame, description)
    least = max(split_assignment.LEAST, data.folds)
    frame.loc[usable, "split"] = split_assignment.assign(
        frame.loc[usable].assign(stratum=target.strata(frame.loc[usable], least)),
        seed=seed,
        val_fraction=data.val_fraction,
        test_fraction=data.test_fraction,
        folds=data.folds,
        fold=data.fold,
    )
    _check_splits(report)
    return report


def _quarantine_conflicts(frame: pd.DataFrame, data: DataConfig, target: Target) -> None:
    """Quarantine all copies of an image whose targets contradict each other, or stop the run."""
    usable = frame[(frame["reason"] == "") & (frame["pixels"] != "")]
    n_targets = usable.groupby("pixels")["agreement"].nunique()
    conflicting = usable[usable["pixels"].isin(n_targets.index[n_targets > 1])]
    for _, copies in conflicting.groupby("pixels"):
        names = ", ".join(f"{row.id} ({row.text})" for row in copies.head(4).itertuples())
        frame.loc[copies.index, "reason"] = f"conflict: the same image under different {target.noun}: {names}"
    conflicts = frame[frame["reason"].str.startswith("conflict")]
    if len(conflicts) and data.conflicts == "error":
        raise ValueError(
            f"{len(conflicts)} files are in conflict, e.g. {conflicts['id'].iloc[0]}: {conflicts['reason'].iloc[0]}"
        )


def _quarantine_leaks(frame: pd.DataFrame, column: str, what: str) -> None:
    """Of equals (by a column) in several given splits only those of one split stay: test before val before train.

    Those without a split are no leak: they will follow their copies.
    """
    usable = frame[(frame["reason"] == "") & (frame[column] != "") & frame["split"].notna()]
    rank = usable["split"].map({"test": 0, "val": 1}).fillna(2)
    best = rank.groupby(usable[column]).transform("min")
    for index in usable.index[rank > best]:
        home = "test" if best[index] == 0 else "val"
        frame.loc[index, "reason"] = f"leak: {what} is in the {home} split"


def _check_bad_fraction(frame: pd.DataFrame, data: DataConfig, description: TargetDescription, left_out: int) -> None:
    """Stop when too large a share is quarantined, or when nothing was there."""
    n_bad = int((frame["reason"] != "").sum())
    if not len(frame):
        raise ValueError(
            f"no image is left to use ({left_out} left out by data.leave_out): check data.classes and data.leave_out"
        )
    if n_bad > data.max_bad_fraction * len(frame):
        kinds = frame.loc[frame["reason"] != "", "reason"].map(kind).value_counts()
        counts = ", ".join(f"{count} {name}" for name, count in kinds.items())
        hint = "".join(text for name, text in description.hints.items() if name in kinds.index)
        raise ValueError(
            f"{n_bad} of {len(frame)} files are bad ({counts}), more than "
            f"data.max_bad_fraction = {data.max_bad_fraction:g}{hint}"
        )


def kind(reason: str) -> str:
    """The part of a reason that is counted."""
    return reason.split(":", 1)[0]


def _near(report: DatasetReport, data: DataConfig, thumbs: ThumbnailLoader) -> Pairs:
    """Confirmed near duplicates among the usable rows (one of each set of exact copies), noted in the report."""
    usable = report.usable.drop_duplicates("pixels")
    usable = usable[usable["pixels"] != ""]
    index_N = usable.index.to_numpy()
    candidates = duplicates.candidates(usable["phash"].to_numpy(dtype=np.uint64), data.near_duplicate_bits)
    pairs = index_N[candidates].reshape(-1, 2)
    if len(pairs):
        some = index_N[np.linspace(0, len(index_N) - 1, min(len(index_N), duplicates.SAMPLE)).round().astype(int)]
        background = duplicates.SimilarityBackground.of(list(thumbs(some.tolist()).values()))
        likeness = duplicates.confirm(pairs, thumbs(sorted(set(pairs.ravel().tolist()))), background)
        sure = likeness >= background.same
    else:
        likeness, sure = np.empty(0), np.empty(0, dtype=bool)
    pairs, likeness = pairs[sure], likeness[sure]
    hashes = report.frame["phash"].to_numpy(dtype=np.uint64)
    bits = np.bitwise_count(hashes[pairs[:, 0]] ^ hashes[pairs[:, 1]])
    columns: dict[str, Any] = {"first": pairs[:, 0], "second": pairs[:, 1], "bits": bits, "likeness": likeness}
    report.near = pd.DataFrame(columns).sort_values(["likeness", "first"], ascending=[False, True], ignore_index=True)
    linked, report.scenes = duplicates.without_scenes(len(report.frame), pairs)
    if report.scenes and data.near_duplicates == "group":
        report.warnings.append(
            f"{report.scenes} group(s) of look-alikes are too large to be one image and were not joined: see the audit"
        )
    return linked


def _check_classes(frame: pd.DataFrame, description: TargetDescription) -> None:
    counts = frame.loc[frame["reason"] == "", "classes"].explode().value_counts()
    for name in description.classes:
        if not counts.get(name, 0):
            listed = int((frame["text"] == name).sum())
            why = "every one is quarantined" if listed else nearest(name, description.spellings)
            raise ValueError(f"class {name!r} has no usable image ({listed} listed): {why}")
    if len(description.classes) == 1:
        name = description.classes[0]
        raise ValueError(f"only one class, {name!r}: there is nothing to tell apart; {description.one_class}")


def _check_splits(report: DatasetReport) -> None:
    counts = report.usable.explode("classes").groupby(["split", "classes"]).size()
    for name in report.classes:
        for split in SPLITS:
            if not counts.get((split, name), 0):
                if split == "train":
                    raise ValueError(f"class {name!r} has no image in the train split: it cannot be learnt")
                report.warnings.append(
                    f"class {name!r} has no image in the {split} split: its scores there are not defined"
                )
