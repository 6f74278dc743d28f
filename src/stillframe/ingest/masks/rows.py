"""Surveyed images with masks as rows of the store: values become class indices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stillframe.ingest.chunks import IngestConfig
from stillframe.ingest.masks.files import mask_stamps
from stillframe.ingest.sources import SourceRow
from stillframe.store.columns import NO_VALUE as IGNORE
from stillframe.store.encoding import decode_map, encode_map


def changed(folder: Path, rows: Sequence[SourceRow], known: Iterable[Sequence[int]]) -> list[str]:
    """Mask files that are no longer those that were read; `known` are their stamps, in turn."""
    out = []
    for row, numbers in zip(rows, known, strict=True):
        if row.mask is not None and len(numbers):
            marks = zip(numbers[::2], numbers[1::2], strict=True)
            files = zip(row.mask.files, mask_stamps(folder, row.mask), marks, strict=True)
            out += [file for (_, file), now, mark in files if now != mark]
    return out


def rows_of(
    row: dict[str, Any], cuts: list[dict[str, Any]], lut: Sequence[int], classes: int, rule: IngestConfig
) -> tuple[list[dict[str, Any]], NDArray[np.int64]]:
    """The rows of one image, and the pixels of each class in them.

    Args:
        row: the columns that all its rows share; `id` is the image's.
        cuts: as surveyed; one, or a tile each.
        lut: class index (or IGNORE) of each of the mask's labels.
        classes: how many there are.
        rule: how images are stored.
    """
    table = np.full(256, IGNORE, dtype=np.uint8)
    table[: len(lut)] = lut
    index, out, px_K = np.asarray(lut, dtype=np.int64), [], np.zeros(classes, dtype=np.int64)
    for cut in cuts:
        mask_HW = table[decode_map(cut["mask"], rule.encoding, rule.image_size, rule.image_size)]
        mine_K = np.bincount(index, weights=cut["pixels"], minlength=classes)[:classes].astype(np.int64)
        px_K += mine_K
        most = 1 + int(mine_K[1:].argmax()) if mine_K[1:].any() else 0
        made = {**row, "label": most, "image": cut["image"], "mask": encode_map(mask_HW, rule.encoding)}
        if rule.overlap is not None:
            name = f"{row['id']}@{cut['top']},{cut['left']}"
            made |= {"id": name, "source_id": name, "origin": row["id"], "top": cut["top"], "left": cut["left"]}
        out.append(made)
    return out, px_K
