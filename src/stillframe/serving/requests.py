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


async def multipart(request: Request, max_images: int) -> list[UploadedFile]:
    """The files of a form (ApiError: damaged, a field that is no file, too many)."""
    try:
        form = await request.form(max_files=max_images, max_fields=max_images)
    except (HTTPException, MultiPartException) as error:
        reason = str(getattr(error, "detail", "") or getattr(error, "message", error))
        if reason.startswith("Too many"):
            raise ApiError("too large", f"{reason} (serve: max_images)") from None
        raise ApiError("bad request", f"multipart/form-data that cannot be read: {reason}") from None
    except (FormParserError, LookupError, ValueError, AssertionError) as error:  # of parsers, on bytes that are no form
        raise ApiError("bad request", f"multipart/form-data that cannot be read: {error}") from None
    try:
        files = []
        for field, value in form.multi_items():
            if not isinstance(value, UploadFile):
                raise ApiError("bad request", f"the field {field!r} is no file: send it with a file name")
            files.append(UploadedFile((value.filename or field)[:LONGEST_NAME], await value.read()))
        return files
    finally:
        await form.close()


def of_json(body: bytes, max_images: int) -> list[UploadedFile]:
    """The images of a JSON body (ApiError: not of the form, not base64, too many)."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ApiError("bad request", f"not JSON: {error}") from None
    if not isinstance(content, dict) or set(content) != {"images"} or not isinstance(content["images"], list):
        raise ApiError("bad request", f"the JSON is not of the form {FORM}")
    images = content["images"]
    if len(images) > max_images:
        raise ApiError("too large", f"{len(images)} images, more than {max_images} (serve: max_images)")
    return [_image(f"images[{index}]", image) for index, image in enumerate(images)]


def _image(field: str, image: Any) -> UploadedFile:
    name, data = field, image
    if isinstance(image, dict):
        if set(image) - {"name", "data"} or "data" not in image or not isinstance(image.get("name", ""), str):
            raise ApiError("bad request", f'{field} is not of the form {{"name": "a.png", "data": "<base64>"}}')
        name, data = image.get("name", field)[:LONGEST_NAME], image["data"]
    if not isinstance(data, str):
        raise ApiError("bad request", f"{field} is {type(data).__name__}, not a text of base64")
    if data[:8].lower().startswith(("http:", "https:", "ftp:", "file:", "s3:", "gs:")):
        raise ApiError("bad request", f"{field} is an address: nothing is fetched, send the bytes as base64")
    if data.startswith("data:"):  # as a browser's canvas gives it
        head, _, data = data.partition(",")
        if not head.endswith(";base64"):
            raise ApiError("bad request", f"{field}: a data: text without ;base64")
    try:
        return UploadedFile(name, base64.b64decode(data, validate=True))
    except (binascii.Error, ValueError) as error:
        raise ApiError("bad request", f"{field} is not base64: {error}") from None
