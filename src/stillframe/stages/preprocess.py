"""Stage 3: from the source folder to three splits of judged, decoded, resized images."""

from __future__ import annotations

import sys
from pathlib import Path

from stillframe.config import DataConfig, read_params
from stillframe.ingest.prepare import prepare
from stillframe.paths import PREPARED, RAW, SOURCE, WORK
from stillframe.reporting.audit_page import write_page
from stillframe.tasks import find_task


def run(
    task: str, seed: int, data: DataConfig, *, source: Path = SOURCE, raw: Path = RAW, prepared: Path = PREPARED
) -> None:
    """Read every file once, judge it, and write data/prepared.

    Args:
        task: name of the task, which decides how targets are found and stored.
        seed: of the split.
        data: section `data`.
        source: the link to `raw` or to the user's own folder.
        raw: what `fetch` left; its source.json is a dependency even where the user's own folder is the source.
        prepared: written from scratch.

    Raises:
        FileNotFoundError: no source folder.
        ValueError: the data cannot be used.
    """
    folder = source if source.exists() else raw
    target = find_task(task).target
    findings = prepare(folder, data, target, seed=seed, out=prepared, work=WORK, page=write_page)
    for warning in findings.warnings:
        print(f"preprocess: {warning}", file=sys.stderr)
    sizes = ", ".join(f"{split} {count:,}" for split, count in findings.sizes_of.items())
    bad = sum(findings.quarantined.values())
    print(
        f"{findings.usable:,} images ({sizes}); {bad:,} quarantined, "
        f"{sum(findings.left_out.values()):,} left out by rule"
    )
    print(f"what was found: {prepared / 'audit.html'}")


if __name__ == "__main__":
    try:
        run(*read_params("task", "seed", "data"))
    except (ValueError, OSError) as problem:
        sys.exit(f"preprocess: {problem}")
