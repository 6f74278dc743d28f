"""Errors of the API: a status, a code for machines, a sentence for people; always JSON."""

from __future__ import annotations

import json
from typing import Any

# code for machines -> status
STATUS = {
    "bad request": 400,
    "no key": 401,
    "not headers": 404,
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
        code: a key of `STATUS`.
        reason: one sentence.
        images: of the refused images the index, the name and the reason.
    """

    def __init__(self, code: str, reason: str, images: list[dict[str, Any]] | None = None) -> None:
        super().__init__(reason)
        self.code, self.reason, self.images = code, reason, images

    @property
    def status(self) -> int:
        """Of the response."""
        return STATUS[self.code]

    @property
    def headers(self) -> dict[str, str]:
        """Of the response, besides its type."""
        headers = {}
        if self.code in RETRY_AFTER_S:
            headers["retry-after"] = str(RETRY_AFTER_S[self.code])
        if self.code == "no key":
            headers["www-authenticate"] = 'Bearer realm="stillframe"'
        return headers

    def body(self) -> bytes:
        """Of the response: {"error": code, "reason": sentence, "images": [...]}."""
        content: dict[str, Any] = {"error": self.code, "reason": self.reason}
        if self.images is not None:
            content["images"] = self.images
        return json.dumps(content, ensure_ascii=False).encode("utf-8", errors="replace")
