import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from stillframe.ingest.decode import InvalidImage, decode, prepare, resize, to_channels, upright
from tiny import picture


def packed(image, kind="PNG", **options):
    out = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(out, kind, **options)
    return out.getvalue()


RGB, GRAY = picture(1), picture(2, channels=1)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_keep_pixels(kind):
    seen = decode(packed(RGB, kind))
    assert (seen.format, seen.mode, seen.width, seen.height) == (kind, "RGB", 24, 20)
    assert np.array_equal(seen.image, RGB)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "JPEG2000", "AVIF", "GIF"])
def test_lossy_formats_come_close(kind):
    assert np.abs(decode(packed(RGB, kind)).image.astype(int) - RGB).mean() < 20


def test_gray_stays_one_channel():
    assert np.array_equal(decode(packed(GRAY)).image[:, :, 0], GRAY)
    assert decode(packed(GRAY, "JPEG")).image.shape == (20, 24, 1)


def test_transparency_lies_on_white():
    image = np.dstack([RGB, np.full((20, 24), 255, np.uint8)])
    image[:10, :, 3] = 0
    for kind in ("PNG", "WEBP"):
        seen = decode(packed(image, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {})))
        assert (seen.image[:10] == 255).all() and np.array_equal(seen.image[10:], RGB[10:])
        assert seen.mode == "RGBA"
    gray = Image.merge("LA", [Image.fromarray(GRAY), Image.new("L", (24, 20), 0)])
    assert decode(packed(gray)).image.shape == (20, 24, 1) and (decode(packed(gray)).image == 255).all()


def test_palette_with_and_without_transparency():
    image = Image.fromarray(RGB).quantize(16)
    plain = decode(packed(image))
    assert plain.mode == "P" and np.array_equal(plain.image, np.asarray(image.convert("RGB")))
    index = int(np.asarray(image)[0, 0])
    clear = decode(packed(image, transparency=index)).image
    assert (clear[np.asarray(image) == index] == 255).all()
    assert np.array_equal(clear[np.asarray(image) != index], plain.image[np.asarray(image) != index])


def test_one_bit_and_cmyk():
    bits = Image.fromarray(GRAY).convert("1")
    assert set(np.unique(decode(packed(bits)).image)) == {0, 255}
    assert decode(packed(bits)).mode == "1"
    ink = Image.fromarray(RGB).convert("CMYK")
    seen = decode(packed(ink, "JPEG", quality=95))
    assert seen.mode == "CMYK" and np.abs(seen.image.astype(int) - RGB).mean() < 12


def test_sixteen_bits_are_scaled_not_clipped():
    values = np.linspace(0, 65535, 24 * 20).reshape(20, 24).astype(np.uint16)
    for kind in ("PNG", "TIFF"):
        seen = decode(packed(values, kind))
        assert seen.mode.startswith("I;16")
        assert np.array_equal(seen.image[:, :, 0], np.round(values / 257.0).astype(np.uint8))


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_pixels_without_a_range_are_refused(kind):
    with pytest.raises(InvalidImage, match="32-bit pixels have no known range"):
        decode(packed(Image.fromarray(RGB[:, :, 0].astype(kind)), "TIFF"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once(kind, orientation):
    stored = np.zeros((16, 24, 3), np.uint8)
    stored[:8, :8, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    seen = decode(packed(stored, kind, exif=exif))
    assert seen.turned == (orientation != 1)
    assert np.abs(seen.image.astype(int) - upright(stored, orientation)).mean() < 6
    corners = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}
    assert seen.image[corners[orientation]][0] > 200
    assert seen.image.shape[:2] == ((16, 24) if orientation < 5 else (24, 16))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG"])
def test_first_frame_of_several(kind):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "lime", "blue")]
    seen = decode(packed(frames[0], kind, save_all=True, append_images=frames[1:]))
    assert seen.frames == 3 and seen.image.shape == (16, 16, 3)
    assert seen.image[8, 8, 0] > 240 and seen.image[8, 8, 1] < 15


@pytest.mark.parametrize(
    "content", [b"", b"<html>no such page</html>", b"just text", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"]
)
def test_what_is_no_image_is_refused(content):
    with pytest.raises(InvalidImage, match=r"^(empty file|not an image|damaged): "):
        decode(content)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM"])
def test_a_cut_file_is_refused(kind):
    whole = packed(picture(3, 64, 64), kind)
    for share in (0.3, 0.6, 0.9):
        with pytest.raises(InvalidImage):
            decode(whole[: int(len(whole) * share)])


def test_each_flipped_png_byte_is_refused_or_harmless():
    whole, good = packed(RGB), RGB
    for place in range(8, len(whole), 7):
        broken = bytearray(whole)
        broken[place] ^= 0x10
        try:
            image = decode(bytes(broken)).image
        except InvalidImage:
            continue
        assert np.array_equal(image, good), place


def test_flipped_jpeg_bytes_never_give_a_partly_gray_image_quietly():
    whole = packed(picture(4, 96, 96), "JPEG", quality=90)
    refused = 0
    for place in range(2, len(whole), 5):
        broken = bytearray(whole)
        broken[place] = 0xFF if broken[place] != 0xFF else 0xD9
        try:
            assert decode(bytes(broken)).image.shape[2] in (1, 3)
        except InvalidImage:
            refused += 1
    assert refused > 50


def test_size_is_judged_from_the_header(monkeypatch):
    small, dot = packed(GRAY), packed(GRAY[:1, :1])
    header = bytearray(small)
    header[16:24] = struct.pack(">II", 60000, 60000)  # a bomb: 3,600 megapixels in some hundred bytes
    header[29:33] = struct.pack(">I", zlib.crc32(bytes(header[12:29])))
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("memory was spent"))
    with pytest.raises(InvalidImage, match="too large: "):
        decode(bytes(header))
    with pytest.raises(InvalidImage, match="24 x 20 px, more than data.max_megapixels"):
        decode(small, max_megapixels=0.0001)
    with pytest.raises(InvalidImage, match="too small: 1 x 1 px"):
        decode(dot, min_px=2)


def test_resize_squash_pad_crop():
    image = np.zeros((10, 20, 3), np.uint8)
    image[:, 5:15] = 200
    assert resize(image, 8, "squash").shape == (8, 8, 3)
    padded = resize(image, 20, "pad")
    assert (padded[:5] == 0).all() and (padded[15:] == 0).all() and padded[10, 10, 0] == 200
    cropped = resize(image, 10, "crop")
    assert cropped.shape == (10, 10, 3) and (cropped == 200).all()
    assert np.array_equal(resize(image[:, :10], 10, "crop"), image[:, :10])
    checks = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)[:, :, None]
    assert np.ptp(resize(checks, 16, "squash")) <= 1  # area averaging: no moire


def test_channels_by_one_rule():
    assert np.array_equal(to_channels(GRAY[:, :, None], 3), np.dstack([GRAY] * 3))
    assert np.abs(to_channels(RGB, 1)[:, :, 0].astype(int) - np.asarray(Image.fromarray(RGB).convert("L"))).max() <= 1
    assert prepare(RGB, 16, "pad", 1).shape == (16, 16, 1)
