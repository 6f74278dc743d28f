"""Scores of masks against scikit-learn on the same pixels, and boundary F1 against distances counted by hand."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, jaccard_score, recall_score

from stillframe.evaluation.bootstrap import scores_of
from stillframe.tasks import find_task
from stillframe.tasks.class_scores import confusion_scores
from stillframe.tasks.segmentation import IGNORE, METRICS, pixel_scores

CLASSES = ["ground", "tree", "road", "never"]


def masks(seed, side=40):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, (6, side, side)).astype(np.uint8)
    answer = np.where(rng.random(truth.shape) < 0.7, truth, rng.integers(0, 3, truth.shape)).astype(np.uint8)
    truth[rng.random(truth.shape) < 0.1] = IGNORE
    return truth, answer


def test_scores_are_those_of_scikit_learn_on_the_pixels():
    truth, answer = masks(0)
    matrix = sum(pixel_scores.pixel_confusion(t, a, 4) for t, a in zip(truth, answer, strict=True))
    scores = confusion_scores(matrix, CLASSES, METRICS)
    label, said = truth[truth != IGNORE], answer[truth != IGNORE]
    np.testing.assert_array_equal(matrix, confusion_matrix(label, said, labels=range(4)))
    held = {"labels": range(3), "average": None}
    for at, name in enumerate(CLASSES[:3]):
        assert scores[f"iou/{name}"] == pytest.approx(jaccard_score(label, said, **held)[at], abs=1e-12)
        assert scores[f"f1/{name}"] == pytest.approx(f1_score(label, said, **held)[at], abs=1e-12)
        assert scores[f"recall/{name}"] == pytest.approx(recall_score(label, said, **held)[at], abs=1e-12)
    assert scores["accuracy"] == pytest.approx(accuracy_score(label, said), abs=1e-12)
    for name, score in (("iou_macro", jaccard_score), ("f1_macro", f1_score), ("recall_macro", recall_score)):
        assert scores[name] == pytest.approx(score(label, said, average="macro"), abs=1e-12)
    assert scores["iou_weighted"] == pytest.approx(jaccard_score(label, said, average="weighted"), abs=1e-12)
    assert not [name for name in scores if name.endswith("never")]


def test_a_class_that_is_only_answered_has_an_iou_of_zero_and_no_part_in_the_mean():
    truth, answer = np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8)
    answer[0] = 2
    scores = confusion_scores(pixel_scores.pixel_confusion(truth, answer, 4), CLASSES, METRICS)
    assert scores["iou/road"] == 0.0
    assert scores["iou_macro"] == scores["iou/ground"] == 0.75


def test_a_boundary_that_is_off_by_more_than_the_tolerance_does_not_count():
    truth = np.zeros((40, 40), np.uint8)
    truth[10:30, 10:30] = 1
    for shift, tolerance, expected in ((0, 1.0, 1.0), (1, 1.0, 1.0), (4, 2.0, None)):
        answer = np.roll(truth, shift, axis=1)
        found = pixel_scores.boundary_f1(truth, answer, 3, tolerance)
        assert np.isnan(found[2])
        if expected is not None:
            assert found[1] == expected
        else:  # the upper and the lower edge still agree, but for what lies beyond the other's end
            assert 0.4 < found[1] < 0.7
    assert pixel_scores.boundary_f1(truth, np.zeros_like(truth), 3)[1] == 0.0


def test_the_frame_and_ignored_pixels_are_no_boundary():
    truth = np.zeros((20, 20), np.uint8)
    truth[:, :8] = 1
    truth[:, 8:12] = IGNORE
    answer = np.zeros((20, 20), np.uint8)
    answer[:, :10] = 1
    assert np.isnan(pixel_scores.boundary_f1(truth, answer, 2)).all()


def test_the_tolerance_is_a_share_of_the_diagonal_and_at_least_one_px():
    assert pixel_scores.tolerance_px(300, 400) == pytest.approx(3.75)
    assert pixel_scores.tolerance_px(32, 32) == 1.0


def test_boundary_scores_are_means_over_the_pictures_that_have_the_class():
    scores = boundary_scores([[0.5, np.nan], [1.0, 0.25]])
    assert scores == {"boundary_f1": 0.5, "boundary_f1/a": 0.75, "boundary_f1/b": 0.25}
    assert boundary_scores([[np.nan, np.nan]]) == {}


def boundary_scores(rows):
    """Those of two classes, from a row of boundary F1 an image."""
    columns = {"cell": [[0]] * len(rows), "pixels": [[1]] * len(rows), "boundary": rows}
    scores = scores_of(find_task("segmentation"), pd.DataFrame(columns), ["a", "b"])
    return {name: value for name, value in scores.items() if name.startswith("boundary")}


def test_a_metric_that_masks_do_not_have_is_refused_with_the_nearest_name():
    find_task("segmentation").metric("iou/tree", CLASSES)
    with pytest.raises(ValueError, match="iou_macro"):
        find_task("segmentation").metric("iou_makro", CLASSES)
