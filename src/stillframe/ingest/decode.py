"""From the bytes of a file to pixels, by one rule, for preprocessing and prediction alike.

The rule: the header first (format by content, size, mode), refusing what is too large or too small before memory is
spent; strict decoding, so that a damaged file is an error and never a partly gray image; first frame of an animation;
EXIF orientation applied once; then

    1, L                      gray                        16-bit gray      gray, value / 257, rounded
    LA, La                    gray on white               16-bit RGB PNG   RGB, high byte
    RGB, YCbCr, HSV           RGB                         CMYK             RGB, by Pillow's plain formula, no profile
    RGBA, P with transparency RGB on white                32-bit, float    refused: their range is not known
    P                         RGB
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageOps,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

Pixels = NDArray[np.uint8]

# the formats that are read, registered by importing their readers; none of them runs another program (EPS would)
READERS = {
    "JPEG": JpegImagePlugin,  # and MPO, the multi-image JPEG of phones
    "PNG": PngImagePlugin,
    "GIF": GifImagePlugin,
    "WEBP": WebPImagePlugin,
    "BMP": BmpImagePlugin,
    "TIFF": TiffImagePlugin,
    "PPM": PpmImagePlugin,
    "JPEG2000": Jpeg2KImagePlugin,
    "AVIF": AvifImagePlugin,
}
FORMATS = tuple(READERS)
WHITE = 255
ORIENTATION = 0x0112  # the EXIF tag


class InvalidImage(ValueError):
    """An image that is not used; the text is "kind: detail" for quarantine.csv."""

    @property
    def kind(self) -> str:
        """The part that is counted."""
        return str(self).split(":", 1)[0]


@dataclass(frozen=True)
class DecodedImage:
    """A decoded image.

    Attributes:
        image: uint8 (H, W, C), C = 1 or 3, upright.
        mode: of the file, in PIL's words; ";16" where the file has 16 bits a channel.
        format: of the file, by its content.
        width: of the file's header, px.
        height: of the file's header, px.
        frames: in the file; the first is used.
        turned: whether EXIF orientation changed the image.
        notes: what the decoder remarked.
    """

    image: Pixels
    mode: str
    format: str
    width: int
    height: int
    frames: int = 1
    turned: bool = False
    notes: tuple[str, ...] = ()


def decode(data: bytes, *, min_px: int = 1, max_megapixels: float = 100.0) -> DecodedImage:
    """Decode one image file.

    Args:
        data: the whole file.
        min_px: images with a shorter side are refused.
        max_megapixels: larger images are refused, from the header.

    Raises:
        InvalidImage: with the reason.
    """
    if not data:
        raise InvalidImage("empty file: 0 bytes")
    with warnings.catch_warnings(record=True) as remarks:
        warnings.simplefilter("always")
        try:
            decoded = _decode(data, min_px, max_megapixels)
        except InvalidImage:
            raise
        except UnidentifiedImageError:
            raise InvalidImage(f"not an image: begins with {data[:12]!r}") from None
        except Image.DecompressionBombError as error:
            raise InvalidImage(f"too large: {error}") from None
        except MemoryError:
            raise InvalidImage("too large: does not fit into memory") from None
        except Exception as error:  # decoders raise many kinds on damaged files; each means that this file is refused
            raise InvalidImage(f"damaged: {type(error).__name__}: {error}") from None
    notes = sorted(
        {
            str(remark.message)[:200]
            for remark in remarks
            if not issubclass(remark.category, Image.DecompressionBombWarning)
        }
    )
    return DecodedImage(**{**vars(decoded), "notes": tuple(notes)})


def _decode(data: bytes, min_px: int, max_megapixels: float) -> DecodedImage:
    file = Image.open(io.BytesIO(data), formats=FORMATS)
    width, height, kind, mode = file.width, file.height, str(file.format), file.mode
    if width * height > max_megapixels * 1e6:
        raise InvalidImage(f"too large: {width} x {height} px, more than data.max_megapixels = {max_megapixels:g}")
    if min(width, height) < min_px:
        raise InvalidImage(f"too small: {width} x {height} px, less than data.min_px = {min_px}")
    if mode in ("I", "F") or (kind == "PPM" and mode.startswith("I")):
        raise InvalidImage(f"mode {mode}: 32-bit pixels have no known range; save as 8 or 16 bit")
    if kind == "PNG":
        Image.open(io.BytesIO(data), formats=("PNG",)).verify()  # the checksums, which load() passes over
        if data[24] == 16 and "16" not in mode:
            mode += ";16"
    frames = int(getattr(file, "n_frames", 1))
    if kind in ("JPEG", "MPO") and mode in ("L", "RGB"):
        image, turned = _jpeg(data, file)
    else:
        turned = int(file.getexif().get(ORIENTATION, 1)) in range(2, 9)
        file.seek(0)
        file.load()
        image = _pixels(ImageOps.exif_transpose(file))
    return DecodedImage(image, mode, kind, width, height, frames, turned)


def _jpeg(data: bytes, file: Image.Image) -> tuple[Pixels, bool]:
    import simplejpeg

    orientation = int(file.getexif().get(ORIENTATION, 1))
    colours = "GRAY" if file.mode == "L" else "RGB"
    image: Pixels = simplejpeg.decode_jpeg(data, colorspace=colours, strict=True)
    if image.shape[:2] != (file.height, file.width):
        raise InvalidImage(
            f"damaged: the header says {file.width} x {file.height} px, the content {image.shape[1]} x {image.shape[0]}"
        )
    return upright(image, orientation), orientation in range(2, 9)


def upright(image: Pixels, orientation: int) -> Pixels:
    """Undo an EXIF orientation (1-8) of a stored image or mask; other values leave it as it is."""
    if orientation in (5, 6, 7, 8):
        image = image.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)


def _pixels(file: Image.Image) -> Pixels:
    """A loaded PIL image as uint8 (H, W, 1 or 3)."""
    if file.mode.startswith("I;16"):
        values = np.asarray(file).astype(np.float64)
        return np.round(values / 257.0).astype(np.uint8)[:, :, None]
    gray = file.mode in ("1", "L", "LA", "La")
    if file.has_transparency_data or file.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        coloured = file.convert("RGBA")
        ground = Image.new("RGBA", coloured.size, (WHITE, WHITE, WHITE, WHITE))
        flat = Image.alpha_composite(ground, coloured).convert("RGB")
        return np.asarray(flat)[:, :, :1].copy() if gray else np.asarray(flat).copy()
    return np.asarray(file.convert("L"))[:, :, None].copy() if gray else np.asarray(file.convert("RGB")).copy()


def scaled(height: int, width: int, size: int, how: str) -> tuple[int, int]:
    """Height and width in px to which `resize` brings an image, before it pads or crops."""
    if how == "squash":
        return size, size
    scale = size / (max(height, width) if how == "pad" else min(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def resize(image: Pixels, size: int, how: str) -> Pixels:
    """Make an image square: uint8 (H, W, C) -> (size, size, C).

    Args:
        image: uint8, C = 1 or 3.
        size: px.
        how: "squash" (both axes to `size`), "pad" (longer side to `size`, black around), "crop" (shorter side to
            `size`, the middle is kept).
    """
    height, width = image.shape[:2]
    new_height, new_width = scaled(height, width, size, how)
    if (new_height, new_width) != (height, width):
        # area averaging is exact when shrinking; it makes blocks when enlarging
        shrinks = new_height <= height and new_width <= width
        mixed = cv2.resize(
            image, (new_width, new_height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        )
        image = np.asarray(mixed, dtype=np.uint8).reshape(new_height, new_width, image.shape[2])
    return _framed(image, size, how, 0)


def resize_nearest(values_HW: Pixels, size: int, how: str, fill: int) -> Pixels:
    """A map of values (H, W) moved as `resize` moves its image: nearest neighbour, padded with `fill`."""
    height, width = scaled(values_HW.shape[0], values_HW.shape[1], size, how)
    if (height, width) != values_HW.shape:
        nearest = cv2.resize(values_HW, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
        values_HW = np.asarray(nearest, dtype=np.uint8)
    return _framed(values_HW, size, how, fill)


def _framed(image: Pixels, size: int, how: str, fill: int) -> Pixels:
    """The middle of an image of the right scale, or the image in the middle of `fill`: (size, size[, C])."""
    height, width = image.shape[:2]
    if how == "pad":
        top, left = (size - height) // 2, (size - width) // 2
        out = np.full((size, size, *image.shape[2:]), fill, dtype=np.uint8)
        out[top : top + height, left : left + width] = image
        return out
    top, left = (height - size) // 2, (width - size) // 2
    return np.ascontiguousarray(image[top : top + size, left : left + size])


def to_channels(image: Pixels, channels: int) -> Pixels:
    """uint8 (H, W, 1 or 3) -> (H, W, channels); gray by the ITU-R BT.601 weights."""
    if image.shape[2] == channels:
        return image
    if channels == 3:
        return np.repeat(image, 3, axis=2)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), dtype=np.uint8)[:, :, None]


def prepare(image: Pixels, size: int, how: str, channels: int) -> Pixels:
    """What a net is shown: `resize`, then `to_channels`. The predictor calls this with the card's values."""
    return to_channels(resize(image, size, how), channels)
