"""What is not answered: a status, a word for machines, a sentence for people; always JSON."""

from __future__ import annotations

import json
from typing import Any

# word for machines -> status
STATUS = {
    "bad request": 400,
    "no key": 401,
    "not found": 404,
    "wrong method": 405,
    "too slow": 408,
    "too large": 413,
    "wrong type": 415,
    "refused": 422,
    "overloaded": 503,
    "draining": 503,
    "timed out": 504,
    "failed": 500,
}
RETRY_AFTER_S = {"overloaded": 1, "draining": 5, "timed out": 5}


class ApiError(Exception):
    """A request that is not answered.

    Attributes:
        word: a key of `STATUS`.
        reason: one sentence.
        images: of the refused images the place, the name and the reason.
    """

    def __init__(self, word: str, reason: str, images: list[dict[str, Any]] | None = None) -> None:
        super().__init__(reason)
        self.word, self.reason, self.images = word, reason, images

    @property
    def status(self) -> int:
        """Of the response."""
        return STATUS[self.word]

    @property
    def headers(self) -> dict[str, str]:
        """Of the response, besides its type."""
        found = {}
        if self.word in RETRY_AFTER_S:
            found["retry-after"] = str(RETRY_AFTER_S[self.word])
        if self.word == "no key":
            found["www-authenticate"] = 'Bearer realm="stillframe"'
        return found

    def body(self) -> bytes:
        """Of the response: {"error": word, "reason": sentence, "images": [...]}."""
        said: dict[str, Any] = {"error": self.word, "reason": self.reason}
        if self.images is not None:
            said["images"] = self.images
        return json.dumps(said, ensure_ascii=False).encode("utf-8", errors="replace")
