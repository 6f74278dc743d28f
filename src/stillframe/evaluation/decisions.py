"""From logits to decisions, by the frozen choices of the validation split; one function for every stage."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from stillframe.evaluation.calibration import decide, softmax


def with_decisions(predictions: pd.DataFrame, choices: dict[str, Any]) -> pd.DataFrame:
    """Add `probabilities` (calibrated, list of K), `predicted` (class index) and `confidence` (of it).

    Where the logits are the mean of several views (`view_logits`) also `view_probabilities`, V lists of K.

    `choices` holds `temperature` and `threshold` (null: the most probable class).
    """
    probabilities_NK = softmax(np.stack(predictions["logits"].to_list()), choices["temperature"])
    predicted_N = decide(probabilities_NK, choices["threshold"])
    out = predictions.copy()
    out["predicted"] = predicted_N.astype(np.int32)
    out["confidence"] = probabilities_NK[np.arange(len(out)), predicted_N]
    out["probabilities"] = list(probabilities_NK)
    if "view_logits" in out:
        views = [softmax(np.stack(list(logits)), choices["temperature"]) for logits in out["view_logits"]]
        out["view_probabilities"] = [list(each_VK) for each_VK in views]
    return out
