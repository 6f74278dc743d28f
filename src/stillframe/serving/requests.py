"""From a request's body to the bytes of its images or videos; nothing is decoded here, and nothing is ever fetched.

Three kinds: multipart/form-data with files under any field names; application/json of the form `FORM`; image/*, video/*
or application/octet-stream, where the body is the image or video.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any

from python_multipart.exceptions import FormParserError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request

from stillframe.serving.errors import ApiError

TYPES = "multipart/form-data, application/json, image/*, video/* or application/octet-stream"
FORM = '{"images": ["<base64>", {"name": "a.png", "data": "<base64>"}]}'
LONGEST_NAME = 200


@dataclass(frozen=True, slots=True)
class UploadedFile:
    """One image as it came: its name, and the bytes of the file."""

    name: str
    content: bytes


async def multipart(request: Request, most: int) -> list[UploadedFile]:
    """The files of a form (ApiError: damaged, a field that is no file, too many)."""
    try:
        form = await request.form(max_files=most, max_fields=most)
    except (HTTPException, MultiPartException) as error:
        reason = str(getattr(error, "detail", "") or getattr(error, "message", error))
        if reason.startswith("Too many"):
            raise ApiError("too large", f"{reason} (serve: max_images)") from None
        raise ApiError("bad request", f"multipart/form-data that cannot be read: {reason}") from None
    except (FormParserError, LookupError, ValueError, AssertionError) as error:  # of parsers, on bytes that are no form
        raise ApiError("bad request", f"multipart/form-data that cannot be read: {error}") from None
    try:
        found = []
        for field, value in form.multi_items():
            if not isinstance(value, UploadFile):
                raise ApiError("bad request", f"the field {field!r} is no file: send it with a file name")
            found.append(UploadedFile((value.filename or field)[:LONGEST_NAME], await value.read()))
        return found
    finally:
        await form.close()


def of_json(body: bytes, most: int) -> list[UploadedFile]:
    """The images of a JSON body (ApiError: not of the form, not base64, too many)."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ApiError("bad request", f"not JSON: {error}") from None
    if not isinstance(said, dict) or set(said) != {"images"} or not isinstance(said["images"], list):
        raise ApiError("bad request", f"the JSON is not of the form {FORM}")
    images = said["images"]
    if len(images) > most:
        raise ApiError("too large", f"{len(images)} images, more than {most} (serve: max_images)")
    return [_image(at, one) for at, one in enumerate(images)]


def _image(at: int, one: Any) -> UploadedFile:
    place = f"images[{at}]"
    name, data = place, one
    if isinstance(one, dict):
        if set(one) - {"name", "data"} or "data" not in one or not isinstance(one.get("name", ""), str):
            raise ApiError("bad request", f'{place} is not of the form {{"name": "a.png", "data": "<base64>"}}')
        name, data = one.get("name", place)[:LONGEST_NAME], one["data"]
    if not isinstance(data, str):
        raise ApiError("bad request", f"{place} is {type(data).__name__}, not a text of base64")
    if data[:8].lower().startswith(("http:", "https:", "ftp:", "file:", "s3:", "gs:")):
        raise ApiError("bad request", f"{place} is an address: nothing is fetched, send the bytes as base64")
    if data.startswith("data:"):  # as a browser's canvas gives it
        head, _, data = data.partition(",")
        if not head.endswith(";base64"):
            raise ApiError("bad request", f"{place}: a data: text without ;base64")
    try:
        return UploadedFile(name, base64.b64decode(data, validate=True))
    except (binascii.Error, ValueError) as error:
        raise ApiError("bad request", f"{place} is not base64: {error}") from None
