"""What the report is made from: the files of the stages before it; those that are missing are listed."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from stillframe.evaluation.write_tables import read_table
from stillframe.paths import read_json
from stillframe.tasks import find_task
from stillframe.tasks.base import Metric, Task
from stillframe.types import SPLITS, DatasetCard

SMALL_FILE = 48_000  # bytes; an image in a larger file is made smaller for the page
TINY_SIDE = 100  # px; a smaller image is enlarged without smoothing


@dataclass(frozen=True)
class PageImage:
    """An image inside the page.

    Attributes:
        uri: data URI.
        width: px.
        height: px.
        tiny: enlarge it without smoothing.
    """

    uri: str
    width: int
    height: int
    tiny: bool


@dataclass(frozen=True)
class ReportInputs:
    """The results of all stages; what is optional is empty, and `missing` names its file."""

    task: Task
    card: DatasetCard  # its splits in the order train, val, test
    metrics: dict[str, float]
    intervals: dict[str, list[float]]
    baseline: dict[str, Any]
    notes: list[str]
    audit: dict[str, Any]
    policy: dict[str, Any]
    summary: dict[str, Any]
    origin: dict[str, Any]  # run.json
    choices: dict[str, Any]
    export: dict[str, Any]  # export.json
    val_metrics: dict[str, float]
    history: pd.DataFrame
    per_class: pd.DataFrame
    confusion: pd.DataFrame
    roc: pd.DataFrame
    pr: pd.DataFrame
    reliability: pd.DataFrame
    slices: pd.DataFrame
    gallery: pd.DataFrame
    explain: pd.DataFrame
    quarantine: pd.DataFrame
    missing: list[str]
    test_rows: int | None = None  # of predictions.parquet; None where it is missing
    plots: dict[str, pd.DataFrame] = field(default_factory=dict)  # the task's own curves by title: x, y and series

    @property
    def lead(self) -> Metric:
        """The metric of the headline."""
        return self.task.metric(self.task.lead)

    @property
    def sample(self) -> str:
        """What one sample is called."""
        return "clip" if self.card.frames > 1 else "image"

    @property
    def samples(self) -> str:
        """The same in the plural."""
        return f"{self.sample}s"

    @property
    def unit(self) -> str:
        """What is counted as right or wrong, in the plural."""
        return self.task.report.unit or self.samples

    @property
    def slice_metrics(self) -> list[Metric]:
        """The scores of slices.csv, the lead metric first."""
        names = [name for name in self.slices.columns if name in self.task.named_metrics()]
        return [self.task.metric(name) for name in sorted(names, key=lambda name: name != self.task.lead)]


class _StageFiles:
    """Reads files of stages, and notes those that are missing."""

    def __init__(self) -> None:
        self.missing: list[str] = []

    def json(self, path: Path, empty: Any) -> Any:
        """The content of a JSON file, or `empty`."""
        if path.exists():
            return read_json(path)
        self.missing.append(str(path))
        return empty

    def table(self, path: Path) -> pd.DataFrame:
        """A CSV table, or one without rows and columns."""
        if path.exists():
            return read_table(path)
        self.missing.append(str(path))
        return pd.DataFrame()


def read_inputs(
    prepared: Path,
    augmented: Path,
    trained: Path,
    validated: Path,
    evaluated: Path,
    *,
    exported: Path | None = None,
    task: str | None = None,
) -> ReportInputs:
    """Read the stages' folders.

    Args:
        prepared: data/prepared.
        augmented: data/augmented.
        trained: artifacts/train; its model.json names the task.
        validated: artifacts/validate.
        evaluated: artifacts/evaluate.
        exported: artifacts/export; None: the report has no section about an export.
        task: the task's name, where model.json is missing.

    Raises:
        FileNotFoundError: card.json, the test metrics or the task's name are missing: there is nothing to report.
        ValueError: a file is damaged, or the task does not exist.
    """
    card, model = DatasetCard.read(prepared / "card.json"), trained / "model.json"
    name = str(read_json(model)["task"]) if model.exists() or not task else task
    about, files = find_task(name), _StageFiles()
    # the tables that only some tasks write are asked for by those alone, so that none of them is called missing
    own = sorted({*about.report.tables, about.report.confusion} - {""})
    tables, nothing = {file: files.table(evaluated / file) for file in own}, pd.DataFrame()
    return ReportInputs(
        task=about,
        card=replace(card, counts={split: card.counts[split] for split in SPLITS if split in card.counts}),
        metrics=read_json(evaluated / "metrics.json"),
        intervals=files.json(evaluated / "intervals.json", {}),
        baseline=files.json(evaluated / "baseline.json", {}),
        notes=files.json(evaluated / "notes.json", []),
        audit=files.json(prepared / "audit.json", {}),
        policy=files.json(augmented / "policy.json", {}),
        summary=files.json(trained / "summary.json", {}),
        origin=files.json(trained / "run.json", {}),
        choices=files.json(validated / "choices.json", {}),
        export=files.json(exported / "export.json", {}) if exported is not None else {},
        val_metrics=files.json(validated / "metrics.json", {}),
        history=files.table(trained / "history.csv"),
        per_class=tables.get("per_class.csv", nothing),
        confusion=tables.get(about.report.confusion, nothing),
        roc=tables.get("roc.csv", nothing),
        pr=tables.get("pr.csv", nothing),
        reliability=tables.get("reliability.csv", nothing),
        slices=files.table(evaluated / "slices.csv"),
        gallery=files.table(evaluated / "gallery.csv"),
        explain=tables.get("explain/explain.csv", nothing),
        quarantine=files.table(prepared / "quarantine.csv"),
        missing=files.missing,
        test_rows=_row_count(evaluated / "predictions.parquet"),
        plots={name: files.table(evaluated / "plots/curves" / f"{name}.csv") for name in about.report.plots},
    )


def _row_count(path: Path) -> int | None:
    """Rows of a Parquet file, from its footer; None where it is missing."""
    from pyarrow import ArrowException, parquet

    if not path.exists():
        return None
    try:
        return int(parquet.read_metadata(path).num_rows)
    except ArrowException as error:
        raise ValueError(f"{path} is not a table ({error}): delete it and run `dvc repro`") from None


def page_image(path: Path, most_px: int = 360) -> PageImage | None:
    """An image as a data URI, made smaller when its file is large; None when the file is missing.

    Args:
        path: of a PNG or JPEG.
        most_px: longer side of an image that is made smaller.
    """
    from PIL import Image

    if not path.is_file():
        return None
    data, kind = path.read_bytes(), "png"
    with Image.open(io.BytesIO(data)) as image:
        width, height = image.size
        kind = (image.format or "png").lower()
        if len(data) > SMALL_FILE:
            buffer = io.BytesIO()
            smaller = image.convert("RGB")
            smaller.thumbnail((most_px, most_px))
            smaller.save(buffer, "JPEG", quality=85)
            data, kind, (width, height) = buffer.getvalue(), "jpeg", smaller.size
    return PageImage(data_uri(data, kind), width, height, min(width, height) < TINY_SIDE)


def data_uri(data: bytes, kind: str) -> str:
    """Bytes of an image of a kind ("png", "jpeg") as a data URI."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
