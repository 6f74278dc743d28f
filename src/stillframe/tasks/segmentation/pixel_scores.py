"""Pixels of a predicted class map against the true one: a confusion matrix, and how well the contours agree.

Suffixes: K classes, H and W px. Pixels whose target is `IGNORE` are counted nowhere.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stillframe.tasks.segmentation import IGNORE

TOLERANCE = 0.0075  # of the image's diagonal, of boundary F1: Csurka et al. 2013, section 4


def pixel_confusion(truth_HW: ArrayLike, answer_HW: ArrayLike, classes: int) -> NDArray[np.int64]:
    """Pixels (K, K) of one image or several: rows are the true classes, columns the predicted ones.

    Args:
        truth_HW: class indices, `IGNORE` where nothing is counted; any shape.
        answer_HW: class indices, of the same shape; `IGNORE` only where the truth is ignored.
        classes: K.
    """
    truth, answer = np.asarray(truth_HW), np.asarray(answer_HW)
    counted = truth != IGNORE
    cell = truth[counted].astype(np.int64) * classes + answer[counted]
    return np.bincount(cell, minlength=classes * classes).reshape(classes, classes)


def decide_pixels(probability_KHW: NDArray[Any], threshold: float | None = None) -> NDArray[np.uint8]:
    """The predicted class of each pixel (H, W): the most probable one, or of two class 1 from `threshold` on."""
    if threshold is None:
        return np.asarray(probability_KHW.argmax(0), dtype=np.uint8)
    return np.asarray(probability_KHW[1] >= threshold, dtype=np.uint8)


def tolerance_px(height: int, width: int, share: float = TOLERANCE) -> float:
    """How far a boundary may lie off, px: a share of the diagonal, at least 1."""
    return max(1.0, share * float(np.hypot(height, width)))


def boundary_f1(
    truth_HW: NDArray[np.uint8], answer_HW: NDArray[np.uint8], classes: int, tolerance: float | None = None
) -> NDArray[np.float64]:
    """How well the contours of each class agree in one image: (K,), 0..1; NaN where a class has no contour.

    The BF score of Csurka, Larlus and Perronnin, "What is a good evaluation measure for semantic segmentation?" (BMVC
    2013): the share of the predicted contour within the tolerance of the true one, the share of the true contour within
    the tolerance of the predicted one, and their harmonic mean. 0 where only one of the two has a contour. A border to
    ignored pixels, or of the image itself, is no contour.

    Args:
        truth_HW: class indices, `IGNORE` where nothing is counted.
        answer_HW: class indices.
        classes: K.
        tolerance: px; None: `tolerance_px` of the image.
    """
    ignored = truth_HW == IGNORE
    reach = tolerance_px(*truth_HW.shape) if tolerance is None else tolerance
    scores_K = np.full(classes, np.nan)
    for k in np.union1d(np.unique(truth_HW[~ignored]), np.unique(answer_HW[~ignored])).tolist():
        true, predicted = _contour(truth_HW == k, ignored), _contour(answer_HW == k, ignored)
        if not true.any() and not predicted.any():
            continue
        if not true.any() or not predicted.any():
            scores_K[k] = 0.0
            continue
        precision = float((_distance(true)[predicted] <= reach).mean())
        recall = float((_distance(predicted)[true] <= reach).mean())
        scores_K[k] = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return scores_K


def _contour(mask_HW: NDArray[np.bool_], ignored_HW: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of a mask with a neighbour (of four) outside of it; outside is neither the border nor an ignored pixel."""
    import cv2

    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    inner = cv2.erode((mask_HW | ignored_HW).astype(np.uint8), cross)  # beyond the border counts as inside
    return np.asarray(mask_HW & ~ignored_HW & (inner == 0))


def _distance(contour_HW: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Of each pixel to the nearest one of a contour, px."""
    import cv2

    distance_HW = cv2.distanceTransform((~contour_HW).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(distance_HW, dtype=np.float32)
