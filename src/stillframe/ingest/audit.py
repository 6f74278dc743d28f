"""What the audit says in numbers: `audit.json`, and the table of quarantined files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from stillframe.ingest.duplicates import components
from stillframe.ingest.listing import Listing
from stillframe.ingest.target import Target
from stillframe.ingest.validate import DatasetReport, kind
from stillframe.paths import write_json, write_text
from stillframe.types import SPLITS

TOP = 20  # sizes that are listed one by one


@dataclass(frozen=True)
class Audit:
    """The findings about one data set.

    Attributes:
        name: `data.name`.
        layout: "folders", "split_folders", "table" or "idx".
        listed: rows in the source.
        usable: images in the three splits; `kept` in audit.json.
        left_out: label -> rows left out by `data.leave_out`.
        ignored: why -> files that were passed over.
        quarantined: kind of reason -> files.
        empty_classes: class folders without a file.
        modes: PIL mode -> images that decoded.
        formats: format by content -> images that decoded.
        sizes: "width x height" (px) -> images, the most frequent ones and "other".
        animated: images with more than one frame (the first is used).
        turned: images that EXIF orientation turned.
        remarked: images the decoder remarked upon.
        counts: split -> class -> images that show the class.
        sizes_of: split -> images.
        pixels: split -> class -> pixels before resizing; {} where a class is not a matter of pixels.
        target: further facts about the targets, from the task; left out of audit.json where there are none.
        exact: `groups` of equal images and the `images` in them, among the usable.
        near: `rule` (data.near_duplicates), `pairs`,
            `groups`, `images`, `largest` group, `scenes` (groups too large to be one image), `pairs_listed`.
        conflicts: files quarantined because copies of one image have different targets.
        leaks: how many exact copies were removed, and what still crosses splits: exact, near, group.
        warnings: what the user should know.
        error: why the stage would stop; "" when it would not.
    """

    name: str
    layout: str
    listed: int
    usable: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    ignored: dict[str, int] = field(default_factory=dict)
    quarantined: dict[str, int] = field(default_factory=dict)
    empty_classes: list[str] = field(default_factory=list)
    modes: dict[str, int] = field(default_factory=dict)
    formats: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    animated: int = 0
    turned: int = 0
    remarked: int = 0
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    sizes_of: dict[str, int] = field(default_factory=dict)
    pixels: dict[str, dict[str, int]] = field(default_factory=dict)
    exact: dict[str, int] = field(default_factory=dict)
    near: dict[str, Any] = field(default_factory=dict)
    conflicts: int = 0
    leaks: dict[str, int] = field(default_factory=dict)
    target: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    error: str = ""

    def write(self, path: Path) -> None:
        """Write as JSON."""
        values = {"kept" if name == "usable" else name: value for name, value in asdict(self).items()}
        write_json(path, values if self.target else {name: values[name] for name in values if name != "target"})


def of_files(name: str, listing: Listing, left_out: dict[str, int], frame: pd.DataFrame, error: str = "") -> Audit:
    """The findings before splits are made (all there are when validation stopped with `error`)."""
    decoded = frame[frame["pixels"] != ""]
    sizes = (decoded["width"].astype(str) + " x " + decoded["height"].astype(str)).value_counts(sort=False)
    ordered = sorted(sizes.items(), key=lambda item: (-int(item[1]), str(item[0])))
    listed = {str(size): int(count) for size, count in ordered[:TOP]}
    if len(ordered) > TOP:
        listed["other"] = int(sum(count for _, count in ordered[TOP:]))
    bad = frame.loc[frame["reason"] != "", "reason"]
    return Audit(
        name=name,
        layout=listing.layout,
        listed=len(listing.rows),
        usable=int((frame["reason"] == "").sum()),
        left_out=left_out,
        ignored=listing.ignored,
        quarantined=_count(bad.map(kind)),
        empty_classes=listing.empty,
        modes=_count(decoded["mode"]),
        formats=_count(decoded["format"]),
        sizes=listed,
        animated=int((decoded["frames"] > 1).sum()),
        turned=int(decoded["turned"].sum()),
        remarked=int((decoded["notes"] != "").sum()),
        conflicts=int((bad.map(kind) == "conflict").sum()),
        warnings=[f"class folder {name!r} is empty and is no class" for name in listing.empty],
        error=error,
    )


def of_report(name: str, listing: Listing, left_out: dict[str, int], report: DatasetReport, target: Target) -> Audit:
    """All findings about a data set that can be used."""
    first = of_files(name, listing, left_out, report.frame)
    usable = report.usable
    table = usable.explode("classes").groupby(["split", "classes"]).size()
    copies = usable[(usable["pixels"] != "") & usable.duplicated("pixels", keep=False)]
    values = {
        "counts": {split: {cls: int(table.get((split, cls), 0)) for cls in report.classes} for split in SPLITS},
        "sizes_of": {split: int((usable["split"] == split).sum()) for split in SPLITS},
        "exact": {"groups": int(copies["pixels"].nunique()), "images": len(copies)},
        "near": _near(report),
        "leaks": {
            "exact_removed": first.quarantined.get("leak", 0),
            "exact_across_splits": _across(usable, "pixels"),
            "near_pairs_across_splits": int((_split(report, "first") != _split(report, "second")).sum()),
            "source_groups_across_splits": _across(usable[usable["own_group"].notna()], "own_group"),
        },
        "warnings": first.warnings + report.warnings,
    }
    return Audit(**{**vars(first), **values, **target.audit(usable, report.classes)})


def _split(report: DatasetReport, side: str) -> Any:
    return report.frame["split"].reindex(report.near[side]).to_numpy()


def _across(rows: pd.DataFrame, column: str) -> int:
    """How many values of a column occur in more than one split."""
    return int((rows.groupby(column)["split"].nunique() > 1).sum())


def _near(report: DatasetReport) -> dict[str, Any]:
    pairs = report.near[["first", "second"]].to_numpy(dtype="int64")
    number = pd.Series(components(len(report.frame), pairs)).value_counts()
    groups = number[number > 1]
    ids = report.frame["id"].tolist()
    listed = [
        {"first": ids[row["first"]], "second": ids[row["second"]], "bits": row["bits"], "likeness": row["likeness"]}
        for row in report.near.head(100).round({"likeness": 4}).to_dict("records")
    ]
    sizes = {"groups": len(groups), "images": int(groups.sum()), "largest": int(groups.max()) if len(groups) else 0}
    return {"rule": report.near_rule, "pairs": len(pairs), **sizes, "scenes": report.scenes, "pairs_listed": listed}


def _count(values: pd.Series[Any]) -> dict[str, int]:
    return {str(name): int(count) for name, count in sorted(values.value_counts().items())}


def write_quarantine(path: Path, frame: pd.DataFrame) -> None:
    """One line a quarantined file: path, reason, sha256, label."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["path", "reason", "sha256", "label"])
    bad = frame[frame["reason"] != ""]
    rows: Iterable[Any] = zip(bad["id"], bad["reason"], bad["sha256"], bad["source_text"], strict=True)
    lines.writerows(rows)
    write_text(path, text.getvalue())
