import json

import numpy as np
import pandas as pd
import pytest

from predicted import TASK
from stillframe.evaluation.slices import size_names, slice_table
from stillframe.evaluation.write_tables import gallery_table
from stillframe.tasks.classification.evaluation import baseline, suspected_label_errors
from stillframe.types import DatasetCard

CLASSES = ["good", "bad"]


def predictions(label, probability, **columns):
    probabilities = np.c_[1 - np.asarray(probability), probability]
    n = len(label)
    return pd.DataFrame(
        {
            "index": np.arange(n),
            "id": [f"img{at}.png" for at in range(n)],
            "label": np.asarray(label, dtype=np.int32),
            "predicted": probabilities.argmax(1).astype(np.int32),
            "confidence": probabilities.max(1),
            "probabilities": list(probabilities),
            "source_width": 300,
            "source_height": 300,
            "source_mode": "L",
            "slices": "{}",
            **columns,
        }
    )


def test_the_baseline_answers_the_most_frequent_train_class():
    card = DatasetCard("made", CLASSES, {"train": {"good": 3, "bad": 90}}, 1, 8, 8, [0.5], [0.2], [], "0" * 64)
    scores = baseline(pd.DataFrame({"label": [0, 0, 0, 1]}), card)
    assert scores["class"] == "bad"
    assert scores["accuracy"] == 0.25
    assert scores["recall/bad"] == 1.0
    assert scores["f1_macro"] == pytest.approx(0.2)


def test_sizes_go_into_buckets_by_the_shorter_side():
    assert size_names([31, 32, 5000, 300], [31, 900, 4000, 200]) == [
        "1-31 px",
        "32-63 px",
        "2048 px and more",
        "128-255 px",
    ]


def test_slices_by_column_size_and_mode():
    extra = [json.dumps({"maker": maker}) for maker in ("x", "x", "y", "y")]
    table = predictions([0, 1, 0, 1], [0.1, 0.9, 0.8, 0.9], slices=extra, source_width=[40, 40, 40, 300])
    got = slice_table(TASK, table, ["maker", "size", "mode"], CLASSES, resamples=0, seed=0)
    assert got[["slice", "value", "n"]].values.tolist() == [
        ["maker", "x", 2],
        ["maker", "y", 2],
        ["size", "32-63 px", 3],
        ["size", "256-511 px", 1],
        ["mode", "L", 4],
    ]
    assert got["accuracy"].tolist() == pytest.approx([1.0, 0.5, 2 / 3, 1.0, 0.75])
    assert (got["low"] < got["accuracy"]).all() and (got["high"] >= got["accuracy"]).all()
    assert got["f1_macro"][1] == pytest.approx(1 / 3)


def test_an_unknown_slice_is_an_error_and_missing_values_are_in_none():
    table = predictions([0, 1], [0.1, 0.9], slices=[json.dumps({"maker": None}), json.dumps({"maker": "x"})])
    with pytest.raises(ValueError, match="'makr'.*did you mean 'maker'"):
        slice_table(TASK, table, ["makr"], CLASSES, resamples=0, seed=0)
    assert slice_table(TASK, table, ["maker"], CLASSES, resamples=0, seed=0)["n"].tolist() == [1]
    assert slice_table(TASK, table, [], CLASSES, resamples=0, seed=0).columns.tolist()[:3] == ["slice", "value", "n"]


def test_wrong_labels_among_clear_answers_are_suspected():
    rng = np.random.default_rng(0)
    true = rng.integers(0, 3, 300)
    probabilities = np.full((300, 3), 0.05)
    probabilities[np.arange(300), true] = 0.9
    label = true.copy()
    label[:6] = (true[:6] + 1) % 3
    assert np.flatnonzero(suspected_label_errors(label, probabilities)).tolist() == list(range(6))
    unsure = np.full((300, 3), 1 / 3)
    unsure[:6] = probabilities[:6] * 0.3 + 0.7 / 3
    assert not suspected_label_errors(true, unsure).any()


def test_the_most_confident_error_comes_first():
    table = predictions([0, 0, 1, 1, 0], [0.6, 0.97, 0.9, 0.2, 0.1])
    got = gallery_table(TASK, table, CLASSES, 2)
    assert got["id"].tolist() == ["img1.png", "img3.png"]
    assert got["file"].tolist() == ["gallery/001.png", "gallery/002.png"]
    assert got["rank"].tolist() == [1, 2]
    assert got["actual"].tolist() == ["good", "bad"]
    assert got["predicted"].tolist() == ["bad", "good"]
    assert got["suspected_label_error"].dtype == bool
    assert len(gallery_table(TASK, predictions([0], [0.1]), CLASSES, 5)) == 0
