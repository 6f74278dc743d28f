"""The page and the card of a model that answers masks, from what validate and evaluate write of a made split."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from making import make_training

from segmented import CHOICES, VALIDATE, Made, card, evaluate, validate, write_split
from stillframe.paths import write_json
from stillframe.reporting.inputs import read_inputs
from stillframe.reporting.page import build_report
from stillframe.reporting.text import headline, verdict


def make_stages(root: Path) -> list[Path]:
    """What the stages leave of made masks; the folders that a report is made of."""
    folders = [root / name for name in ("prepared", "augmented", "train", "validate", "evaluate")]
    prepared, _, trained, validated, evaluated = folders
    for folder in (prepared, validated, evaluated):
        folder.mkdir(parents=True)
    card().write(prepared / "card.json")
    make_training(trained, "segmentation")
    validate(Made(write_split(prepared / "val")), VALIDATE, card(), validated)
    write_json(validated / "choices.json", {**CHOICES, "notes": [], "verdict": {"passed": True, "rules": []}})
    evaluate(Made(write_split(prepared / "test")), evaluated, bootstrap=50)
    return folders


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_stages(tmp_path_factory.mktemp("masks"))


@pytest.fixture(scope="module")
def page(folders: list[Path]) -> str:
    return build_report(*folders, folders[0].with_name("report")).read_text(encoding="utf-8")


def test_the_headline_is_the_mean_iou_beside_the_background_everywhere(folders: list[Path], page: str) -> None:
    metrics, baseline = (json.loads((folders[4] / f"{n}.json").read_text()) for n in ("metrics", "baseline"))
    found = read_inputs(*folders)
    said = headline(found).replace("\u00a0", " ")
    assert said.startswith(f"On 7 test images this model's mean IoU is {100 * metrics['iou_macro']:.1f} % [")
    assert f"predicting “ground” everywhere would have {100 * baseline['iou_macro']:.1f} %." in said
    assert verdict(found)[0] == "good" and "pixels wrongly" in verdict(found)[1]
    assert "mean IoU" in re.findall(r"<h1>(.*?)</h1>", page)[0]


def test_the_worst_pictures_are_on_the_page_with_the_colours_of_the_classes(page: str) -> None:
    section = page[page.index('id="errors"') :]
    section = section[: section.index("</section>")]
    assert section.count("<img") == 3 and section.count("mean IoU <b>") == 3
    assert [name in section for name in ("#000000", "#800000", "#008000")] == [True] * 3


def test_nothing_of_labels_is_missed_or_shown(page: str) -> None:
    assert "roc.csv" not in page and "confusion.csv" not in page and "explain" not in page
    assert "IoU</th>" in page and "of the pixels answered with 80 %" in page


def test_the_card_says_what_is_answered_and_which_class_is_weakest(folders: list[Path], page: str) -> None:
    text = (folders[0].with_name("report") / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "for each pixel one of 3 classes" in text and "The class with the lowest IoU is" in text
    rows = [line for line in text.splitlines() if re.match(r"\| (ground|tree|road) \| [\d,]+ \| [\d.]+ %", line)]
    assert len(rows) == 3 and {line.count("|") for line in rows} == {9}
