"""A made task that predicts two numbers: the same engine scores, resamples, slices and compares it."""

import json
import sys
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from stillframe.evaluation import comparison
from stillframe.evaluation.bootstrap import make_scorer, scores_of
from stillframe.evaluation.slices import slice_table
from stillframe.evaluation.write_tables import write_evaluation, write_validation
from stillframe.tasks.base import Metric, ReportText, Task
from stillframe.types import DatasetCard

NAMES = ["height", "width"]
METRICS = (
    Metric("mae", "Mean absolute error", "", maximize=False, percent=False),
    Metric("r2", "R²", "", percent=False),
    Metric("mae", "Mean absolute error", "", maximize=False, percent=False, per_class=True),
)
TASK = Task("made", "made_regression", METRICS, "mae", ("mae", "r2"), ReportText())


def errors_of(predictions):
    return np.stack(predictions["predicted"].to_list()) - np.stack(predictions["target"].to_list())


def statistics(predictions, names, choices):
    target_ND, error_ND = np.stack(predictions["target"].to_list()), errors_of(predictions)
    sums = {"n": np.ones(len(predictions)), "absolute": abs(error_ND), "square": error_ND**2}
    return sums | {"target": target_ND, "target_square": target_ND**2}


def scores(sums, names):
    count = sums["n"][:, None]
    mae, variance = sums["absolute"] / count, sums["target_square"] / count - (sums["target"] / count) ** 2
    r2 = 1 - sums["square"] / count / variance
    by_name = {f"mae/{name}": mae[:, k] for k, name in enumerate(names)}
    return {"mae": mae.mean(1), "r2": r2.mean(1), **by_name}


@pytest.fixture(autouse=True)
def task(monkeypatch):
    """The made task's parts, importable."""
    part = ModuleType("made_regression.evaluation")
    part.SLICE_METRICS, part.COMPARED, part.TARGET, part.TUNED = ("mae", "r2"), ("target", "predicted"), ("target",), ()
    part.SAMPLE_SCORE, part.statistics, part.scores = "negative error", statistics, scores
    part.names = lambda card: NAMES
    part.rank_scores = lambda predictions, names: None
    part.point_scores = lambda predictions, names, choices: {}
    part.sample_scores = lambda predictions: -abs(errors_of(predictions)).mean(1)
    part.baseline = lambda predictions, card: {"mae": 1.0, "class": "the mean"}
    part.notes = lambda predictions, names, scores: []
    part.tables = lambda predictions, names, choices: {}
    part.test_tables = lambda predictions, names, scores, intervals: {}
    part.errors = lambda predictions, names, most: predictions.iloc[np.argsort(part.sample_scores(predictions))[:most]][
        ["index", "id"]
    ].reset_index(drop=True)
    monkeypatch.setitem(sys.modules, "made_regression", ModuleType("made_regression"))
    monkeypatch.setitem(sys.modules, "made_regression.evaluation", part)
    return part


def predictions(noise, seed=0, samples=200):
    rng = np.random.default_rng(7)
    target = rng.normal(size=(samples, 2)) * [1.0, 3.0]
    predicted = target + noise * np.random.default_rng(seed).normal(size=target.shape)
    source = {"source_width": 64, "source_height": 64, "source_mode": "RGB"}
    slices = [json.dumps({"maker": "xy"[i % 2]}) for i in range(samples)]
    columns = {"index": np.arange(samples), "id": [f"{i:03d}" for i in range(samples)], "slices": slices, **source}
    return pd.DataFrame({**columns, "target": list(target), "predicted": list(predicted)})


def test_scores_are_those_of_scikit_learn():
    table = predictions(0.5)
    target, predicted = (np.stack(table[name].to_list()) for name in ("target", "predicted"))
    got = scores_of(TASK, table, NAMES)
    assert got["mae"] == pytest.approx(sk.mean_absolute_error(target, predicted))
    assert got["r2"] == pytest.approx(sk.r2_score(target, predicted))
    assert got["mae/width"] == pytest.approx(sk.mean_absolute_error(target[:, 1], predicted[:, 1]))


def test_two_models_are_compared_in_a_metric_of_which_less_is_better():
    good, bad = predictions(0.5, 1), predictions(0.7, 2)
    assert comparison.comparable_metrics(TASK, good, NAMES) == ["mae", "r2"]
    scorers = [make_scorer(TASK, table, NAMES) for table in (good, bad)]
    gap = comparison.paired_difference(*scorers, len(good), "mae", resamples=500, seed=0)
    assert gap.mean < 0 and gap.verdict(more_is_better=False) == comparison.BETTER
    test = comparison.mcnemar(*(TASK.evaluation.sample_scores(table) for table in (good, bad)))
    assert test.first > test.second and test.p < 0.01
    assert comparison.count_target_mismatches(TASK, good, bad, NAMES) == 0
    other = good.assign(target=[good["target"][0] + 1, *good["target"][1:]])
    assert comparison.count_target_mismatches(TASK, good, other, NAMES) == 1


def test_slices_have_bootstrap_intervals_of_their_own_samples():
    table = slice_table(TASK, predictions(0.5), ["maker", "mode"], NAMES, resamples=200, seed=0)
    assert table["n"].tolist() == [100, 100, 200]
    part = predictions(0.5).iloc[::2]
    assert table["mae"][0] == pytest.approx(abs(errors_of(part)).mean())
    assert (table["low"] < table["mae"]).all() and (table["mae"] < table["high"]).all()


def test_all_tables_are_written(tmp_path):
    card = DatasetCard("made", [], {}, 1, 8, 8, [0.5], [0.2], [], "0" * 64)
    options = {"seed": 0, "bootstrap": 100, "slices": ["maker"], "gallery": 3}
    metrics, gallery = write_evaluation(TASK, predictions(0.5), card, {}, tmp_path / "test", **options)
    assert write_validation(TASK, predictions(0.5), card, {}, tmp_path / "val") == metrics
    intervals = json.loads((tmp_path / "test/intervals.json").read_text())
    assert set(intervals) == set(metrics) == {"mae", "r2", "mae/height", "mae/width"}
    assert all(low < metrics[name] < high for name, (low, high) in intervals.items())
    assert gallery["file"].tolist() == ["gallery/001.png", "gallery/002.png", "gallery/003.png"]
