"""Where the leading candidates answer differently: the images a person should look at before choosing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from stillframe.evaluation.class_scores import confusion
from stillframe.reporting.inputs import PageImage
from stillframe.store.split import Split
from stillframe.sweeps.comparison import masks, originals
from stillframe.sweeps.comparison.candidates import Candidate, SweepComparison

TOP = 4  # candidates that are put side by side
MOST_IMAGES = 24


@dataclass(frozen=True)
class DisputedImage:
    """An image on which the candidates disagree; `answers`: (trial, class, confidence, right), as they are ranked.

    Of masks `actual` is "", and `answers` are (trial, "IoU", its value, whether it is the best one).
    """

    id: str
    actual: str
    answers: list[tuple[int, str, float, bool]]
    picture: PageImage | None


@dataclass(frozen=True)
class Disagreement:
    """The leading candidates on the validation images that all of them have seen.

    Attributes:
        classes: names.
        matrices: trial -> counts (K, K) over all repeats, rows actual.
        images: of the first repeat, the clearest disagreements first; at most `MOST_IMAGES`.
        count: images on which they disagree, of `total`.
        pairs: one a candidate after the best: both right, only the best right, only the other right, both wrong; of
            masks none.
        masked: whether masks were answered; then `matrices` count pixels.
        why_none: why there are no pictures, or no images at all; "" when they are there.
    """

    top: list[Candidate]
    classes: list[str]
    matrices: dict[int, np.ndarray[Any, np.dtype[np.int64]]]
    images: list[DisputedImage]
    count: int
    total: int
    pairs: list[dict[str, int]]
    why_none: str
    masked: bool = False


def disagreement(findings: SweepComparison) -> Disagreement:
    """Compare the `TOP` candidates that have kept their predictions."""
    with_answers = [one for one in findings.ranked if findings.answers(one.trial, _first(one)) is not None]
    top = with_answers[:TOP]
    if not top:
        return Disagreement([], [], {}, [], 0, 0, [], "No finished trial has kept its predictions.")
    best = top[0].trial.repeats[0]
    tables = [table for one in top if (table := findings.answers(one.trial, _first(one))) is not None]
    shared = [table for table in tables if table.index.equals(tables[0].index)]
    masked = masks.are_masks(tables[0])
    count = max(map(_classes, tables))
    with originals.prepared_folders(findings.sweep, best) as folders:
        classes = originals.class_names(folders, count)
        matrices = {one.trial.number: _matrix(findings, one, len(classes)) for one in top}
        if len(top) < 2:
            return Disagreement(top, classes, matrices, [], 0, 0, [], "There is only one candidate.", masked)
        if len(shared) < len(top):
            why = "The candidates were validated on different images: they cannot be laid side by side."
            return Disagreement(top, classes, matrices, [], 0, 0, [], why, masked)
        places = masks.where_they_differ(shared) if masked else _where_they_differ(shared)
        split = next((found for at in folders if (found := originals.holds(at, shared[0])) is not None), None)
        images = [_image(at, top, shared, classes, split) for at in places[:MOST_IMAGES]]
    why = "" if split is not None else _why(findings)
    pairs = [] if masked else [_pair(shared[0], table) for table in shared[1:]]
    return Disagreement(top, classes, matrices, images, len(places), len(shared[0]), pairs, why, masked)


def _classes(table: pd.DataFrame) -> int:
    """As many as the answers show; of masks all."""
    if masks.are_masks(table):
        return masks.classes_of(table)
    return 1 + int(table[["label", "predicted"]].to_numpy().max())


def _first(one: Candidate) -> int:
    return one.trial.repeats[0].repeat


def _why(findings: SweepComparison) -> str:
    return (
        f"The pictures are not shown: neither DVC's cache nor a checkout under {findings.sweep.facts['root']} holds "
        "this validation split any more."
    )


def _matrix(findings: SweepComparison, one: Candidate, classes: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    total = np.zeros((classes, classes), dtype=np.int64)
    for run in one.trial.repeats:
        table = findings.answers(one.trial, run.repeat)
        if table is not None and masks.are_masks(table):
            total += masks.pictures(table).confusion_KK
        elif table is not None:
            total += confusion(table["label"], table["predicted"], classes)
    return total


def _where_they_differ(tables: list[pd.DataFrame]) -> list[int]:
    """Rows: most different answers first, then the surest wrong answer, then by id."""
    said = np.stack([table["predicted"].to_numpy() for table in tables], axis=1)
    sure = np.stack([table["confidence"].to_numpy() for table in tables], axis=1)
    kinds = np.array([len(set(row)) for row in said.tolist()])
    wrong = said != tables[0]["label"].to_numpy()[:, None]
    surest = np.where(wrong, sure, 0.0).max(1)
    order = np.lexsort((np.arange(len(kinds)), -surest, -kinds))
    return [int(at) for at in order if kinds[at] > 1]


def _image(
    at: int, top: list[Candidate], tables: list[pd.DataFrame], classes: list[str], split: Split | None
) -> DisputedImage:
    """A row of the tables with each candidate's answer."""
    label, index = int(tables[0]["label"].to_numpy()[at]), int(tables[0]["index"].to_numpy()[at])
    picture = None if split is None else originals.picture_of(split, index)
    if masks.are_masks(tables[0]):
        numbers = [one.trial.number for one in top]
        return DisputedImage(str(tables[0].index[at]), "", masks.said(tables, numbers, at), picture)
    answers = []
    for one, table in zip(top, tables, strict=True):
        said, sure = int(table["predicted"].to_numpy()[at]), float(table["confidence"].to_numpy()[at])
        answers.append((one.trial.number, classes[said], sure, said == label))
    return DisputedImage(str(tables[0].index[at]), classes[label], answers, picture)


def _pair(best: pd.DataFrame, other: pd.DataFrame) -> dict[str, int]:
    first, second = (table["predicted"].to_numpy() == best["label"].to_numpy() for table in (best, other))
    return {
        "both": int((first & second).sum()),
        "best": int((first & ~second).sum()),
        "other": int((~first & second).sum()),
        "neither": int((~first & ~second).sum()),
    }
