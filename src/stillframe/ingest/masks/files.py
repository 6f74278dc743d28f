"""One mask from its files: the values as they stand there, beside an image that is already decoded.

What a value means is not known here: a mask comes out as indices into its own list of labels, and classes.py says
later which label is which class. Labels are numbers ("7") for gray and palette masks, "#rrggbb" for coloured ones, the
class's name for one file a class and for COCO.
"""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image, ImageOps

from stillframe.ingest.decode import FORMATS, ORIENTATION, DecodedImage, InvalidImage, Pixels, upright
from stillframe.ingest.masks.sources import MISSING
from stillframe.ingest.read_image import content_of
from stillframe.ingest.sources import MaskFiles, to_path

MOST = 250  # labels in one mask: more are no classes
UNCOVERED = ""  # the label of what no class's file and no polygon covers


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


def mask_stamps(folder: Path, mask: MaskFiles) -> list[tuple[int, int]]:
    """Size (bytes) and modification time (ns) of each of a mask's files; (-1, -1) for one that is not there."""
    out = []
    for _, file in mask.files:
        try:
            seen = to_path(folder, file).stat()
            out.append((seen.st_size, seen.st_mtime_ns))
        except (OSError, ValueError):
            out.append((-1, -1))
    return out


def read_mask(folder: Path, mask: MaskFiles, content: bytes, picture: DecodedImage, max_megapixels: float) -> Mask:
    """Read the mask of an image.

    A mask that turns itself by EXIF is upright then. Another one of the stored image's size is turned as the image is.

    Args:
        folder: the source.
        mask: where the mask is.
        content: the image's file.
        picture: what it decoded to.
        max_megapixels: larger masks are refused.

    Raises:
        InvalidImage: with the reason, which names the file.
    """
    orientation = 1
    if picture.turned:
        orientation = int(Image.open(io.BytesIO(content), formats=FORMATS).getexif().get(ORIENTATION, 1))
    if mask.shapes:
        return _drawn(mask.shapes, picture, orientation)
    if not mask.files:
        raise InvalidImage(MISSING)
    read = [(label, file, _read(folder, file, max_megapixels)) for label, file in mask.files]
    fitted = [(label, file, _fitted(one, file, picture, orientation)) for label, file, one in read]
    if mask.files[0][0] == UNCOVERED:
        if len(fitted) > 1:
            names = " and ".join(file for _, file, _ in fitted)
            raise InvalidImage(f"mask ambiguous: {names} are both named like the image")
        return fitted[0][2]
    return _stacked(fitted)


@dataclass(frozen=True)
class _DecodedMask(Mask):
    turned: bool = False  # by its own EXIF


def _read(folder: Path, file: str, max_megapixels: float) -> _DecodedMask:
    try:
        content, _ = content_of(to_path(folder, file), max_megapixels)
    except FileNotFoundError:
        raise InvalidImage(f"{MISSING}: {file}") from None
    except (OSError, ValueError) as error:
        raise InvalidImage(f"mask unreadable: {file}: {getattr(error, 'strerror', None) or error}") from None
    try:
        opened = Image.open(io.BytesIO(content), formats=FORMATS)
        if opened.width * opened.height > max_megapixels * 1e6:
            raise InvalidImage(f"mask too large: {file} is {opened.width} x {opened.height} px")
        turned = int(opened.getexif().get(ORIENTATION, 1)) in range(2, 9)
        if opened.format == "PNG":
            Image.open(io.BytesIO(content), formats=("PNG",)).verify()
        opened.load()
        return _indexed(ImageOps.exif_transpose(opened), file, turned)
    except InvalidImage:
        raise
    except Exception as error:  # decoders raise many kinds on damaged files; each means that this mask is refused
        raise InvalidImage(f"mask damaged: {file}: {type(error).__name__}: {error}") from None


def _indexed(opened: Image.Image, file: str, turned: bool) -> _DecodedMask:
    """A loaded file as indices into its own values."""
    coloured = opened.mode in ("RGB", "RGBA")
    if opened.mode == "RGBA" and np.asarray(opened)[..., 3].min() < 255:
        raise InvalidImage(f"mask not of classes: {file} is partly transparent; save it without")
    if not coloured and opened.mode not in ("1", "L", "P", "I", "I;16", "I;16B", "I;16L"):
        raise InvalidImage(f"mask not of classes: {file} has mode {opened.mode}; save it as gray, palette or RGB")
    values = np.asarray(opened)
    if coloured:
        wide = values.astype(np.int32)
        found, local = _unique((wide[..., 0] << 16) + (wide[..., 1] << 8) + wide[..., 2])
    elif opened.mode in ("L", "P", "1"):
        found, local = _unique_bytes(values.astype(np.uint8, copy=False))
    else:
        found, local = _unique(values.astype(np.int32))
    if len(found) > MOST:
        raise InvalidImage(
            f"mask not of classes: {file} holds {len(found)} different {'colours' if coloured else 'values'}; "
            "a mask must be saved without loss, as PNG, not as JPEG"
        )
    labels = [f"#{value:06x}" if coloured else str(value) for value in found.tolist()]
    return _DecodedMask(local, labels, _palette(opened, found.tolist()), turned)


def _unique(values_HW: NDArray[np.int32]) -> tuple[NDArray[Any], Pixels]:
    """Distinct values in ascending order, and the place of each pixel's among them (mod 256: refused when more)."""
    coded = pa.array(values_HW.ravel()).dictionary_encode()  # by hashing: sorting a large photograph takes seconds
    found = coded.dictionary.to_numpy()
    order = np.argsort(found)
    place = np.empty(len(found), dtype=np.uint8)
    place[order] = np.arange(len(found)).astype(np.uint8)
    return found[order], place[coded.indices.to_numpy()].reshape(values_HW.shape)


def _unique_bytes(values_HW: Pixels) -> tuple[NDArray[Any], Pixels]:
    """The same without sorting, and without eight bytes for each pixel."""
    seen = cv2.calcHist([values_HW], [0], None, [256], [0, 256]).ravel() > 0
    place = (np.cumsum(seen) - 1).clip(0).astype(np.uint8)
    return np.flatnonzero(seen), np.asarray(cv2.LUT(values_HW, place), dtype=np.uint8)


def _palette(opened: Image.Image, values: Sequence[int]) -> list[str]:
    """The palette's colour of each value."""
    colours = opened.getpalette("RGB") if opened.mode == "P" else None
    if colours is None:
        return [""] * len(values)
    return ["#" + bytes(colours[3 * value : 3 * value + 3]).hex() for value in values]


def _fitted(mask: _DecodedMask, file: str, picture: DecodedImage, orientation: int) -> Mask:
    """The mask turned as its image, which it must fit."""
    size, local_HW = picture.image.shape[:2], mask.local_HW
    if not mask.turned and picture.turned and local_HW.shape == (picture.height, picture.width):
        local_HW = upright(local_HW, orientation)
    if local_HW.shape != size:
        stored = f"{mask.local_HW.shape[1]} x {mask.local_HW.shape[0]} px"
        raise InvalidImage(f"mask of another size: {file} is {stored}, the image {picture.width} x {picture.height} px")
    return Mask(local_HW, mask.labels, mask.colours)


def _stacked(fitted: Sequence[tuple[str, str, Mask]]) -> Mask:
    """One file a class, laid one over the other in the order of the classes' names."""
    out = np.zeros(fitted[0][2].local_HW.shape, dtype=np.uint8)
    for number, (_, file, mask) in enumerate(fitted, start=1):
        values = mask.labels
        if len(values) > 2 or (len(values) == 2 and values[0] not in ("0", "#000000")):
            raise InvalidImage(
                f"mask not of one class: {file} holds the values {', '.join(values[:5])}; "
                "a class's own file has 0 and one other value"
            )
        if values != ["0"] and values != ["#000000"]:
            out[mask.local_HW == len(values) - 1] = number
    labels = [UNCOVERED, *(label for label, _, _ in fitted)]
    return Mask(out, labels, [""] * len(labels))


def _drawn(shapes: str, picture: DecodedImage, orientation: int) -> Mask:
    """Polygons and run lengths of a COCO file, the smaller ones over the larger ones."""
    from pycocotools import mask as rle

    height, width, listed = json.loads(shapes)
    labels = [UNCOVERED, *sorted({label for label, _ in listed})]
    out = np.zeros((height, width), dtype=np.uint8)
    for label, shape in listed:
        if not shape:
            continue
        try:
            with warnings.catch_warnings():  # pycocotools 2.0.11 does not know numpy 2's copy keyword
                warnings.simplefilter("ignore", DeprecationWarning)
                whole = isinstance(shape, dict) and isinstance(shape["counts"], str)
                coded = shape if whole else rle.frPyObjects(shape, height, width)
                covered = rle.decode(rle.merge(coded) if isinstance(coded, list) else coded)
        except Exception as error:  # what is no polygon fails in many ways
            raise InvalidImage(f"mask damaged: a shape of {label!r}: {type(error).__name__}: {error}") from None
        if covered.shape != out.shape:
            raise InvalidImage(
                f"mask of another size: a shape of {label!r} is {covered.shape[1]} x {covered.shape[0]} px"
            )
        out[covered > 0] = labels.index(label)
    return _fitted(_DecodedMask(out, labels, [""] * len(labels)), "the COCO file's image", picture, orientation)
