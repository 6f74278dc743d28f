"""Parts of HTTP responses that the predictions of several tasks have."""

from __future__ import annotations

from pydantic import BaseModel, Field


class HeatMap(BaseModel):
    """Where the model looked: the picture as the net was shown it, under the map."""

    method: str = Field(examples=["occlusion"])
    png: str = Field(description="base64")


class ImageFile(BaseModel):
    """What the file of the image or video was."""

    format: str = Field(examples=["JPEG"])
    mode: str = Field(examples=["RGB"])
    width: int = Field(description="px")
    height: int = Field(description="px")
    frames: int = Field(description="of an image the first is used; of a video 0 where its header does not say")
    seconds: float | None = Field(description="of a video")
