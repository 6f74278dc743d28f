"""Scores of predicted numbers from sums over samples. Suffixes: N samples, D numbers a sample, R resamples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def number_scores(sums: Mapping[str, NDArray[Any]], names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Errors and R² as scikit-learn has them: of several numbers the plain mean over them.

    Args:
        sums: n (R,); absolute, square (sums of |error| and of its square), target, target_square (of the target's
            distance from any constant, and of its square): (R, D).
        names: of the numbers; with more than one each gets its own scores, `<metric>/<name>`.

    Returns:
        Scores (R,); R² is NaN where the targets do not vary.
    """
    count_R1 = np.asarray(sums["n"])[..., None]
    with np.errstate(divide="ignore", invalid="ignore"):
        square_RD = sums["square"] / count_R1
        spread_RD = sums["target_square"] / count_R1 - np.square(sums["target"] / count_R1)
        varies_RD = spread_RD > 1e-12 * sums["target_square"] / count_R1  # else it is rounding
        kinds = {
            "mae": sums["absolute"] / count_R1,
            "rmse": np.sqrt(square_RD),
            "mse": square_RD,
            "r2": np.where(varies_RD, 1.0 - square_RD / spread_RD, np.nan),
        }
    scores = {kind: values_RD.mean(-1) for kind, values_RD in kinds.items()}
    for index, name in enumerate(names if len(names) > 1 else []):
        scores |= {f"{kind}/{name}": kinds[kind][..., index] for kind in ("mae", "rmse", "r2")}
    return scores
