import numpy as np
import pytest
from sklearn.metrics import f1_score, log_loss

from stillframe.tasks.calibration import best_threshold, decide, fit_temperature, softmax


def test_softmax_sums_to_one_and_heat_flattens():
    probabilities = softmax([[1000.0, 999.0, -1000.0]])
    assert probabilities.sum() == pytest.approx(1.0)
    assert softmax([[1000.0, 999.0]], 10.0)[0, 0] == pytest.approx(1 / (1 + np.exp(-0.1)))
    with pytest.raises(ValueError, match="temperature = 0.0"):
        softmax([[1.0, 2.0]], 0.0)


@pytest.mark.parametrize("true", [0.4, 1.0, 3.0])
def test_the_temperature_that_made_the_labels_is_found(true):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 4)) * 3
    label = (logits / true + rng.gumbel(size=logits.shape)).argmax(1)
    found = fit_temperature(logits, label)
    assert found.value == pytest.approx(true, rel=0.06)
    assert found.note == ""
    best = log_loss(label, softmax(logits, found.value))
    assert best <= min(log_loss(label, softmax(logits, found.value * factor)) for factor in (0.97, 1.03))


@pytest.mark.parametrize(
    ("logits", "label", "why"),
    [
        (np.eye(2)[[0, 1] * 10], [0, 1] * 10, "20 validation images are too few"),
        (np.eye(2)[[0, 1] * 20], [0] * 40, "one class only"),
        (np.eye(2)[[0, 1] * 20], [0, 1] * 20, "no wrong answer"),
    ],
)
def test_a_split_that_cannot_say_leaves_the_temperature_at_one(logits, label, why):
    found = fit_temperature(logits, label)
    assert found.value == 1.0
    assert why in found.note


def test_chance_answers_reach_the_bound_and_say_so():
    rng = np.random.default_rng(0)
    found = fit_temperature(rng.normal(size=(500, 2)) * 10 * [1, -1], rng.permutation([0, 1] * 250))
    assert "bound" in found.note


def test_the_best_threshold_is_the_best_of_all():
    rng = np.random.default_rng(3)
    label = (rng.random(300) < 0.15).astype(int)
    probability = np.round(np.clip(0.1 + 0.3 * label + rng.normal(size=300) * 0.15, 0, 1), 2)
    found = best_threshold(label, probability)
    every = [f1_score(label, probability >= cut, average="macro") for cut in np.arange(0.005, 1, 0.01)]
    reached = f1_score(label, decide(np.c_[1 - probability, probability], found.value), average="macro")
    assert reached == pytest.approx(max(every))
    assert reached > f1_score(label, probability >= 0.5, average="macro")
    assert found.note == ""


def test_a_threshold_that_cannot_be_tuned_stays_a_half():
    assert best_threshold([0, 1], [0.2, 0.3]).value == 0.5
    assert "same probability" in best_threshold([0, 1] * 20, [0.7] * 40).note


def test_decisions():
    probabilities = [[0.7, 0.3], [0.4, 0.6]]
    assert decide(probabilities).tolist() == [0, 1]
    assert decide(probabilities, 0.3).tolist() == [1, 1]
    with pytest.raises(ValueError, match="two classes, not 3"):
        decide([[0.2, 0.3, 0.5]], 0.4)
