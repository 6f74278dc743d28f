"""The page and the card of a model that answers clips: said of clips, strips with a line over the views."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from making import make_stages

from stillframe.reporting.page import build_report
from stillframe.types import DatasetCard

CLIP = {"frames": 8, "stored": None, "fps": 8.0, "sampling": "uniform", "views": 3, "reversible": False}
TIMELINE = {"answer": [0.2, 0.9, 1.0], "label": [0.8, 0.1, 0.0]}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A class is called as the report calls pictures: its name must stay."""
    folders = make_stages(tmp_path_factory.mktemp("clips"), ["image left", "image right"])
    card = DatasetCard.read(folders[0] / "card.json")
    replace(card, frames=8, clip=CLIP).write(folders[0] / "card.json")
    gallery = pd.read_csv(folders[4] / "gallery.csv").assign(timeline=json.dumps(TIMELINE))
    gallery.to_csv(folders[4] / "gallery.csv", index=False)
    return build_report(*folders, folders[0].with_name("report"))


def test_the_page_speaks_of_clips_and_leaves_names_alone(report: Path) -> None:
    page = report.read_text(encoding="utf-8")
    for said in (
        "On 334 test clips this model",
        "share of clips predicted correctly",
        "chance that a clip of a class",
        "codecs",
    ):
        assert said in page, said
    assert "8 frames of each stored at" in page
    assert "image left" in page and "test images" not in page and "an clip" not in page
    card = (report.parent / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "| input | clips of 8 frames, resized" in card and "image right" in card and "test images" not in card


def test_a_line_under_each_strip_goes_over_the_views(report: Path) -> None:
    page = report.read_text(encoding="utf-8")
    assert page.count('<polyline class="answer" points="0.0,18.6 50.0,3.2 100.0,1.0"/>') == 6
    assert page.count('<polyline class="label" points="0.0,5.4 50.0,20.8 100.0,23.0"/>') == 6
    assert 'class="gallery strips"' in page and "Above the frames" in page
