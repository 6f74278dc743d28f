"""Scores of masks, from counts of pixels: of one picture, of a split, of resamples of its pictures.

Suffixes: N pictures, K classes, H and W px. Pixels whose truth is `IGNORE` are counted nowhere. As in `measure.scores`
an undefined score is left out, never NaN, and macro averages run over the classes that have pixels in the truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stillframe.evaluation.class_scores import flat_scores, rates
from stillframe.store.columns import NO_VALUE as IGNORE

OF_SPLIT = ("accuracy", "iou_macro", "iou_weighted", "f1_macro", "precision_macro", "recall_macro")
OF_CLASS = ("iou", "precision", "recall", "f1")  # f1 of pixels is the Dice coefficient
METRICS = ("loss", *OF_SPLIT)  # what training can monitor, besides the per-class ones
TOLERANCE = 0.0075  # of the picture's diagonal, of boundary F1: Csurka et al. 2013, section 4


def metric_names(classes: Sequence[str]) -> list[str]:
    """All that training can monitor: `METRICS`, and the scores of each class, e.g. `iou/shoe`."""
    return [*METRICS, *(f"{kind}/{name}" for kind in OF_CLASS for name in classes)]


def check_metric(name: str, classes: Sequence[str], *, key: str = "metric") -> None:
    """Refuse a metric that masks do not have (ValueError with the nearest right name)."""
    from stillframe.config import nearest

    names = metric_names(classes)
    if name not in names:
        raise ValueError(f"{key} = {name!r} is not a metric: {nearest(name, names)}")


def pixel_confusion(truth_HW: ArrayLike, answer_HW: ArrayLike, classes: int) -> NDArray[np.int64]:
    """Pixels (K, K) of one picture or several: rows are the true classes, columns the answered ones.

    Args:
        truth_HW: class indices, `IGNORE` where nothing is counted; any shape.
        answer_HW: class indices, of the same shape; `IGNORE` there is an answer only where the truth is ignored.
        classes: K.
    """
    truth, answer = np.asarray(truth_HW), np.asarray(answer_HW)
    counted = truth != IGNORE
    cell = truth[counted].astype(np.int64) * classes + answer[counted]
    return np.bincount(cell, minlength=classes * classes).reshape(classes, classes)


def decide_pixels(probability_KHW: NDArray[Any], threshold: float | None = None) -> NDArray[np.uint8]:
    """The answered class of each pixel (H, W): the most probable one, or of two class 1 from `threshold` on."""
    if threshold is None:
        return np.asarray(probability_KHW.argmax(0), dtype=np.uint8)
    return np.asarray(probability_KHW[1] >= threshold, dtype=np.uint8)


def pixel_rates(right: Any, actual: Any, answered: Any) -> dict[str, NDArray[np.float64]]:
    """Scores from pixels per class, arrays (..., K); the leading axes (pictures, resamples) are kept.

    Args:
        right: pixels of the class that were answered as it: the intersection.
        actual: pixels of the class in the truth.
        answered: pixels answered as the class.

    Returns:
        `OF_SPLIT` with shape (...), `OF_CLASS` with shape (..., K); NaN where undefined (a class in neither).
    """
    right, actual, answered = (np.asarray(count, dtype=np.float64) for count in (right, actual, answered))
    known = rates(right, actual, answered)
    present = actual > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        iou = right / (actual + answered - right)
        share = np.where(present, 1.0, 0.0) / present.sum(-1, keepdims=True)
        weight = actual / actual.sum(-1, keepdims=True)
        held = np.where(present, iou, 0.0)
        known["iou"] = iou
        known["iou_macro"], known["iou_weighted"] = (held * share).sum(-1), (held * weight).sum(-1)
    return {name: known[name] for name in (*OF_SPLIT, *OF_CLASS)}


def mask_scores(confusion_KK: ArrayLike, classes: Sequence[str]) -> dict[str, float]:
    """`OF_SPLIT` and `<kind>/<class>` of `OF_CLASS` from a confusion matrix of pixels; undefined ones are left out.

    Args:
        confusion_KK: pixels of a whole split; rows are the true classes. A mean of pictures' scores is another number.
        classes: names, in the order of the rows.
    """
    return flat_scores(confusion_KK, classes, pixel_rates, OF_SPLIT, OF_CLASS)


def tolerance_px(height: int, width: int, share: float = TOLERANCE) -> float:
    """How far a boundary may lie off, px: a share of the diagonal, at least 1."""
    return max(1.0, share * float(np.hypot(height, width)))


def boundary_f1(
    truth_HW: NDArray[np.uint8], answer_HW: NDArray[np.uint8], classes: int, tolerance: float | None = None
) -> NDArray[np.float64]:
    """How well the contours of each class agree in one picture: (K,), 0..1; NaN where a class has no contour.

    The BF score of Csurka, Larlus and Perronnin, "What is a good evaluation measure for semantic segmentation?" (BMVC
    2013): the share of the answer's contour within the tolerance of the true one, the share of the true contour within
    the tolerance of the answer's, and their harmonic mean. 0 where only one of the two has a contour. A border to
    ignored pixels, or of the picture itself, is no contour.

    Args:
        truth_HW: class indices, `IGNORE` where nothing is counted.
        answer_HW: class indices.
        classes: K.
        tolerance: px; None: `tolerance_px` of the picture.
    """
    ignored = truth_HW == IGNORE
    reach = tolerance_px(*truth_HW.shape) if tolerance is None else tolerance
    found = np.full(classes, np.nan)
    held = np.union1d(np.unique(truth_HW[~ignored]), np.unique(answer_HW[~ignored]))
    for at in held.tolist():
        true, said = _contour(truth_HW == at, ignored), _contour(answer_HW == at, ignored)
        if not true.any() and not said.any():
            continue
        if not true.any() or not said.any():
            found[at] = 0.0
            continue
        precision = float((_distance(true)[said] <= reach).mean())
        recall = float((_distance(said)[true] <= reach).mean())
        found[at] = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return found


def _contour(mask_HW: NDArray[np.bool_], ignored_HW: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of a mask with a neighbour (of four) outside of it; outside is neither the border nor an ignored pixel."""
    import cv2

    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    inner = cv2.erode((mask_HW | ignored_HW).astype(np.uint8), cross)  # beyond the border counts as inside
    return np.asarray(mask_HW & ~ignored_HW & (inner == 0))


def _distance(contour_HW: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Of each pixel to the nearest one of a contour, px."""
    import cv2

    far = cv2.distanceTransform((~contour_HW).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(far, dtype=np.float32)


def boundary_scores(boundary_NK: ArrayLike, classes: Sequence[str]) -> dict[str, float]:
    """`boundary_f1/<class>`, a mean over the pictures where the class has a contour; `boundary_f1`, their mean."""
    boundary_NK = np.asarray(boundary_NK, dtype=np.float64).reshape(-1, len(classes))
    held = np.flatnonzero(np.isfinite(boundary_NK).any(0))
    if not len(held):
        return {}
    mean = np.nanmean(boundary_NK[:, held], axis=0)
    by_class = {
        f"boundary_f1/{classes[at]}": float(value) for at, value in zip(held.tolist(), mean.tolist(), strict=True)
    }
    return {"boundary_f1": float(mean.mean()), **by_class}
