"""Several views of a video are one answer: the mean of their logits, counted once."""

from __future__ import annotations

import numpy as np
import pandas as pd

from stillframe.tasks.calibration import softmax
from stillframe.tasks.classification.evaluation import errors, with_decisions
from stillframe.tasks.vector_collector import merge_views


def rows(names: list[str], logits: np.ndarray) -> pd.DataFrame:
    table = pd.DataFrame({"index": np.arange(len(names)), "id": names, "label": [0] * len(names)})
    return table.assign(logits=list(logits.astype(np.float32)))


def test_views_become_one_row_under_the_name_of_their_video() -> None:
    logits = np.array([[1, 0], [3, 0], [5, 3], [0, 2], [0, 4], [0, 6]])
    names = [f"{video}.mp4@{view}" for video in "ab" for view in range(3)]
    made = merge_views(rows(names, logits), np.array(["a.mp4"] * 3 + ["b.mp4"] * 3, dtype=object), "logits")
    assert made["id"].tolist() == ["a.mp4", "b.mp4"] and made["index"].tolist() == [1, 4], "the middle one is shown"
    np.testing.assert_allclose(np.stack(made["logits"].to_list()), [[3, 1], [0, 4]])
    np.testing.assert_array_equal(np.stack(made["view_logits"].iloc[1]), logits[3:])


def test_rows_of_images_stay_as_they_are() -> None:
    table = rows(["a", "b"], np.eye(2))
    assert merge_views(table, np.array(["a", "b"], dtype=object), "logits") is table


def test_a_gallery_tells_how_the_answer_went_over_the_video() -> None:
    """Sure of the wrong class at the end only."""
    logits = np.array([[2, 0], [0, 1], [0, 9], [1, 0], [1, 0], [1, 0]])
    videos = np.array(["a.mp4"] * 3 + ["b.mp4"] * 3, dtype=object)
    said = with_decisions(
        merge_views(rows(list("abcdef"), logits), videos, "logits"), {"temperature": 2.0, "threshold": None}
    )
    (row,) = errors(said, ["left", "right"], 5).to_dict("records")
    share_VK = softmax(logits[:3].astype(float), 2.0).round(4)
    assert (row["id"], row["predicted"]) == ("a.mp4", "right")
    assert row["timeline"] == f'{{"answer": {share_VK[:, 1].tolist()}, "label": {share_VK[:, 0].tolist()}}}'
