"""Scores, thresholds and tables of multi-label predictions, held against scikit-learn."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from stillframe.config import ValidateConfig
from stillframe.evaluation.bootstrap import draws, make_scorer
from stillframe.evaluation.write_tables import read_table, rounded_scores, write_evaluation, write_plots
from stillframe.tasks import find_task
from stillframe.types import DatasetCard

TASK = find_task("multilabel")
EVALUATION = TASK.evaluation
CLASSES = ["ant", "bee, wild", "NA", "never"]
CHOICES = {"temperature": 1.3, "thresholds": [0.3, 0.5, 0.7, 0.5], "bins": 10}
COUNTS = {split: {"ant": 70, "bee, wild": 20, "NA": 10, "never": 1} for split in ("train", "val", "test")}
CARD = DatasetCard("made", CLASSES, COUNTS, 1, 8, 8, [0.5], [0.2], ["maker"], "0" * 64, target={"train_samples": 100})
VALIDATE = ValidateConfig(batch_size=3, tta="none", calibrate=True, threshold="auto", bins=10, require={})


def raw(samples=300, seed=0, never=False):
    """Logits of 4 labels, of which the last is never there unless `never`; some logits are equal."""
    rng = np.random.default_rng(seed)
    labels = rng.random((samples, 4)) < (0.6, 0.3, 0.1, 0.2 if never else 0.0)
    logits = (
        np.round(rng.normal(size=labels.shape) + 2.0 * labels - 1.0, 1).astype(np.float32) + 0.03
    )  # none on an edge
    table = pd.DataFrame({"index": np.arange(samples), "id": [f"{i}.png" for i in range(samples)]})
    return table.assign(
        labels=list(labels),
        logits=list(logits),
        source_width=64,
        source_height=64,
        source_mode="RGB",
        slices=[json.dumps({"maker": "xy"[i % 2]}) for i in range(samples)],
    )


@pytest.fixture(scope="module")
def predictions():
    return EVALUATION.with_decisions(raw(), CHOICES)


def arrays(table):
    return (np.stack(table[name].to_list()) for name in ("labels", "predicted", "probability"))


def test_all_scores_are_scikit_learn_s(predictions):
    got = rounded_scores(TASK, predictions, CLASSES, CHOICES)
    labels, predicted, probability = arrays(predictions)
    there = {"labels": [0, 1, 2], "zero_division": 0.0}
    expected = {
        "subset_accuracy": sk.accuracy_score(labels, predicted),
        "hamming_loss": sk.hamming_loss(labels, predicted),
        "map_macro": sk.average_precision_score(labels[:, :3], probability[:, :3], average="macro"),
        "log_loss": np.mean([sk.log_loss(labels[:, k], probability[:, k], labels=[0, 1]) for k in range(4)]),
    }
    for kind in ("f1", "precision", "recall"):
        score = getattr(sk, f"{kind}_score")
        expected[f"{kind}_macro"] = score(labels, predicted, average="macro", **there)
        expected[f"{kind}_micro"] = score(labels, predicted, average="micro", zero_division=0.0)
        for k, value in enumerate(score(labels, predicted, average=None, **there)):
            expected[f"{kind}/{CLASSES[k]}"] = value
    # the calibration error from scikit-learn's own curve, each bin by its decisions
    share, mean = calibration_curve(labels.ravel(), probability.ravel(), n_bins=10)
    count = np.histogram(probability, np.linspace(0, 1, 11))[0]
    expected["ece"] = np.abs(share - mean) @ count[count > 0] / labels.size
    assert {name: got[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert "recall/never" not in got, "undefined without a sample"
    assert set(got) <= set(TASK.named_metrics(CLASSES))


def test_a_resample_is_scored_as_the_table_of_its_rows(predictions):
    weights = next(draws(len(predictions), 5, seed=1))
    got = make_scorer(TASK, predictions, CLASSES, CHOICES, ranked=True)(weights)
    for r, weight_N in enumerate(weights):
        rows = predictions.iloc[np.repeat(np.arange(len(predictions)), weight_N.astype(int))]
        labels, predicted, probability = arrays(rows)
        assert got["map_macro"][r] == pytest.approx(
            sk.average_precision_score(labels[:, :3], probability[:, :3]), abs=1e-9
        )
        assert got["f1_micro"][r] == pytest.approx(sk.f1_score(labels, predicted, average="micro"), abs=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_thresholds_are_those_with_the_best_f1(seed):
    rng = np.random.default_rng(seed)
    label = rng.random(60) < 0.3
    probability = np.round(expit(rng.normal(size=60) + label), 2)
    threshold = EVALUATION.best_threshold(label, probability)
    best = max(sk.f1_score(label, probability >= cut) for cut in probability)
    assert sk.f1_score(label, probability >= threshold) == pytest.approx(best)
    assert threshold not in probability, "between two probabilities, so that rounding changes no decision"


def test_tuning_freezes_one_temperature_and_a_threshold_a_label():
    table = raw(never=True)
    predictions, choices = EVALUATION.tune(lambda collector: table, VALIDATE, CARD)
    assert choices["temperature"] != 1.0 and len(choices["thresholds"]) == 4 and choices["notes"] == []
    json.dumps(choices)
    again = EVALUATION.predict(lambda collector: table, choices, CARD, None)
    pd.testing.assert_frame_equal(predictions, again)
    plain = ValidateConfig(batch_size=3, tta="none", calibrate=False, threshold="argmax", bins=10, require={})
    _, untuned = EVALUATION.tune(lambda collector: table, plain, CARD)
    assert untuned["temperature"] == 1.0 and untuned["thresholds"] == [0.5] * 4
    tuned, half = (rounded_scores(TASK, EVALUATION.with_decisions(table, c), CLASSES, c) for c in (choices, untuned))
    assert tuned["f1_macro"] > half["f1_macro"]


def test_what_cannot_be_tuned_stays_neutral_and_says_so():
    _, choices = EVALUATION.tune(lambda collector: raw(), VALIDATE, CARD)
    assert choices["thresholds"][3] == 0.5 and "threshold of 'never' stays 0.5" in choices["notes"][-1]
    _, choices = EVALUATION.tune(lambda collector: raw(20), VALIDATE, CARD)
    assert choices["temperature"] == 1.0 and choices["thresholds"] == [0.5] * 4
    assert choices["notes"] == ["Nothing is tuned: 20 validation images are too few (at least 30)."]


def test_the_baseline_is_each_label_s_majority(predictions):
    baseline = EVALUATION.baseline(predictions, CARD)
    labels = np.stack(predictions["labels"].to_list())
    constant = np.tile([True, False, False, False], (len(labels), 1))
    assert baseline["class"] == "ant"
    assert baseline["f1_macro"] == pytest.approx(
        sk.f1_score(labels, constant, average="macro", labels=[0, 1, 2], zero_division=0.0)
    )


def test_broken_probabilities_are_refused(predictions):
    broken = predictions.assign(probability=[np.full(4, np.nan)] * len(predictions))
    with pytest.raises(ValueError, match="did training diverge"):
        rounded_scores(TASK, broken, CLASSES, CHOICES)


def test_tables_and_plots_are_written(predictions, tmp_path):
    options = {"seed": 0, "bootstrap": 50, "slices": ["maker"], "gallery": 5}
    scores, gallery = write_evaluation(TASK, predictions, CARD, CHOICES, tmp_path, **options)
    per_class = read_table(tmp_path / "per_class.csv")
    assert per_class["class"].tolist() == CLASSES
    labels, predicted, probability = arrays(predictions)
    assert per_class["support"].tolist() == labels.sum(0).tolist()
    assert per_class["predicted"].tolist() == predicted.sum(0).tolist()
    assert (per_class["f1_low"].dropna() <= per_class["f1"].dropna()).all()
    intervals = json.loads((tmp_path / "intervals.json").read_text())
    assert {"f1_macro", "map_macro", "hamming_loss", "ece", "f1/NA"} <= set(intervals)
    assert read_table(tmp_path / "thresholds.csv")["threshold"].tolist() == CHOICES["thresholds"]
    curve = read_table(tmp_path / "pr.csv")
    assert set(curve["class"]) == set(CLASSES[:3])
    wrong = (labels != predicted).sum(1)
    assert gallery["wrong"].tolist() == sorted(wrong, reverse=True)[:5]
    assert gallery["actual"][0] == EVALUATION.text(labels[gallery["index"][0]], CLASSES)
    write_plots(TASK, tmp_path, "test")
    names = {path.stem for path in (tmp_path / "plots/curves").glob("*.csv")}
    assert names == {"Reliability, test split", "Precision and recall by label, test split"}
    notes = json.loads((tmp_path / "notes.json").read_text())
    assert any(note.startswith("No sample has never") for note in notes)


def test_explained_outputs_are_labels_that_decided(predictions):
    table = EVALUATION.explained(predictions, CLASSES, 4)
    labels, predicted, probability = arrays(predictions)
    assert table["kind"].tolist() == ["error"] * 4 + ["right"] * 4
    for row in table.itertuples():
        wrong = labels[row.index] != predicted[row.index]
        assert wrong[row.output] if row.kind == "error" else labels[row.index][row.output] and not wrong.any()


def test_models_are_compared_by_the_share_of_right_decisions(predictions):
    other = EVALUATION.with_decisions(raw(), {**CHOICES, "thresholds": [0.9] * 4})
    rows = EVALUATION.disagreement([predictions, other])
    first, second = (np.stack(table["predicted"].to_list()) for table in (predictions, other))
    disputed = (first != second).sum(1)
    assert disputed[rows[0]] == disputed.max() and len(rows) == (disputed > 0).sum()
    actual, (a, b) = EVALUATION.compared([predictions, other], rows[0], CLASSES)
    assert a[0] != b[0] and a[1] == EVALUATION.sample_scores(predictions)[rows[0]] and a[2] == (a[0] == actual)
    assert list(EVALUATION.stand_in_names([predictions])) == ["0", "1", "2", "3"]
