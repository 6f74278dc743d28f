"""An image file whose pixels are values, not shades: read as indices into the values that it holds."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image, ImageOps

from stillframe.ingest.decode import FORMATS, ORIENTATION, DecodedImage, InvalidImage, Pixels, upright

MOST_VALUES = 250  # in one file: more are shades, or the noise of a lossy format


@dataclass(frozen=True)
class ValueMap:
    """Values, one a pixel.

    Attributes:
        index_HW: uint8 index into `values`.
        values: "7" of a gray or palette file, "#rrggbb" of a coloured one, in ascending order.
        colours: "#rrggbb" of each value in the file's palette; "" where there is none.
        turned: whether the file's own EXIF orientation turned it.
    """

    index_HW: Pixels
    values: list[str]
    colours: list[str]
    turned: bool = False


def decode_map(content: bytes, name: str, max_megapixels: float) -> ValueMap:
    """Decode a file of values, upright; `name` is the file's, for messages.

    Raises:
        InvalidImage: "too large", "damaged" or "not of classes" (shades, transparency, too many values), and the name.
    """
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        if image.width * image.height > max_megapixels * 1e6:
            raise InvalidImage(f"too large: {name} is {image.width} x {image.height} px")
        turned = int(image.getexif().get(ORIENTATION, 1)) in range(2, 9)
        if image.format == "PNG":
            Image.open(io.BytesIO(content), formats=("PNG",)).verify()
        image.load()
        return _indexed(ImageOps.exif_transpose(image), name, turned)
    except InvalidImage:
        raise
    except Exception as error:  # decoders raise many kinds on damaged files; each means that this file is refused
        raise InvalidImage(f"damaged: {name}: {type(error).__name__}: {error}") from None


def _indexed(image: Image.Image, name: str, turned: bool) -> ValueMap:
    coloured = image.mode in ("RGB", "RGBA")
    if image.mode == "RGBA" and np.asarray(image)[..., 3].min() < 255:
        raise InvalidImage(f"not of classes: {name} is partly transparent; save it without")
    if not coloured and image.mode not in ("1", "L", "P", "I", "I;16", "I;16B", "I;16L"):
        raise InvalidImage(f"not of classes: {name} has mode {image.mode}; save it as gray, palette or RGB")
    pixels = np.asarray(image)
    if coloured:
        wide = pixels.astype(np.int32)
        values, index_HW = _unique((wide[..., 0] << 16) + (wide[..., 1] << 8) + wide[..., 2])
    elif image.mode in ("L", "P", "1"):
        values, index_HW = _unique_bytes(pixels.astype(np.uint8, copy=False))
    else:
        values, index_HW = _unique(pixels.astype(np.int32))
    if len(values) > MOST_VALUES:
        raise InvalidImage(
            f"not of classes: {name} holds {len(values)} different {'colours' if coloured else 'values'}; "
            "it must be saved without loss, as PNG, not as JPEG"
        )
    names = [f"#{value:06x}" if coloured else str(value) for value in values.tolist()]
    return ValueMap(index_HW, names, _palette(image, values.tolist()), turned)


def _unique(values_HW: NDArray[np.int32]) -> tuple[NDArray[Any], Pixels]:
    """Distinct values in ascending order, and each pixel's index among them (mod 256: refused when there are more)."""
    coded = pa.array(values_HW.ravel()).dictionary_encode()  # by hashing: sorting a large photograph takes seconds
    distinct = coded.dictionary.to_numpy()
    order = np.argsort(distinct)
    rank = np.empty(len(distinct), dtype=np.uint8)
    rank[order] = np.arange(len(distinct)).astype(np.uint8)
    return distinct[order], rank[coded.indices.to_numpy()].reshape(values_HW.shape)


def _unique_bytes(values_HW: Pixels) -> tuple[NDArray[Any], Pixels]:
    """The same without sorting, and without eight bytes for each pixel."""
    occurs = cv2.calcHist([values_HW], [0], None, [256], [0, 256]).ravel() > 0
    rank = (np.cumsum(occurs) - 1).clip(0).astype(np.uint8)
    return np.flatnonzero(occurs), np.asarray(cv2.LUT(values_HW, rank), dtype=np.uint8)


def _palette(image: Image.Image, values: Sequence[int]) -> list[str]:
    """The palette's colour of each value."""
    colours = image.getpalette("RGB") if image.mode == "P" else None
    if colours is None:
        return [""] * len(values)
    return ["#" + bytes(colours[3 * value : 3 * value + 3]).hex() for value in values]


def turn_with_image(map_HW: Pixels, turned: bool, content: bytes, decoded: DecodedImage) -> Pixels:
    """A map turned as its image was by EXIF, unless it turned itself or is upright already.

    Args:
        map_HW: any map, as it is stored.
        turned: whether its own EXIF orientation has turned it.
        content: the image's file.
        decoded: what it decoded to.
    """
    if turned or not decoded.turned or map_HW.shape != (decoded.height, decoded.width):
        return map_HW
    orientation = int(Image.open(io.BytesIO(content), formats=FORMATS).getexif().get(ORIENTATION, 1))
    return upright(map_HW, orientation)
