"""Parts of HTTP responses that the predictions of several tasks have."""

from __future__ import annotations

from pydantic import BaseModel, Field, JsonValue

# Schema of a PNG in base64: `Field(json_schema_extra=PNG)`. The page of the server shows such a field as an image.
PNG: dict[str, JsonValue] = {"contentEncoding": "base64", "contentMediaType": "image/png"}


class HeatMap(BaseModel):
    """What raises the score of the prediction, as a map over the image that the network took."""

    method: str = Field(examples=["occlusion"])
    png: str = Field(description="base64", json_schema_extra=PNG)


class ImageFile(BaseModel):
    """Facts of the file of the image or video."""

    format: str = Field(examples=["JPEG"])
    mode: str = Field(examples=["RGB"])
    width: int = Field(description="px")
    height: int = Field(description="px")
    frames: int = Field(description="of an image the first is used; of a video 0 where its header does not say")
    seconds: float | None = Field(description="of a video")
