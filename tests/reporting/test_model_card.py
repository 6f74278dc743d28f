"""The model card: made from the record, whole with little of it, and no text of a user's becomes markup."""

import re
from pathlib import Path

import pytest
import yaml
from making import make_stages

from stillframe.models.licence import licence_of
from stillframe.paths import read_json
from stillframe.reporting import model_card
from stillframe.reporting.page import build_report

ROOT = Path(__file__).parents[2]
HEADINGS = [
    *("The model", "The data", "Scores", "Slices", "Calibration and decision", "Limits that were seen"),
    *("What the record cannot say", "Lineage"),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder of the stages, the card)."""
    root = tmp_path_factory.mktemp("card")
    stages = make_stages(root, ["functional", "<b>bad</b> | `x`"])
    build_report(*stages, root / "out", params=ROOT / "params.yaml", hashes={"train/outs/artifacts/train": "abc.dir"})
    return root, (root / "out/MODEL_CARD.md").read_text(encoding="utf-8")


def rows(text, heading):
    """Cells of the tables of a section."""
    section = text.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ") and line.strip("| ")]
    return [[part.strip() for part in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_the_card_says_what_the_record_says(made):
    root, text = made
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == HEADINGS
    metrics, bounds = (read_json(root / "evaluate" / f"{name}.json") for name in ("metrics", "intervals"))
    score = {row[0]: row for row in rows(text, "Scores")}["Accuracy"]
    low, high = bounds["accuracy"]
    assert score[1:3] == [f"{100 * metrics['accuracy']:.1f} %", f"{100 * low:.1f} to {100 * high:.1f} %"]
    facts, params = dict(row for row in rows(text, "The model") if len(row) == 2), yaml.safe_load(
        (ROOT / "params.yaml").read_text(encoding="utf-8")
    )  # fmt: skip
    assert facts["net"].replace("\\", "") == params["model"]["name"] and facts["seed"] == "0"
    assert facts["optimizer"].startswith("AdamW, rate 0.001, weight decay 0.01, one")
    assert facts["licence of the weights"].startswith("not stated by the package efficientnet-lite0")
    found = read_json(root / "prepared/card.json")
    assert found["split_hash"] in text and params["data"]["fetch"]["sha256"] in text
    run = read_json(root / "train/run.json")
    assert f"stillframe verify {run['run_id']}" in text and run["git_commit"] in text and "`abc.dir`" in text
    assert "with uncommitted changes" in text


def test_the_weak_points_are_those_of_the_tables(made):
    root, text = made
    import pandas as pd

    per_class, slices = (pd.read_csv(root / "evaluate" / f"{name}.csv") for name in ("per_class", "slices"))
    assert f"{100 * per_class['recall'].min():.1f} % of its" in text
    worst = slices.loc[slices["accuracy"].idxmin()]
    assert f"The weakest slice is {worst['slice']} = {worst['value']}" in text
    assert "The most frequent mistake: “" in text and "The data names no groups" in text


def test_names_of_the_user_are_no_markup(made):
    _, text = made
    assert "<b>" not in text and "&lt;b&gt;bad&lt;/b&gt; \\| \\`x\\`" in text
    widths = {len(row) for row in rows(text, "Slices")}
    assert widths == {6}, "every row has its six cells"


def test_the_page_has_the_card_too(made):
    root, _ = made
    page = (root / "out/report.html").read_text(encoding="utf-8")
    section = page.split('<section id="card">')[1].split("</section>")[0]
    assert "MODEL_CARD.md" in section and "licence of the weights" in section and "The weakest slice" in section
    assert '<a href="#card">' in page and "<b>bad" not in section


def test_little_of_the_record_is_still_a_card(tmp_path):
    stages = make_stages(tmp_path, ["a", "b"])
    for name in ("validate/choices.json", "train/run.json", "train/summary.json", "evaluate/slices.csv"):
        (tmp_path / name).unlink()
    build_report(*stages, tmp_path / "out")
    text = (tmp_path / "out/MODEL_CARD.md").read_text(encoding="utf-8")
    assert "No record of the run was found." in text and "Not recorded." in text and "## Slices" not in text
    assert model_card.source({}) == model_card.UNKNOWN in text


def test_where_the_images_came_from():
    fetch = {"kind": "url", "name": "https://x/y.zip", "sha256": "ab"}
    assert model_card.source({"data": {"fetch": fetch}}) == "url https://x/y.zip, sha256 ab"
    assert model_card.source({"data": {"fetch": None, "path": "/photos"}}) == "the user's own folder /photos"


def test_the_licence_of_weights_is_what_their_source_says():
    assert licence_of(None, "resnet18").startswith("no pretrained weights")
    assert licence_of("package:timm/x.pth", "x").startswith("Apache-2.0, says the package timm ")
    assert licence_of("package:no_such_thing/x.pth", "x").startswith("not known: the package of no_such_thing")
    assert licence_of("/mine/best.safetensors", "x") == "not known: /mine/best.safetensors is a file of the user's"
    assert licence_of("hub", "resnet18").startswith("apache-2.0, says timm of timm/resnet18")
    assert licence_of("hub", "no_such_net") == "not stated by timm for no_such_net"
