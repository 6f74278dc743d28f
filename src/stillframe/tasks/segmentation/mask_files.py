"""One mask from its files, beside an image that is already decoded.

What a value means is not known here: a mask comes out as indices into its own list of labels, and `mask_classes` finds
later which label is which class. Labels are numbers ("7") for gray and palette masks, "#rrggbb" for coloured ones, the
class's name for one file a class and for COCO.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stillframe.ingest.decode import DecodedImage, InvalidImage, Pixels
from stillframe.ingest.listing import to_path
from stillframe.ingest.read_image import content_of
from stillframe.ingest.value_map import decode_map, turn_with_image

MISSING = "mask missing"
UNCOVERED = ""  # the label of what no class's file and no polygon covers


@dataclass(frozen=True, slots=True)
class MaskSource:
    """Where the mask of an image is: the value of this task's targets.

    Attributes:
        files: (class, id of the file) each; class "" for a file whose values are the labels.
        shapes: what a COCO file says of the image, as JSON: height, width and [label, segmentation] each; "" for files.
    """

    files: tuple[tuple[str, str], ...] = ()
    shapes: str = ""


@dataclass(frozen=True)
class Mask:
    """The mask of one image, upright.

    Attributes:
        local_HW: uint8 index into `labels`.
        labels: of the values, in the order of the indices.
        colours: "#rrggbb" of each label in the file's palette; "" where there is none.
    """

    local_HW: Pixels
    labels: list[str]
    colours: list[str]

    @property
    def digest(self) -> str:
        """sha256 over shape, labels and values: equal for equal masks whatever the file format."""
        return hashlib.sha256(repr((self.local_HW.shape, self.labels)).encode() + self.local_HW.tobytes()).hexdigest()


def read_mask(folder: Path, source: MaskSource, content: bytes, decoded: DecodedImage, max_megapixels: float) -> Mask:
    """Read the mask of an image.

    A mask that turns itself by EXIF is upright then. Another one of the stored image's size is turned as the image is.

    Args:
        folder: the source.
        source: where the mask is.
        content: the image's file.
        decoded: the image.
        max_megapixels: larger masks are refused.

    Raises:
        InvalidImage: with the reason, which names the file.
    """
    if source.shapes:
        return _drawn(source.shapes, content, decoded)
    if not source.files:
        raise InvalidImage(MISSING)
    masks = [_read_file(folder, file, content, decoded, max_megapixels) for _, file in source.files]
    if source.files[0][0] == UNCOVERED:
        if len(masks) > 1:
            names = " and ".join(file for _, file in source.files)
            raise InvalidImage(f"mask ambiguous: {names} are both named like the image")
        return masks[0]
    return _stacked(source.files, masks)


def _read_file(folder: Path, file: str, content: bytes, decoded: DecodedImage, max_megapixels: float) -> Mask:
    try:
        mask_content, _ = content_of(to_path(folder, file), max_megapixels)
    except FileNotFoundError:
        raise InvalidImage(f"{MISSING}: {file}") from None
    except (OSError, ValueError) as error:
        raise InvalidImage(f"mask unreadable: {file}: {getattr(error, 'strerror', None) or error}") from None
    try:
        value_map = decode_map(mask_content, file, max_megapixels)
    except InvalidImage as error:
        raise InvalidImage(f"mask {error}") from None
    local_HW = turn_with_image(value_map.index_HW, value_map.turned, content, decoded)
    _check_size(local_HW, value_map.index_HW.shape, file, decoded)
    return Mask(local_HW, value_map.values, value_map.colours)


def _check_size(local_HW: Pixels, stored: tuple[int, ...], name: str, decoded: DecodedImage) -> None:
    """Refuse a mask that does not fit its image; `stored` is its shape in the file."""
    if local_HW.shape != decoded.image.shape[:2]:
        raise InvalidImage(
            f"mask of another size: {name} is {stored[1]} x {stored[0]} px, "
            f"the image {decoded.width} x {decoded.height} px"
        )


def _stacked(files: Sequence[tuple[str, str]], masks: Sequence[Mask]) -> Mask:
    """One file a class, laid one over the other in the order of the classes' names."""
    stacked_HW = np.zeros(masks[0].local_HW.shape, dtype=np.uint8)
    for number, ((_, file), mask) in enumerate(zip(files, masks, strict=True), start=1):
        values = mask.labels
        if len(values) > 2 or (len(values) == 2 and values[0] not in ("0", "#000000")):
            raise InvalidImage(
                f"mask not of one class: {file} holds the values {', '.join(values[:5])}; "
                "a class's own file has 0 and one other value"
            )
        if values != ["0"] and values != ["#000000"]:
            stacked_HW[mask.local_HW == len(values) - 1] = number
    labels = [UNCOVERED, *(label for label, _ in files)]
    return Mask(stacked_HW, labels, [""] * len(labels))


def _drawn(shapes: str, content: bytes, decoded: DecodedImage) -> Mask:
    """Polygons and run lengths of a COCO file, the smaller ones over the larger ones."""
    from pycocotools import mask as rle

    height, width, listed = json.loads(shapes)
    labels = [UNCOVERED, *sorted({label for label, _ in listed})]
    drawn_HW = np.zeros((height, width), dtype=np.uint8)
    for label, shape in listed:
        if not shape:
            continue
        try:
            with warnings.catch_warnings():  # pycocotools 2.0.11 does not know numpy 2's copy keyword
                warnings.simplefilter("ignore", DeprecationWarning)
                is_coded = isinstance(shape, dict) and isinstance(shape["counts"], str)
                coded = shape if is_coded else rle.frPyObjects(shape, height, width)
                covered_HW = rle.decode(rle.merge(coded) if isinstance(coded, list) else coded)
        except Exception as error:  # what is no polygon fails in many ways
            raise InvalidImage(f"mask damaged: a shape of {label!r}: {type(error).__name__}: {error}") from None
        if covered_HW.shape != drawn_HW.shape:
            raise InvalidImage(
                f"mask of another size: a shape of {label!r} is {covered_HW.shape[1]} x {covered_HW.shape[0]} px"
            )
        drawn_HW[covered_HW > 0] = labels.index(label)
    local_HW = turn_with_image(drawn_HW, False, content, decoded)
    _check_size(local_HW, drawn_HW.shape, "the COCO file's image", decoded)
    return Mask(local_HW, labels, [""] * len(labels))
