import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import auc, average_precision_score, roc_auc_score

from predicted import TASK
from stillframe.evaluation.write_tables import read_table, write_csv, write_evaluation, write_plots, write_validation
from stillframe.tasks import find_task
from stillframe.tasks.calibration import softmax
from stillframe.tasks.curves import curve_points
from stillframe.types import DatasetCard

CLASSES = ["ant", "bee", "cat"]


def card(classes):
    counts = {split: {name: 10 + at for at, name in enumerate(classes)} for split in ("train", "val", "test")}
    return DatasetCard("made", classes, counts, 1, 8, 8, [0.5], [0.2], ["maker"], "0" * 64)


def predictions(samples, classes, temperature=1.5, seed=0):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, samples)
    logits = (2 * rng.normal(size=(samples, classes)) + 3 * np.eye(classes)[label]).astype(np.float32)
    probabilities = softmax(logits, temperature)
    return pd.DataFrame(
        {
            "index": np.arange(samples),
            "id": [f"{at}.png" for at in range(samples)],
            "label": label.astype(np.int32),
            "predicted": probabilities.argmax(1).astype(np.int32),
            "confidence": probabilities.max(1),
            "logits": list(logits),
            "probabilities": list(probabilities),
            "source_width": 64,
            "source_height": 64,
            "source_mode": "RGB",
            "slices": [json.dumps({"maker": "xy"[at % 2]}) for at in range(samples)],
        }
    )


CHOICES = {"bins": 10}
OPTIONS = {"seed": 0, "bootstrap": 100, "slices": ["maker", "mode"], "gallery": 5}


def test_all_tables_are_written_twice_alike_and_agree(tmp_path):
    table = predictions(300, 3)
    scores, gallery = write_evaluation(TASK, table, card(CLASSES), CHOICES, tmp_path / "a", **OPTIONS)
    write_evaluation(TASK, table, card(CLASSES), CHOICES, tmp_path / "b", **OPTIONS)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == sorted(
        "metrics.json intervals.json baseline.json notes.json per_class.csv confusion.csv roc.csv pr.csv "
        "reliability.csv slices.csv gallery.csv".split()
    )
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    assert json.loads((tmp_path / "a/metrics.json").read_text()) == scores
    confusion = pd.read_csv(tmp_path / "a/confusion.csv")
    assert (confusion["actual"] == confusion["predicted"]).mean() == pytest.approx(scores["accuracy"])
    per_class = pd.read_csv(tmp_path / "a/per_class.csv")
    assert per_class["recall"].mean() == pytest.approx(scores["recall_macro"])
    assert (per_class["recall_low"] < per_class["recall"]).all()
    assert pd.read_csv(tmp_path / "a/slices.csv")["n"].tolist() == [150, 150, 300]
    assert len(gallery) == 5


def test_the_reliability_table_gives_the_calibration_errors(tmp_path):
    scores, _ = write_evaluation(TASK, predictions(400, 3), card(CLASSES), CHOICES, tmp_path, **OPTIONS)
    table = pd.read_csv(tmp_path / "reliability.csv")
    for stage, name in (("before", "ece_uncalibrated"), ("after", "ece")):
        part = table[table["stage"] == stage]
        gap = (part["count"] * (part["confidence"] - part["accuracy"]).abs()).sum() / part["count"].sum()
        assert gap == pytest.approx(scores[name], abs=1e-8)
    assert scores["ece_uncalibrated"] != scores["ece"]


def test_thinned_curves_keep_their_area_and_ends():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 20_000)
    one = 1 / (1 + np.exp(-(rng.normal(size=20_000) + label)))
    roc, pr = curve_points(label, np.c_[1 - one, one], ["good", "bad"])
    for name, target, score in (("good", label == 0, 1 - one), ("bad", label == 1, one)):
        part = roc[roc["class"] == name]
        assert len(part) <= 200
        assert part[["x", "y"]].values[[0, -1]].tolist() == [[0, 0], [1, 1]]
        assert auc(part["x"], part["y"]) == pytest.approx(roc_auc_score(target, score), abs=1e-3)
        part = pr[pr["class"] == name]
        assert len(part) <= 200
        assert auc(part["x"], part["y"]) == pytest.approx(average_precision_score(target, score), abs=5e-3)


def test_one_class_only_makes_empty_curves_and_readable_files(tmp_path):
    table = predictions(30, 3)
    table = table[table["label"] == 0].reset_index(drop=True)
    scores, _ = write_evaluation(TASK, table, card(CLASSES), CHOICES, tmp_path, **OPTIONS)
    assert "auroc" not in scores
    assert len(pd.read_csv(tmp_path / "roc.csv")) == 0
    assert pd.read_csv(tmp_path / "per_class.csv")["recall"].isna().tolist() == [False, True, True]
    assert any("AUROC" in note for note in json.loads((tmp_path / "notes.json").read_text()))


def test_all_right_says_that_the_interval_has_no_width(tmp_path):
    table = predictions(120, 3)
    table["label"] = table["predicted"]
    write_evaluation(TASK, table, card(CLASSES), CHOICES, tmp_path, **OPTIONS)
    (note,) = json.loads((tmp_path / "notes.json").read_text())
    assert "96.9 to 100.0 %" in note
    assert len(pd.read_csv(tmp_path / "gallery.csv")) == 0


def test_an_empty_test_split_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="data.test_fraction"):
        write_evaluation(TASK, predictions(3, 3).head(0), card(CLASSES), CHOICES, tmp_path, **OPTIONS)


def test_validation_tables(tmp_path):
    scores = write_validation(TASK, predictions(100, 3), card(CLASSES), CHOICES, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "metrics.json",
        "notes.json",
        "reliability.csv",
        "confusion.csv",
    }
    assert scores["log_loss"] != scores["log_loss_uncalibrated"]
    assert scores["accuracy"] > 0.5


def test_a_class_that_is_always_found_is_said_to_be_no_certainty(tmp_path):
    table = predictions(150, 3)
    table.loc[table["label"] == 0, "predicted"] = 0
    write_evaluation(TASK, table, card(CLASSES), CHOICES, tmp_path, **OPTIONS)
    assert json.loads((tmp_path / "intervals.json").read_text())["recall/ant"] == [1.0, 1.0]
    assert any("no width" in note for note in json.loads((tmp_path / "notes.json").read_text()))


def test_plots_are_by_folder_and_an_empty_one_holds_an_empty_table(tmp_path):
    pairs = pd.DataFrame({"actual": ["1", "1", "NA"], "predicted": ["1", "NA", "NA"]})
    write_csv(tmp_path / "confusion.csv", pairs)
    bins = {"stage": ["before", "after"], "bin": [9, 8], "confidence": [0.95, 0.85], "accuracy": 0.8, "count": 3}
    write_csv(tmp_path / "reliability.csv", pd.DataFrame(bins))
    history = pd.DataFrame({"epoch": [0, 1], "val/accuracy": [0.5, None], "val/f1_macro": [0.4, 0.6], "lr": 0.1})
    write_csv(tmp_path / "history.csv", history)
    write_plots(find_task("classification"), tmp_path, "validation", tmp_path / "history.csv")
    titles = {path.relative_to(tmp_path / "plots").with_suffix("").as_posix() for path in tmp_path.glob("plots/*/*")}
    assert titles == {
        "confusion/Confusion, validation split",
        "curves/Reliability, validation split",
        "curves/Validation scores by epoch",
    }
    counts = read_table(tmp_path / "plots/confusion/Confusion, validation split.csv")
    assert counts.to_dict("list") == {"actual": ["1", "1", "NA"], "predicted": ["1", "NA", "NA"], "count": [1, 1, 1]}
    scores = read_table(tmp_path / "plots/curves/Validation scores by epoch.csv")
    assert scores["series"].tolist() == ["val/accuracy", "val/f1_macro", "val/f1_macro"]
