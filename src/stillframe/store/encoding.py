"""Images, clips and maps as bytes in the store: raw where they are small, JPEG or PNG where they are large."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def encode(image: NDArray[np.uint8], encoding: str) -> bytes:
    """An image (H, W, C) as the store keeps it: its bytes ("raw"), or JPEG of quality 95 ("jpeg")."""
    if encoding == "raw":
        return image.tobytes()
    import simplejpeg

    colours = "GRAY" if image.shape[2] == 1 else "RGB"
    content: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(image), quality=95, colorspace=colours, colorsubsampling="444"
    )
    return content


def encode_map(map_HW: NDArray[np.uint8], encoding: str) -> bytes:
    """A map as the store keeps it beside images of that encoding: its bytes, or PNG, which is lossless."""
    if encoding == "raw":
        return map_HW.tobytes()
    import cv2

    done, content = cv2.imencode(".png", map_HW, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    assert done
    return content.tobytes()


def decode_map(content: bytes, encoding: str, height: int, width: int) -> NDArray[np.uint8]:
    """The inverse of `encode_map`: (height, width)."""
    values = np.frombuffer(content, dtype=np.uint8)
    if encoding == "raw":
        return values.reshape(height, width)
    import cv2

    return np.asarray(cv2.imdecode(values, cv2.IMREAD_GRAYSCALE), dtype=np.uint8)


def encode_clip(clip: NDArray[np.uint8], encoding: str) -> bytes:
    """A clip (T, H, W, C) as the store keeps it: its bytes, or its frames as JPEG."""
    return clip.tobytes() if encoding == "raw" else pack([encode(frame, encoding) for frame in clip])


def pack(frames: Sequence[bytes]) -> bytes:
    """Encoded frames as one value: their number and lengths, uint32 little endian, then the frames."""
    head = np.array([len(frames), *map(len, frames)], dtype="<u4")
    return b"".join([head.tobytes(), *frames])


def unpack(content: bytes | memoryview) -> list[bytes]:
    """The inverse of `pack`."""
    count = int(np.frombuffer(content, "<u4", 1)[0])
    ends = np.cumsum(np.frombuffer(content, "<u4", count, 4), dtype=np.int64) + 4 * (count + 1)
    starts = np.concatenate([[4 * (count + 1)], ends[:-1]])
    return [bytes(content[first:end]) for first, end in zip(starts, ends, strict=True)]
