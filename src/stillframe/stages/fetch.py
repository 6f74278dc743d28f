"""Stage 2: bring the published data set here, or nothing at all when the user's own folder is the source."""

from __future__ import annotations

import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from stillframe.config import FetchConfig, read_params
from stillframe.ingest import download
from stillframe.ingest.demo_sources import DemoData
from stillframe.paths import RAW, write_json
from stillframe.tasks import TASKS, find_task


def demo_makers() -> dict[str, DemoData]:
    """The demo data sets of all tasks, by name."""
    return {name: maker for task in map(find_task, TASKS) for name, maker in task.demo_data.items()}


def run(data_fetch: FetchConfig | None, data_path: str | None, *, raw: Path = RAW) -> None:
    """Write data/raw: the images of `data_fetch` and source.json; whole, or not at all.

    Args:
        data_fetch: where the images come from.
        data_path: the user's own folder; then nothing is fetched.
        raw: replaced.

    Raises:
        ValueError: nothing names the images, or they cannot be had.
    """
    if data_path is None and data_fetch is None:
        raise ValueError("data.path and data.fetch are both null: give the folder of your images by data.path")
    raw.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=raw.parent, prefix=".fetch-") as name:
        new, work = Path(name) / "new", Path(name) / "work"
        new.mkdir()
        work.mkdir()
        if data_path is None and data_fetch is not None:
            download.get(data_fetch, new, work, makers=demo_makers)
            write_json(new / "source.json", {"fetch": asdict(data_fetch)})
        else:
            write_json(new / "source.json", {"path": data_path})
        if raw.exists():
            shutil.rmtree(raw)
        new.chmod(0o755)
        new.replace(raw)


if __name__ == "__main__":
    try:
        (data,) = read_params("data")
        run(data.fetch, data.path)
    except (ValueError, OSError) as problem:
        sys.exit(f"fetch: {problem}")
