"""Images as clients send them."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

from tiny import picture


def encoded(image: Image.Image | np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(file, kind, **options)
    return file.getvalue()


def png(seed: int = 0, **sizes: int) -> bytes:
    return encoded(picture(seed, **sizes))


def text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def form(*contents: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("images", (f"{at}.png", content)) for at, content in enumerate(contents)]


def bomb(width: int = 60_000, height: int = 60_000) -> bytes:
    """A whole PNG of a few bytes whose header promises so many pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    end = chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + end
