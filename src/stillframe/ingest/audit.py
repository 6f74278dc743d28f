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
from stillframe.ingest.sources import Listing
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
        kept: images in the three splits.
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
        counts: split -> class -> images; of data with masks, images that show the class.
        sizes_of: split -> images.
        pixels: split -> class -> pixels of the masks, before resizing; {} of data without masks.
        exact: `groups` of equal images and the `images` in them, among the kept.
        near: `rule` (data.near_duplicates), `pairs`,
            `groups`, `images`, `largest` group, `scenes` (groups too large to be one image), `pairs_listed`.
        conflicts: files quarantined for one image under two labels.
        leaks: how many exact copies were removed, and what still crosses splits: exact, near, group.
        warnings: what the user should know.
        error: why the stage would stop; "" when it would not.
    """

    name: str
    layout: str
    listed: int
    kept: int = 0
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
    warnings: list[str] = field(default_factory=list)
    error: str = ""

    def write(self, path: Path) -> None:
        """Write as JSON."""
        write_json(path, asdict(self))


def of_files(name: str, listing: Listing, left: dict[str, int], frame: pd.DataFrame, error: str = "") -> Audit:
    """What can be said before splits are made (all there is when judging stopped with `error`)."""
    seen = frame[frame["pixels"] != ""]
    sizes = (seen["width"].astype(str) + " x " + seen["height"].astype(str)).value_counts(sort=False)
    ordered = sorted(sizes.items(), key=lambda item: (-int(item[1]), str(item[0])))
    listed = {str(size): int(count) for size, count in ordered[:TOP]}
    if len(ordered) > TOP:
        listed["other"] = int(sum(count for _, count in ordered[TOP:]))
    bad = frame.loc[frame["reason"] != "", "reason"]
    return Audit(
        name=name,
        layout=listing.format,
        listed=len(listing.rows),
        kept=int((frame["reason"] == "").sum()),
        left_out=left,
        ignored=listing.ignored,
        quarantined=_count(bad.map(kind)),
        empty_classes=listing.empty,
        modes=_count(seen["mode"]),
        formats=_count(seen["format"]),
        sizes=listed,
        animated=int((seen["frames"] > 1).sum()),
        turned=int(seen["turned"].sum()),
        remarked=int((seen["notes"] != "").sum()),
        conflicts=int((bad.map(kind) == "conflict").sum()),
        warnings=[f"class folder {name!r} is empty and is no class" for name in listing.empty],
        error=error,
    )


def of_verdict(name: str, listing: Listing, left: dict[str, int], verdict: DatasetReport) -> Audit:
    """All findings about a data set that can be used."""
    first = of_files(name, listing, left, verdict.frame)
    kept = verdict.kept
    table = kept.explode("holds").groupby(["split", "holds"]).size()
    copies = kept[(kept["pixels"] != "") & kept.duplicated("pixels", keep=False)]
    values = {
        "counts": {split: {cls: int(table.get((split, cls), 0)) for cls in verdict.classes} for split in SPLITS},
        "sizes_of": {split: int((kept["split"] == split).sum()) for split in SPLITS},
        "pixels": _pixels(kept, verdict.classes),
        "exact": {"groups": int(copies["pixels"].nunique()), "images": len(copies)},
        "near": _near(verdict),
        "leaks": {
            "exact_removed": first.quarantined.get("leak", 0),
            "exact_across_splits": _across(kept, "pixels"),
            "near_pairs_across_splits": int((_split(verdict, "first") != _split(verdict, "second")).sum()),
            "source_groups_across_splits": _across(kept[kept["own_group"].notna()], "own_group"),
        },
        "warnings": first.warnings + verdict.warnings,
    }
    return Audit(**{**vars(first), **values})


def _pixels(kept: pd.DataFrame, classes: list[str]) -> dict[str, dict[str, int]]:
    if "px" not in kept:
        return {}
    found = {split: kept.loc[kept["split"] == split, "px"] for split in SPLITS}
    return {
        split: {name: int(sum(int(px_K[at]) for px_K in rows)) for at, name in enumerate(classes)}
        for split, rows in found.items()
    }


def _split(verdict: DatasetReport, side: str) -> Any:
    return verdict.frame["split"].reindex(verdict.near[side]).to_numpy()


def _across(rows: pd.DataFrame, column: str) -> int:
    """How many values of a column occur in more than one split."""
    return int((rows.groupby(column)["split"].nunique() > 1).sum())


def _near(verdict: DatasetReport) -> dict[str, Any]:
    pairs = verdict.near[["first", "second"]].to_numpy(dtype="int64")
    number = pd.Series(components(len(verdict.frame), pairs)).value_counts()
    groups = number[number > 1]
    ids = verdict.frame["id"].tolist()
    listed = [
        {"first": ids[row["first"]], "second": ids[row["second"]], "bits": row["bits"], "likeness": row["likeness"]}
        for row in verdict.near.head(100).round({"likeness": 4}).to_dict("records")
    ]
    sizes = {"groups": len(groups), "images": int(groups.sum()), "largest": int(groups.max()) if len(groups) else 0}
    return {"rule": verdict.near_rule, "pairs": len(pairs), **sizes, "scenes": verdict.scenes, "pairs_listed": listed}


def _count(values: pd.Series[Any]) -> dict[str, int]:
    return {str(name): int(count) for name, count in sorted(values.value_counts().items())}


def write_quarantine(path: Path, frame: pd.DataFrame) -> None:
    """One line a quarantined file: path, reason, sha256, label."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["path", "reason", "sha256", "label"])
    bad = frame[frame["reason"] != ""]
    rows: Iterable[Any] = zip(bad["id"], bad["reason"], bad["sha256"], bad["label"], strict=True)
    lines.writerows(rows)
    write_text(path, text.getvalue())
