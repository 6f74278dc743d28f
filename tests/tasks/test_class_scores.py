import numpy as np
import pytest
from sklearn import metrics as sk

from predicted import TASK, classification_scores
from stillframe.sweeps.settings import objective_metric
from stillframe.tasks.class_scores import confusion, confusion_scores
from stillframe.tasks.classification import METRICS

CLASSES = ["ant", "bee", "cat", "dog"]


def made(samples, classes, seed=0, strength=1.5):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, samples)
    logits = rng.normal(size=(samples, classes)) + strength * np.eye(classes)[label]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return label, probabilities


def test_scores_equal_those_of_scikit_learn():
    label, probabilities = made(500, 4)
    predicted = probabilities.argmax(1)
    scores, notes = classification_scores(label, probabilities, CLASSES, 15)
    wanted = {
        "accuracy": sk.accuracy_score(label, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(label, predicted),
        "precision_macro": sk.precision_score(label, predicted, average="macro"),
        "recall_macro": sk.recall_score(label, predicted, average="macro"),
        "f1_macro": sk.f1_score(label, predicted, average="macro"),
        "f1_weighted": sk.f1_score(label, predicted, average="weighted"),
        "auroc": sk.roc_auc_score(label, probabilities, multi_class="ovr"),
        "log_loss": sk.log_loss(label, probabilities),
    }
    for kind in ("precision", "recall", "f1"):
        each = getattr(sk, f"{kind}_score")(label, predicted, average=None)
        wanted |= {f"{kind}/{name}": value for name, value in zip(CLASSES, each, strict=True)}
    for name, value in wanted.items():
        assert scores[name] == pytest.approx(value, abs=1e-6), name
    assert set(scores) == set(wanted) | {"ece", "brier"}
    assert notes == []


def test_two_classes_score_class_one_and_a_threshold_changes_decisions_only():
    label, probabilities = made(400, 2)
    predicted = (probabilities[:, 1] > 0.3).astype(int)
    scores, _ = classification_scores(label, probabilities, ["good", "bad"], 10, predicted)
    assert scores["auroc"] == pytest.approx(sk.roc_auc_score(label, probabilities[:, 1]), abs=1e-6)
    assert scores["brier"] == pytest.approx(sk.brier_score_loss(label, probabilities[:, 1]), abs=1e-6)
    assert scores["f1/bad"] == pytest.approx(sk.f1_score(label, predicted), abs=1e-6)
    plain, _ = classification_scores(label, probabilities, ["good", "bad"], 10)
    assert plain["f1/bad"] != scores["f1/bad"]
    assert plain["ece"] == scores["ece"]


@pytest.mark.parametrize(("classes", "bins"), [(2, 15), (4, 15), (4, 7)])
def test_calibration_error_equals_that_of_torchmetrics(classes, bins):
    import torch
    from torchmetrics.classification import MulticlassCalibrationError

    label, probabilities = made(700, classes, strength=2.5)
    probabilities = np.vstack([probabilities, np.eye(classes)])  # confidences on an edge
    label = np.r_[label, np.arange(classes)]
    theirs = MulticlassCalibrationError(classes, n_bins=bins, norm="l1")
    # torchmetrics bins in float32: so that no sample changes its bin by rounding, both get float32 values
    probabilities = probabilities.astype(np.float32)
    wanted = theirs(torch.from_numpy(probabilities), torch.from_numpy(label)).item()
    names = CLASSES[:classes]
    assert classification_scores(label, probabilities, names, bins)[0]["ece"] == pytest.approx(wanted, abs=1e-6)


def test_a_confusion_matrix_alone_gives_the_same_scores():
    label, probabilities = made(300, 4)
    scores, _ = classification_scores(label, probabilities, CLASSES, 15)
    fast = confusion_scores(confusion(label, probabilities.argmax(1), 4), CLASSES, METRICS)
    assert fast == {name: scores[name] for name in fast}
    assert len(fast) == 6 + 3 * 4
    assert (
        confusion(label, probabilities.argmax(1), 4).tolist()
        == sk.confusion_matrix(label, probabilities.argmax(1)).tolist()
    )


def test_a_class_missing_from_the_split_is_left_out_and_named():
    label, probabilities = made(200, 4)
    held = label != 2
    label, probabilities = label[held], probabilities[held]
    scores, notes = classification_scores(label, probabilities, CLASSES, 15)
    assert "recall/cat" not in scores
    assert np.isfinite(list(scores.values())).all()
    present = [0, 1, 3]
    predicted = probabilities.argmax(1)
    assert scores["f1_macro"] == pytest.approx(sk.f1_score(label, predicted, labels=present, average="macro"))
    assert scores["recall_macro"] == scores["balanced_accuracy"]
    assert any("'cat'" in note for note in notes)
    wanted = np.mean([sk.roc_auc_score(label == at, probabilities[:, at]) for at in present])
    assert scores["auroc"] == pytest.approx(wanted, abs=1e-6)


def test_one_class_only_has_no_auroc_and_says_so():
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8]])
    scores, notes = classification_scores([0, 0], probabilities, ["good", "bad"], 5)
    assert "auroc" not in scores
    assert scores["accuracy"] == 0.5
    assert scores["precision/good"] == 1.0
    assert "recall/bad" not in scores
    assert any("AUROC" in note for note in notes)


def test_a_class_that_is_never_answered_has_precision_zero_and_a_note():
    scores, notes = classification_scores([0, 1, 1], [[0.9, 0.1]] * 3, ["good", "bad"], 5)
    assert scores["precision/bad"] == scores["recall/bad"] == scores["f1/bad"] == 0.0
    assert any("never answers 'bad'" in note for note in notes)


def test_impossible_input_is_refused():
    with pytest.raises(ValueError, match="empty"):
        classification_scores([], np.zeros((0, 2)), ["good", "bad"], 5)
    with pytest.raises(ValueError, match=r"\(2, 3\), not \(2, 2\)"):
        classification_scores([0, 1], np.full((2, 3), 1 / 3), ["good", "bad"], 5)
    with pytest.raises(ValueError, match="NaN"):
        classification_scores([0, 1], [[np.nan, 1.0], [0.5, 0.5]], ["good", "bad"], 5)


def test_a_certain_and_wrong_answer_has_a_finite_log_loss():
    scores, _ = classification_scores([0, 1], [[0.0, 1.0], [0.0, 1.0]], ["good", "bad"], 5)
    assert 10 < scores["log_loss"] < 20


def test_the_metric_to_monitor_is_checked_by_name():
    TASK.metric("f1_macro", CLASSES, monitored=True)
    TASK.metric("recall/dog", CLASSES, monitored=True)
    with pytest.raises(ValueError, match=r"trainer.monitor = 'f1_marco'.*'f1_macro'"):
        TASK.metric("f1_marco", CLASSES, monitored=True, key="trainer.monitor")
    with pytest.raises(ValueError, match="'recall/dog'"):
        TASK.metric("recall/dogs", CLASSES, monitored=True)


def test_direction_of_metrics():
    assert TASK.metric("accuracy").maximize
    assert TASK.metric("recall/loss", ["loss"]).maximize  # a class may have any name
    assert not TASK.metric("loss").maximize
    assert not objective_metric("val/loss", TASK).maximize
