"""sha256 of files and bytes."""

from __future__ import annotations

import hashlib
from pathlib import Path


def file_sha256(path: Path) -> str:
    """sha256 of a file of any size, in hex; it is not read into memory as a whole."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def short_sha256(content: bytes | memoryview) -> str:
    """The first 32 hex digits of the sha256 of some bytes, for file names."""
    return hashlib.sha256(content).hexdigest()[:32]
