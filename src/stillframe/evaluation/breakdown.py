"""What a score is worth: the trivial baseline, scores by slice, the errors by their confidence."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from stillframe.evaluation.class_scores import confusion, confusion_scores
from stillframe.evaluation.intervals import wilson

SIZES = (32, 64, 128, 256, 512, 1024, 2048)  # px, edges of the buckets of slice "size"
MOST_VALUES = 30  # of one slice; the largest ones are shown


def baseline_scores(
    train_counts: Mapping[str, int], label_N: ArrayLike, classes: Sequence[str]
) -> dict[str, float | str]:
    """Scores of always answering the class that is most frequent in train (of equals the first).

    Args:
        train_counts: class name -> train images.
        label_N: class indices of the split that is scored.
        classes: names.

    Returns:
        The scores of `confusion_scores`, and the name of that class under "class".
    """
    label_N = np.asarray(label_N, dtype=np.int64)
    answer = int(np.argmax([train_counts.get(name, 0) for name in classes]))
    scores = confusion_scores(confusion(label_N, np.full_like(label_N, answer), len(classes)), classes)
    return {**scores, "class": classes[answer]}


def size_names(width_N: ArrayLike, height_N: ArrayLike) -> list[str]:
    """The bucket of each image's shorter side before resizing, e.g. "128-255 px"."""
    edges = (1, *SIZES)
    names = [f"{low}-{high - 1} px" for low, high in zip(edges, SIZES, strict=False)] + [f"{SIZES[-1]} px and more"]
    side_N = np.minimum(np.asarray(width_N), np.asarray(height_N))
    return [names[at] for at in np.searchsorted(SIZES, side_N, side="right")]


def slice_values(predictions: pd.DataFrame, column: str, extra: pd.DataFrame) -> pd.Series[str]:
    """The value of one slice column for each sample."""
    if column == "size" and column not in extra:
        return pd.Series(size_names(predictions["source_width"], predictions["source_height"]), dtype="string")
    if column == "mode" and column not in extra:
        return predictions["source_mode"].reset_index(drop=True).astype("string")
    if column not in extra:
        from stillframe.config import nearest

        known = nearest(column, ["size", "mode", *map(str, extra.columns)])
        raise ValueError(f"evaluate.slices: {column!r} is no column of data.columns.slices: {known}")
    return extra[column].astype("string")


def slices_in_order(value_N: pd.Series[str], most: int) -> list[str]:
    """The most frequent values of a slice column, sorted as people do."""
    return sorted(map(str, value_N.value_counts().head(most).index), key=_natural)


def slice_table(predictions: pd.DataFrame, columns: Sequence[str], classes: Sequence[str]) -> pd.DataFrame:
    """Scores by slice: of the table's own columns, by "size" (shorter side, px) and by "mode" (of the file).

    Args:
        predictions: columns label, predicted, source_width, source_height, source_mode, slices (JSON
            objects).
        columns: which slices.
        classes: names.

    Returns:
        Columns slice, value, n, accuracy, low, high (Wilson's 95 % interval), f1_macro (over the classes the
        slice has). Of a column with many values the `MOST_VALUES` most frequent; a sample without a value is
        in none.

    Raises:
        ValueError: a column that the samples do not have, with the nearest right name.
    """
    extra = pd.DataFrame([json.loads(text or "{}") for text in predictions["slices"]], index=range(len(predictions)))
    label_N, predicted_N = predictions["label"].to_numpy(), predictions["predicted"].to_numpy()
    rows = []
    for column in columns:
        value_N = slice_values(predictions, column, extra)
        for value in slices_in_order(value_N, MOST_VALUES):
            held = (value_N == value).fillna(False).to_numpy(dtype=bool)
            matrix = confusion(label_N[held], predicted_N[held], len(classes))
            scores = confusion_scores(matrix, classes)
            low, high = wilson(int(np.trace(matrix)), int(held.sum()))
            row = {"slice": column, "value": value, "n": int(held.sum()), "accuracy": scores["accuracy"]}
            rows.append({**row, "low": low, "high": high, "f1_macro": scores["f1_macro"]})
    return pd.DataFrame(rows, columns=["slice", "value", "n", "accuracy", "low", "high", "f1_macro"])


def _natural(value: str) -> tuple[float, str]:
    """Sorts "64-127 px" before "128-255 px" and words by their letters."""
    digits = value.split("-")[0].split(" ")[0]
    try:
        return float(digits), value
    except ValueError:
        return float("inf"), value


def suspected_label_errors(label_N: ArrayLike, probabilities_NK: ArrayLike) -> NDArray[np.bool_]:
    """Samples whose label is probably wrong, by confident learning's rule (Northcutt, Jiang and Chuang 2021).

    A class's threshold is the mean probability that it gets on the samples labelled as it. Among the classes
    whose probability reaches their threshold the most probable one is the likely true label; a sample is
    suspected when that is not its label. (cleanlab, which has the rule, is under the AGPL.) The
    probabilities must be out-of-sample.

    Returns:
        (N,) bool.
    """
    label_N, probabilities_NK = np.asarray(label_N), np.asarray(probabilities_NK, dtype=np.float64)
    threshold_K = np.full(probabilities_NK.shape[1], np.inf)
    for at in np.unique(label_N):
        threshold_K[at] = probabilities_NK[label_N == at, at].mean()
    reached_NK = probabilities_NK >= threshold_K - 1e-12
    likely_N = np.where(reached_NK, probabilities_NK, -1.0).argmax(1)
    return np.asarray(reached_NK.any(1) & (likely_N != label_N))


def timelines(predictions: pd.DataFrame) -> list[str]:
    """As JSON, of each row the probability of its `answer` and of its `label` in each view of the video, in order."""
    out = []
    columns = (predictions[name].to_list() for name in ("view_probabilities", "predicted", "label"))
    for views, predicted, label in zip(*columns, strict=True):
        share_VK = np.stack(list(views)).round(4)
        out.append(json.dumps({"answer": share_VK[:, predicted].tolist(), "label": share_VK[:, label].tolist()}))
    return out


def gallery_table(predictions: pd.DataFrame, classes: Sequence[str], most: int) -> pd.DataFrame:
    """The errors, the most confident one first.

    Args:
        predictions: columns index, id, label, predicted, confidence, probabilities; the whole split. With the column
            view_probabilities the table has one more, `timeline`: see `timelines`.
        classes: names.
        most: rows, at most.

    Returns:
        Columns rank (from 1), file (the picture, in the stage's folder), index (row in the split), id,
        actual, predicted, confidence, suspected_label_error.
    """
    probabilities_NK = (
        np.stack(predictions["probabilities"].to_list()) if len(predictions) else np.zeros((0, len(classes)))
    )
    names = np.asarray(classes, dtype=object)
    table = pd.DataFrame(
        {
            "index": predictions["index"].to_numpy(),
            "id": predictions["id"].to_numpy(),
            "actual": names[predictions["label"].to_numpy()],
            "predicted": names[predictions["predicted"].to_numpy()],
            "confidence": predictions["confidence"].to_numpy(),
            "suspected_label_error": suspected_label_errors(predictions["label"], probabilities_NK),
        }
    )
    if "view_probabilities" in predictions:
        table["timeline"] = timelines(predictions)
    wrong = table[table["actual"] != table["predicted"]]
    wrong = wrong.sort_values(["confidence", "id"], ascending=[False, True], kind="stable").head(most)
    wrong = wrong.reset_index(drop=True)
    wrong.insert(0, "rank", np.arange(1, len(wrong) + 1))
    wrong.insert(1, "file", [f"gallery/{rank:03d}.png" for rank in wrong["rank"]])
    return wrong
