"""Repeats and differences against scipy's own answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from predicted import image_spread, paired_images
from stillframe.evaluation import comparison
from stillframe.evaluation.comparison import BETTER, SAME, UNKNOWN, WORSE, Difference

FIRST = [0.912, 0.931, 0.905, 0.921, 0.917]
SECOND = [0.903, 0.915, 0.901, 0.909, 0.913]


def answers(seed: int, images: int, right: float) -> tuple[np.ndarray, np.ndarray]:
    """Labels of four uneven classes, and answers of which about `right` are right."""
    rng = np.random.default_rng(seed)
    label = rng.choice(4, images, p=[0.4, 0.3, 0.2, 0.1])
    wrong = rng.random(images) > right
    return label, np.where(wrong, (label + rng.integers(1, 4, images)) % 4, label)


def test_the_interval_of_a_mean_is_students() -> None:
    found = comparison.spread_of(FIRST)
    known = stats.ttest_1samp(FIRST, 0.0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((known.low, known.high))
    assert found.deviation == pytest.approx(np.std(FIRST, ddof=1)) and found.count == 5


def test_the_interval_of_a_paired_difference_is_students() -> None:
    found = comparison.paired_repeats(FIRST, SECOND)
    known = stats.ttest_rel(FIRST, SECOND).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((known.low, known.high))
    assert found.verdict(more_is_better=True) == BETTER


def test_folds_get_the_corrected_variance() -> None:
    """The interval ends at 0 exactly where the corrected resampled t statistic is at its 5 % point."""
    gap = np.array(FIRST) - np.array(SECOND)
    statistic = gap.mean() / math.sqrt((1 / 5 + 1 / 4) * gap.var(ddof=1))
    found = comparison.paired_repeats(FIRST, SECOND, comparison.overlap_of_folds(5))
    assert (found.low > 0) == (2 * stats.t.sf(statistic, 4) < 0.05)
    half = (found.high - found.low) / 2
    assert half == pytest.approx(stats.t.ppf(0.975, 4) * gap.mean() / statistic)
    plain = comparison.paired_repeats(FIRST, SECOND)
    assert half / ((plain.high - plain.low) / 2) == pytest.approx(math.sqrt((1 / 5 + 1 / 4) / (1 / 5)))


def test_one_run_and_equal_runs_have_no_interval() -> None:
    assert math.isnan(comparison.spread_of([0.9]).low) and math.isnan(comparison.spread_of([0.9]).deviation)
    equal = comparison.spread_of([0.9, 0.9, 0.9])
    assert equal.deviation == 0 and math.isnan(equal.low)
    assert comparison.paired_repeats([0.9, 0.8], [0.8, 0.7]).verdict(more_is_better=True) == SAME


def test_the_interval_of_a_runs_accuracy_is_the_binomials() -> None:
    label, said = answers(0, 400, 0.85)
    found = image_spread(label, said, 4, "accuracy", resamples=40_000, seed=1)
    share = float((label == said).mean())
    known = stats.binom.ppf([0.025, 0.975], 400, share) / 400
    assert (found.low, found.high) == pytest.approx(known, abs=0.0026)  # a step of 1/400
    assert found.mean == share


def test_the_interval_of_macro_f1_is_the_bootstrap_over_images() -> None:
    label, said = answers(1, 300, 0.8)

    def f1(truth: np.ndarray, answer: np.ndarray) -> float:
        from sklearn.metrics import f1_score

        return float(f1_score(truth, answer, average="macro"))

    found = image_spread(label, said, 4, "f1_macro", resamples=20_000, seed=1)
    rng = np.random.default_rng(3)
    known = stats.bootstrap(
        (label, said), f1, paired=True, vectorized=False, n_resamples=600, method="percentile", rng=rng
    ).confidence_interval
    assert found.mean == pytest.approx(f1(label, said))
    assert (found.low, found.high) == pytest.approx((known.low, known.high), abs=0.01)


@pytest.mark.parametrize("metric", ["accuracy", "f1_macro"])
def test_the_paired_bootstrap_is_scipys(metric: str) -> None:
    from sklearn.metrics import accuracy_score, f1_score

    label, first = answers(2, 300, 0.9)
    second = np.where(np.random.default_rng(5).random(300) < 0.1, (label + 1) % 4, first)

    def gap(truth: np.ndarray, one: np.ndarray, other: np.ndarray) -> float:
        if metric == "accuracy":
            return float(accuracy_score(truth, one) - accuracy_score(truth, other))
        return float(f1_score(truth, one, average="macro") - f1_score(truth, other, average="macro"))

    found = paired_images(label, first, second, 4, metric, resamples=20_000, seed=1)
    rng = np.random.default_rng(3)
    known = stats.bootstrap(
        (label, first, second), gap, paired=True, vectorized=False, n_resamples=600, method="percentile", rng=rng
    ).confidence_interval
    assert found.mean == pytest.approx(gap(label, first, second))
    assert (found.low, found.high) == pytest.approx((known.low, known.high), abs=0.01)


def test_a_paired_difference_is_sharper_than_two_intervals() -> None:
    """The same images are hard for both: a difference shows that the two intervals, which overlap, would hide."""
    label, first = answers(3, 500, 0.85)
    second = first.copy()
    second[np.flatnonzero(first == label)[:12]] += 1
    second %= 4
    gap = paired_images(label, first, second, 4, "accuracy", resamples=4000, seed=1)
    one, other = (image_spread(label, said, 4, "accuracy", resamples=4000, seed=1) for said in (first, second))
    assert other.high > one.low, "the intervals overlap"
    assert gap.verdict(more_is_better=True) == BETTER
    turned = paired_images(label, second, first, 4, "accuracy", resamples=4000, seed=1)
    assert turned.verdict(more_is_better=True) == WORSE and turned.mean == -gap.mean


def test_equal_settings_are_seldom_called_different() -> None:
    """Two models of the same quality: 5 % by construction; 60 of 600 would be 10 %."""
    called = 0
    for seed in range(300):
        label, first = answers(2 * seed, 200, 0.85)
        wrong = np.random.default_rng(9000 + seed).random(200) > 0.85
        second = np.where(wrong, (label + 1) % 4, label)
        gap = paired_images(label, first, second, 4, "accuracy", resamples=400, seed=seed)
        called += gap.verdict(more_is_better=True) != SAME
    assert 1 <= called <= 30


def test_the_same_seed_gives_the_same_interval() -> None:
    label, said = answers(4, 100, 0.7)
    twice = [image_spread(label, said, 4, "f1_macro", resamples=500, seed=7) for _ in range(2)]
    assert twice[0] == twice[1]


def test_a_perfect_run_has_no_interval_from_its_images() -> None:
    label, _ = answers(4, 100, 0.7)
    assert math.isnan(image_spread(label, label, 4, "accuracy", resamples=500, seed=7).low)
    assert paired_images(label, label, label, 4, "accuracy", resamples=500, seed=7).verdict(True) == SAME


def test_verdicts() -> None:
    assert Difference(0.2, 0.1, 0.3, "repeats").verdict(more_is_better=False) == WORSE
    assert Difference(-0.2, -0.3, -0.1, "repeats").verdict(more_is_better=False) == BETTER
    assert Difference(0.2, 0.0, 0.4, "repeats").verdict(more_is_better=True) == SAME
    assert Difference(0.2, math.nan, math.nan, "one run").verdict(more_is_better=True) == SAME
    assert Difference(math.nan, math.nan, math.nan, "other images").verdict(more_is_better=True) == UNKNOWN


def test_pareto_front() -> None:
    points = [(0.9, 10.0), (0.8, 5.0), (0.8, 6.0), (0.95, 10.0), (0.7, 20.0)]
    assert comparison.pareto(points, [True, False]).tolist() == [False, True, False, True, False]
    assert comparison.pareto([(0.9, 1.0), (0.9, 1.0)], [True, False]).tolist() == [True, True], "equals beat nobody"
    assert comparison.pareto([], [True, False]).tolist() == []


def test_mcnemar_counts_and_is_exact():
    label = np.zeros(20, dtype=int)
    first, second = label.copy(), label.copy()
    second[:6] = 1  # the first alone is right on six
    first[6] = 1  # the second alone on one
    first[7:9] = second[7:9] = 1  # both are wrong: says nothing
    found = comparison.mcnemar(first == label, second == label)
    assert (found.first, found.second) == (6, 1)
    assert found.p == pytest.approx(2 * (1 + 7) / 2**7), "two-sided binomial of 7 fair coins"
    assert comparison.mcnemar(first == label, first == label).p == 1.0
