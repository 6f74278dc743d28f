"""The page and the card of a task without classes, whose metric is better when it is lower and no percentage."""

from __future__ import annotations

import html
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from making import make_training, picture

from stillframe.paths import write_json
from stillframe.reporting import inputs
from stillframe.reporting.page import build_report
from stillframe.reporting.text import verdict
from stillframe.tasks.base import Metric, ReportText, Task
from stillframe.types import DatasetCard

METRICS = (
    Metric("mae", "MAE", "mean absolute error of an image, years", maximize=False, percent=False, monitored=True),
    Metric("r2", "R²", "share of the variance that is explained", monitored=True),
)
TASK = Task(
    "ages",
    "tests",
    METRICS,
    lead="mae",
    highlights=("mae", "r2"),
    report=ReportText(
        answers="an age in years",
        plots=("Predicted against true age",),
        caption="<b>{predicted_value:.1f}</b>, in truth {true_value:.1f}",
    ),
)


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What the stages of such a task leave."""
    monkeypatch.setattr(inputs, "find_task", lambda name: {"ages": TASK}[name])
    prepared, augmented, trained, validated, evaluated = paths = [
        tmp_path / name for name in ("prepared", "augmented", "train", "validate", "evaluate")
    ]
    card = DatasetCard("ages", [], {split: {} for split in ("train", "val", "test")}, 3, 32, 32, [0.5], [0.2], [], "0")
    prepared.mkdir()
    card.write(prepared / "card.json")
    make_training(trained, "ages")
    epoch = np.arange(4)
    history = {"epoch": epoch, "train/loss": 1.0 / (1 + epoch), "val/mae": 9.0 - epoch, "val/r2": epoch / 10}
    pd.DataFrame(history).to_csv(trained / "history.csv", index=False)
    rule = {"metric": "mae", "most": 5.0, "value": 6.25, "passed": False}
    write_json(validated / "choices.json", {"tta": "none", "verdict": {"passed": False, "rules": [rule]}})
    write_json(evaluated / "metrics.json", {"mae": 6.25, "r2": 0.5})
    write_json(evaluated / "intervals.json", {"mae": [5.5, 7.0]})
    write_json(evaluated / "baseline.json", {"mae": 14.0})
    slices = {"slice": "size", "value": ["small", "large"], "n": [20, 30], "mae": [6.0, 7.5], "low": [5.0, 6.0]}
    pd.DataFrame({**slices, "high": [7.0, 9.0], "r2": 0.5}).to_csv(evaluated / "slices.csv", index=False)
    gallery = {"file": ["gallery/0.png"], "id": ["a.png"], "predicted_value": [71.25], "true_value": [12.0]}
    pd.DataFrame(gallery).to_csv(evaluated / "gallery.csv", index=False)
    picture(evaluated / "gallery/0.png", 32, 0)
    pd.DataFrame({"index": range(50)}).to_parquet(evaluated / "predictions.parquet")
    points = pd.DataFrame({"x": [1.0, 40.0, 90.0], "y": [5.0, 42.0, 80.0], "series": "test"})
    (evaluated / "plots/curves").mkdir(parents=True)
    points.to_csv(evaluated / "plots/curves" / "Predicted against true age.csv", index=False)
    return paths


def test_the_report_of_a_task_without_classes_is_whole(folders: list[Path], tmp_path: Path) -> None:
    page = html.unescape(build_report(*folders, tmp_path / "out").read_text(encoding="utf-8")).replace("\xa0", " ")
    for text in (
        "On 50 test images this model's MAE is 6.250 [5.500, 7.000]; the trivial prediction has 14.000.",
        "better than the trivial answer, beyond chance",
        "validation mae is 6.2500, at most 5.0 is required",
        "<b>71.2</b>, in truth 12.0",
        "Predicted against true age",
        "share of the variance that is explained",
        "The weakest slice is size = large: MAE 7.500 [6.000 to 9.000] on 30 images.",
    ):
        assert text in page, text
    for text in ("temperature", "confidence", "classes", "per_class", "confusion.csv", "Where it looked"):
        assert text not in page.split("<h2>Lineage")[0].split("<body>")[1], text
    drawn = {path.name for path in (tmp_path / "out").glob("*.png")}
    assert drawn == {"learning_curves.png", "Predicted against true age.png"}
    card = (tmp_path / "out/MODEL_CARD.md").read_text(encoding="utf-8")
    assert (
        "| predictions | an age in years |" in card and "| slice | value | images | MAE | 95 % interval | R² |" in card
    )


@pytest.mark.parametrize(("trivial", "mood"), [(14.0, "good"), (6.0, "doubt"), (3.0, "bad")])
def test_a_lower_error_is_better(folders: list[Path], trivial: float, mood: str) -> None:
    write_json(folders[4] / "baseline.json", {"mae": trivial})
    assert verdict(inputs.read_inputs(*folders))[0] == mood
