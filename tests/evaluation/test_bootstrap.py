import numpy as np
import pytest
from sklearn import metrics as sk

from predicted import bootstrap_intervals, classification_scores
from stillframe.evaluation.bootstrap import wilson
from stillframe.tasks.curves import RankedScores


def made(samples, classes, seed=0):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, samples)
    logits = np.round(rng.normal(size=(samples, classes)) + 1.5 * np.eye(classes)[label], 1)
    return label, np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


NAMES = ["a", "b", "c"]


def test_each_resample_has_the_scores_that_the_drawn_samples_have(monkeypatch):
    label, probabilities = made(60, 3)
    drawn = np.random.default_rng(5).integers(0, 60, (1, 60))

    class Fixed:
        def integers(self, *_):
            return drawn

    monkeypatch.setattr(np.random, "default_rng", lambda _: Fixed())
    got = bootstrap_intervals(label, probabilities, NAMES, 10, resamples=1, seed=0)
    wanted, _ = classification_scores(label[drawn[0]], probabilities[drawn[0]], NAMES, 10)
    assert set(got) == set(wanted)
    for name, (low, high) in got.items():
        assert low == high == pytest.approx(wanted[name], abs=1e-6), name


def test_area_of_weighted_and_tied_scores_is_that_of_scikit_learn():
    rng = np.random.default_rng(1)
    positive, score = rng.random(80) < 0.4, rng.integers(0, 9, 80) / 8
    times = rng.integers(0, 4, (3, 80)).astype(np.float32)
    wanted = [sk.roc_auc_score(positive, score, sample_weight=row) for row in times]
    assert RankedScores(positive, score).area(times) == pytest.approx(wanted, abs=1e-9)


def test_intervals_hold_the_score_repeat_and_narrow_with_more_samples():
    widths = []
    for samples in (200, 3200):
        label, probabilities = made(samples, 3)
        scores, _ = classification_scores(label, probabilities, NAMES, 10)
        intervals = bootstrap_intervals(label, probabilities, NAMES, 10, resamples=300, seed=7)
        assert intervals == bootstrap_intervals(label, probabilities, NAMES, 10, resamples=300, seed=7)
        assert intervals != bootstrap_intervals(label, probabilities, NAMES, 10, resamples=300, seed=8)
        assert set(intervals) == set(scores)
        for name in scores.keys() - {"ece"}:  # resampling makes the calibration error larger: known bias
            assert intervals[name][0] < scores[name] < intervals[name][1], name
        widths.append(intervals["accuracy"][1] - intervals["accuracy"][0])
        exact = 2 * 1.96 * np.sqrt(scores["accuracy"] * (1 - scores["accuracy"]) / samples)
        assert widths[-1] == pytest.approx(exact, rel=0.2)
    assert widths[1] < widths[0] / 3


def test_chunks_do_not_change_the_result(monkeypatch):
    label, probabilities = made(50, 3)
    whole = bootstrap_intervals(label, probabilities, NAMES, 10, resamples=40, seed=0)
    monkeypatch.setattr("stillframe.evaluation.bootstrap.CHUNK", 350)
    assert bootstrap_intervals(label, probabilities, NAMES, 10, resamples=40, seed=0) == whole


def test_undefined_metrics_have_no_interval():
    label, probabilities = np.zeros(20, dtype=int), np.full((20, 3), 1 / 3)
    intervals = bootstrap_intervals(label, probabilities, NAMES, 10, resamples=20, seed=0)
    assert "auroc" not in intervals
    assert "recall/b" not in intervals
    assert intervals["accuracy"] == (1.0, 1.0)
    assert bootstrap_intervals(label, probabilities, NAMES, 10, resamples=0, seed=0) == {}


def test_wilson_keeps_its_meaning_at_the_ends():
    low, high = wilson(10, 10)
    assert high == 1.0
    assert low == pytest.approx(0.7225, abs=1e-4)  # 10 / (10 + 1.96^2)
