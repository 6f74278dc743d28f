import re
import shutil
from html.parser import HTMLParser

import pandas as pd
import pytest
from making import make_stages

from stillframe.paths import read_json, write_json
from stillframe.reporting.inputs import page_image, read_inputs, read_table
from stillframe.reporting.page import build_report, confusion_counts
from stillframe.reporting.text import caveats, headline, verdict

CLASSES = ["functional", "defective"]
VOID = {"meta", "img", "link", "br"}


class Page(HTMLParser):
    """Collects links, sources and text; every element must be closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.sources, self.ids, self.links, self.text = [], [], [], [], ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.sources += [attrs[key] for key in ("src", "href") if key in attrs and not attrs[key].startswith("#")]
        self.links += [attrs["href"][1:] for key in ("href",) if attrs.get(key, "").startswith("#")]
        self.ids += [attrs["id"]] if "id" in attrs else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.text += data


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    return make_stages(tmp_path_factory.mktemp("stages"), CLASSES)


def copied(stages, tmp_path):
    return [shutil.copytree(folder, tmp_path / folder.name) for folder in stages]


def test_the_page_is_whole_self_contained_and_small(stages, tmp_path):
    params = tmp_path / "params.yaml"
    params.write_text("data: {columns: {group: null}}\nseed: 0  # <script>\n")
    path = build_report(*stages, tmp_path / "out", params=params, hashes={"train/outs/artifacts/train": "abc.dir"})
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert all(source.startswith("data:") for source in page.sources)
    assert "url(" not in text and "@import" not in text
    assert text.count("<script") == 1  # our own, for the links to sections; all else shows without it
    assert len(text) < 5_000_000
    assert len(page.sources) >= 6 + 6 + 4 + 1
    assert set(page.links) <= set(page.ids)
    assert {"data", "augmentation", "training", "validation", "test", "slices", "errors", "explain", "lineage"} <= set(
        page.ids
    )
    made = {file.name for file in (tmp_path / "out").iterdir()}
    figures = {"learning_curves", "confusion", "roc_pr", "reliability", "per_class", "class_balance"}
    assert made == {"report.html", "MODEL_CARD.md"} | {f"{name}.png" for name in figures}
    for words in (
        "images of one physical object",
        "truncated 3",
        "abc.dir",
        "HorizontalFlip",
        "quality bar",
        "Kept: epoch 7",
        "uncommitted changes",
        "images/a <b>.png",  # escaped in the page, and back here
        "poly",
    ):
        assert words in page.text, words
    assert "Not found when this page was made" not in page.text


def test_the_same_inputs_give_the_same_bytes(stages, tmp_path):
    first = build_report(*stages, tmp_path / "a").read_bytes()
    assert build_report(*stages, tmp_path / "b").read_bytes() == first


def test_the_headline_holds_the_figures_of_the_metrics(stages):
    found = read_inputs(*stages)
    text = headline(found).replace("\u00a0", " ")
    pattern = r"On 334 test images .* in ([\d.]+) % \[([\d.]+), ([\d.]+)\] of cases; .*“functional” .* in ([\d.]+) %\."
    accuracy, low, high, trivial = map(float, re.fullmatch(pattern, text).groups())
    table = pd.read_csv(stages[4] / "confusion.csv")
    assert accuracy == pytest.approx(100 * (table["actual"] == table["predicted"]).mean(), abs=0.05)
    assert trivial == pytest.approx(100 * (table["actual"] == "functional").mean(), abs=0.05)
    assert low < accuracy < high
    assert verdict(found)[0] == "good"


@pytest.mark.parametrize(("trivial", "mood"), [(0.2, "good"), (0.93, "doubt"), (1.0, "bad")])
def test_the_judgement_follows_the_interval(stages, tmp_path, trivial, mood):
    folders = copied(stages, tmp_path)
    write_json(folders[4] / "baseline.json", {"accuracy": trivial, "class": "functional"})
    assert read_json(folders[4] / "intervals.json")["accuracy"][0] < 0.93
    assert verdict(read_inputs(*folders))[0] == mood


def test_what_is_missing_is_left_out_and_named(stages, tmp_path):
    folders = copied(stages, tmp_path)
    for folder in folders[1:4]:
        shutil.rmtree(folder)
    for file in folders[4].iterdir():
        if file.is_dir():
            shutil.rmtree(file)
        elif file.name != "metrics.json":
            file.unlink()
    (folders[0] / "audit.json").unlink()
    params = tmp_path / "params.yaml"
    params.write_text("task: classification\n")  # model.json is missing, too
    page = Page(build_report(*folders, tmp_path / "out", params=params).read_text(encoding="utf-8"))
    for name in ("audit.json", "history.csv", "choices.json", "gallery.csv", "explain.csv", "policy.json"):
        assert name in page.text
    assert "no baseline to compare with" in page.text


def test_without_test_metrics_there_is_no_report(stages, tmp_path):
    folders = copied(stages, tmp_path)
    (folders[4] / "metrics.json").unlink()
    with pytest.raises(FileNotFoundError, match="metrics.json.*dvc repro"):
        build_report(*folders, tmp_path / "out")


def test_tables_that_do_not_fit_are_named(stages, tmp_path):
    folders = copied(stages, tmp_path)
    (folders[4] / "confusion.csv").write_text("actual,predicted\nfunctional,cat\n")
    with pytest.raises(ValueError, match=r"confusion.csv.*'cat'"):
        confusion_counts(read_inputs(*folders))
    (folders[4] / "slices.csv").write_text("")
    with pytest.raises(ValueError, match="slices.csv is not a table"):
        read_inputs(*folders)


def test_a_bar_that_is_not_met_leaks_and_worse_calibration_are_said(stages, tmp_path):
    folders = copied(stages, tmp_path)
    choices = read_json(folders[3] / "choices.json")
    rule = {"metric": "f1_macro", "least": 0.99, "value": 0.5, "passed": False}
    write_json(folders[3] / "choices.json", {**choices, "verdict": {"passed": False, "rules": [rule]}})
    audit = read_json(folders[0] / "audit.json")
    audit["leaks"] = {"near_pairs_across_splits": 3, "exact_across_splits": 0, "source_groups_across_splits": 2}
    write_json(folders[0] / "audit.json", audit)
    metrics = read_json(folders[4] / "metrics.json")
    write_json(folders[4] / "metrics.json", {**metrics, "ece": 0.2, "ece_uncalibrated": 0.1})
    notes = " ".join(caveats(read_inputs(*folders), {"data": {"columns": {"group": "module"}}}))
    assert "at least 0.99 is required" in notes
    assert "3 pairs of equal or nearly equal images" in notes
    assert "2 groups of the table" in notes
    assert "ECE 0.100 before, 0.200 after" in notes
    assert "one physical object" not in notes


def test_class_names_stay_text(tmp_path):
    (tmp_path / "a.csv").write_text("class,support,predicted,recall\n1,5,4,\nNA,6,7,0.5\ntrue,1,1,1.0\n")
    table = read_table(tmp_path / "a.csv")
    assert table["class"].tolist() == ["1", "NA", "true"]
    assert table["recall"].isna().tolist() == [True, False, False]
    assert table["predicted"].sum() == 12


def test_hostile_and_many_class_names(tmp_path):
    names = ["<script>alert(1)</script>", "$x$", "NA", *[f"type {at}" for at in range(27)]]
    stages = make_stages(tmp_path, names, samples=400, side=20)
    text = build_report(*stages, tmp_path / "out").read_text(encoding="utf-8")
    assert text.count("<script") == 1 and "<script>alert" not in text
    page = Page(text)
    assert "<script>alert(1)</script>" in page.text
    assert "table of all 30 classes" in page.text
    assert 'class="tiny"' in text  # pictures of 20 px are enlarged without smoothing


def test_large_pictures_are_made_smaller(tmp_path):
    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 256, (500, 1000, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "large.png")
    small = page_image(tmp_path / "large.png", most_px=200)
    assert (small.width, small.height, small.tiny) == (200, 100, False)
    assert small.uri.startswith("data:image/jpeg;base64,") and len(small.uri) < 40_000
    assert page_image(tmp_path / "none.png") is None


def test_the_exported_files_are_shown_with_their_price(stages, tmp_path):
    row = {"bytes": 1_200_000, "latency_ms_p50": 1.24, "latency_ms_p99": 2.0, "images_per_s": 1234.5}
    row |= {"metrics": {"accuracy": 0.9101, "f1_macro": 0.9}, "intervals": {"accuracy": [0.88, 0.93]}}
    row |= {"max_probability_difference": 2.4e-6, "changed_decisions": 1}
    rows = [{"name": "fp32", "file": "fp32.onnx", **row}, {"name": "tiny", "file": "model.onnx", **row}]
    facts = {"chosen": "tiny", "variants": rows, "model": {"metrics": {"accuracy": 0.9101}}, "images": 334}
    facts |= {"bound": {"probability": 0.01, "decisions": 0.001}, "threads": 2, "batch_size": 32}
    write_json(tmp_path / "export/export.json", facts)
    page = Page(build_report(*stages, tmp_path / "out", exported=tmp_path / "export").read_text(encoding="utf-8"))
    assert "export" in page.ids and "export" in page.links
    for words in (
        "tiny chosen",
        "1.20 MB",
        "1,234",
        "88.0 to 93.0",
        "334 raw test files",
        "2e-06",
        "1 decision differs",
    ):
        assert words in " ".join(page.text.split()), words
    assert "export" not in Page(build_report(*stages, tmp_path / "out").read_text(encoding="utf-8")).ids
