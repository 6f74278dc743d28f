"""What the report is made from: the files of the stages before it, read with care for those that are not there."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from stillframe.paths import read_json
from stillframe.reporting.kinds import CLIPS, LABELS, MASKS, AnswerWording
from stillframe.types import SPLITS, DatasetCard

SMALL_FILE = 48_000  # bytes; a larger picture is made smaller for the page
PIXELS = "pixel_confusion.csv"  # what evaluate writes of masks, in place of confusion.csv
TINY_SIDE = 100  # px; a smaller picture is enlarged without smoothing


@dataclass(frozen=True)
class PageImage:
    """A picture inside the page.

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
    """The findings of all stages; what is optional is empty, and `missing` names its file."""

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
    masked: bool = False  # a class a pixel was answered
    images: int | None = None  # test images; None where predictions.parquet is not there

    @property
    def kind(self) -> AnswerWording:
        """The words for what was answered."""
        return MASKS if self.masked else CLIPS if self.card.frames > 1 else LABELS

    @property
    def thing(self) -> str:
        """What one sample is called."""
        return "clip" if self.card.frames > 1 else "image"

    @property
    def things(self) -> str:
        """The same in the plural."""
        return f"{self.thing}s"


def read_inputs(
    prepared: Path, augmented: Path, trained: Path, validated: Path, evaluated: Path, *, exported: Path | None = None
) -> ReportInputs:
    """Read the stages' folders; without `exported` nothing is said of an export.

    Raises:
        FileNotFoundError: card.json or the test metrics are missing: there is nothing to report.
        ValueError: a file is not what it should be.
    """
    missing: list[str] = []

    def optional(path: Path, empty: Any) -> Any:
        if path.exists():
            return read_json(path)
        missing.append(str(path))
        return empty

    def table(path: Path) -> pd.DataFrame:
        if path.exists():
            return read_table(path)
        missing.append(str(path))
        return pd.DataFrame()

    def of_labels(path: Path) -> pd.DataFrame:
        return pd.DataFrame() if masked else table(path)

    card, masked = DatasetCard.read(prepared / "card.json"), (evaluated / PIXELS).exists()
    ordered = {split: card.counts[split] for split in SPLITS if split in card.counts}
    return ReportInputs(
        card=replace(card, counts=ordered),
        metrics=read_json(evaluated / "metrics.json"),
        intervals=optional(evaluated / "intervals.json", {}),
        baseline=optional(evaluated / "baseline.json", {}),
        notes=optional(evaluated / "notes.json", []),
        audit=optional(prepared / "audit.json", {}),
        policy=optional(augmented / "policy.json", {}),
        summary=optional(trained / "summary.json", {}),
        origin=optional(trained / "run.json", {}),
        choices=optional(validated / "choices.json", {}),
        export=optional(exported / "export.json", {}) if exported is not None else {},
        val_metrics=optional(validated / "metrics.json", {}),
        history=table(trained / "history.csv"),
        per_class=table(evaluated / "per_class.csv"),
        confusion=table(evaluated / (PIXELS if masked else "confusion.csv")),
        roc=of_labels(evaluated / "roc.csv"),
        pr=of_labels(evaluated / "pr.csv"),
        reliability=table(evaluated / "reliability.csv"),
        slices=table(evaluated / "slices.csv"),
        gallery=table(evaluated / "gallery.csv"),
        explain=of_labels(evaluated / "explain" / "explain.csv"),
        quarantine=table(prepared / "quarantine.csv"),
        missing=missing,
        masked=masked,
        images=_rows(evaluated / "predictions.parquet"),
    )


def _rows(path: Path) -> int | None:
    """Rows of a Parquet file, from its footer."""
    from pyarrow import ArrowException, parquet

    if not path.exists():
        return None
    try:
        return int(parquet.read_metadata(path).num_rows)
    except ArrowException as error:
        raise ValueError(f"{path} is not a table ({error}): delete it and run `dvc repro`") from None


def read_table(path: Path) -> pd.DataFrame:
    """A CSV in which names stay text: a class may be called "1", "NA" or "true".

    Raises:
        ValueError: the file is not a table.
    """
    words = (
        "class",
        "actual",
        "predicted",
        "slice",
        "value",
        "id",
        "file",
        "kind",
        "method",
        "path",
        "reason",
        "label",
        "weakest",
    )
    try:
        columns = list(pd.read_csv(path, nrows=0).columns)
        text = {name: str for name in words if name in columns and not (name == "predicted" and "support" in columns)}
        blank = {name: [""] for name in columns if name not in text}
        return pd.read_csv(path, dtype=text, keep_default_na=False, na_values=blank)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a table ({error}): delete it and run `dvc repro`") from None


def picture(path: Path, most_px: int = 360) -> PageImage | None:
    """A picture as a data URI, made smaller when its file is large; None when the file is not there.

    Args:
        path: of a PNG or JPEG.
        most_px: longer side of a picture that is made smaller.
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
    """Bytes of a picture of a kind ("png", "jpeg") as a data URI."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
