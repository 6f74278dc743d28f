"""An image and its mask as prepared rows: resized together, or cut into overlapping tiles."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from stillframe.ingest.decode import DecodedImage, InvalidImage, Pixels, resize, resize_mask, to_channels
from stillframe.ingest.masks import tiles
from stillframe.ingest.masks.files import Mask, mask_stamps, read_mask
from stillframe.ingest.sources import SourceRow
from stillframe.store.columns import NO_VALUE as IGNORE
from stillframe.store.encoding import encode, encode_map

if TYPE_CHECKING:
    from stillframe.ingest.chunks import IngestConfig

CUT = pa.struct(
    [
        ("top", pa.int32()),  # px of the upright image; 0 when it was resized as a whole
        ("left", pa.int32()),
        ("image", pa.large_binary()),  # as the store keeps it
        ("mask", pa.large_binary()),  # indices into the labels of this image's mask, as the store keeps masks
        ("pixels", pa.list_(pa.int64())),  # of each of these labels
    ]
)
COLUMNS = [
    pa.field("labels", pa.list_(pa.string())),  # of the mask's values
    pa.field("colours", pa.list_(pa.string())),  # in the mask's palette, "" where there is none
    pa.field("label_px", pa.list_(pa.int64())),  # pixels of each label before resizing
    pa.field("mask_hash", pa.string()),
    pa.field("mask_stamps", pa.list_(pa.int64())),  # size and time of each file, in turn
    pa.field("cuts", pa.list_(CUT)),
]
EMPTY: dict[str, Any] = {"labels": [], "colours": [], "label_px": [], "mask_hash": "", "mask_stamps": [], "cuts": []}


def examine_mask(
    row: SourceRow, folder: Path, rule: IngestConfig, record: dict[str, Any], picture: DecodedImage, content: bytes
) -> None:
    """Fill in `COLUMNS`, and the sums over the prepared pixels; what is wrong with the mask is the row's reason.

    Args:
        row: with a mask.
        folder: the source.
        rule: what is done with images and masks.
        record: of the survey; changed.
        picture: the decoded image.
        content: its file.
    """
    assert row.mask is not None
    record["mask_stamps"] = [number for mark in mask_stamps(folder, row.mask) for number in mark]
    if record["reason"]:
        return
    try:
        mask = read_mask(folder, row.mask, content, picture, rule.max_megapixels)
    except InvalidImage as refusal:
        record["reason"] = str(refusal)
        return
    image = picture.image
    if rule.channels != "auto":
        image = to_channels(image, 1 if rule.channels == "gray" else 3)
    record["channels"], record["mask_hash"] = image.shape[2], mask.digest
    record["labels"], record["colours"] = mask.labels, mask.colours
    record["label_px"] = pixels_of(mask.local_HW, len(mask.labels))
    sums, record["cuts"] = np.zeros((2, image.shape[2])), []
    for one, pixels in cut_up(image, mask, rule):
        values = pixels.reshape(-1, image.shape[2]).astype(np.float64)
        sums += [values.sum(axis=0), (values * values).sum(axis=0)]
        record["cuts"].append(one)
    record["sums"], record["squares"] = sums.tolist()


def pixels_of(local_HW: Pixels, labels: int) -> list[int]:
    """Pixels of each label; some rows at a time, for numpy counts with eight bytes a pixel."""
    total = np.zeros(IGNORE + 1, dtype=np.int64)
    for first in range(0, local_HW.shape[0], 512):
        total += np.bincount(local_HW[first : first + 512].ravel(), minlength=IGNORE + 1)
    return [int(count) for count in total[:labels]]


def cut_up(image: Pixels, mask: Mask, rule: IngestConfig) -> Iterator[tuple[dict[str, Any], Pixels]]:
    """Each prepared row of an image (H, W, C) and its mask: a `CUT`, and its pixels (size, size, C)."""
    size, how, overlap, encoding = rule.image_size, rule.resize, rule.overlap, rule.encoding
    height, width = image.shape[:2]
    for top, left in tiles.grid(height, width, size, overlap) if overlap is not None else [(0, 0)]:
        if overlap is None:
            part, part_mask = resize(image, size, how), resize_mask(mask.local_HW, size, how)
        else:
            part, part_mask = tiles.cut(image, top, left, size, 0), tiles.cut(mask.local_HW, top, left, size, IGNORE)
        pixels = pixels_of(part_mask, len(mask.labels))
        stored = (b"", b"") if encoding == "none" else (encode(part, encoding), encode_map(part_mask, encoding))
        yield {"top": top, "left": left, "image": stored[0], "mask": stored[1], "pixels": pixels}, part
