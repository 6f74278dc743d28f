"""A model of clips over HTTP: a video is answered as evaluate would, a long one is sent to `stillframe predict`."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from apps import Serving
from PIL import Image
from sending import png

from reels import FACTS, Brightness, film


def of(path: Path) -> list[tuple[str, tuple[str, bytes]]]:
    return [("videos", (path.name, path.read_bytes()))]


def test_videos_are_answered_in_forms_and_as_bodies(serving: Serving, tmp_path: Path) -> None:
    client = serving(Brightness()).client
    dark, bright = film(tmp_path / "dark.mp4", [51] * 8), film(tmp_path / "bright.mp4", [204] * 16)
    said = client.post("/predict", files=of(dark) + of(bright)).json()["predictions"]
    assert [(one["name"], one["decision"]) for one in said] == [("dark.mp4", "dark"), ("bright.mp4", "bright")]
    assert said[1]["probability"] == pytest.approx(0.8, abs=0.01)
    file = {name: said[1]["file"][name] for name in ("format", "mode", "width", "height", "seconds")}
    assert file == {"format": "MP4", "mode": "RGB", "width": 48, "height": 32, "seconds": 2.0}
    body = client.post("/predict", content=dark.read_bytes(), headers={"content-type": "video/mp4"})
    assert body.json()["predictions"][0]["probabilities"] == said[0]["probabilities"]


def test_what_is_no_short_video_is_refused(serving: Serving, tmp_path: Path) -> None:
    client = serving(Brightness(), max_seconds=3.0).client
    long = client.post("/predict", files=of(film(tmp_path / "long.mp4", [9] * 32)))
    assert long.status_code == 413 and "4.0 s, more than 3 (serve: max_seconds); `stillframe predict`" in long.text
    image = client.post("/predict", files=[("videos", ("a.png", png(1)))])
    assert image.status_code == 422 and "not a video" in image.text
    assert client.get("/model").json()["limits"]["max_seconds"] == 3.0


def test_a_heat_map_is_a_strip(serving: Serving, tmp_path: Path, monkeypatch: Any) -> None:
    def heat(model: Any, image: np.ndarray, decision: int) -> Any:
        return image[0], np.full(image.shape[1:4], 0.5, np.float32), "none"

    monkeypatch.setattr("stillframe.serving.service.explain_prediction", heat)
    client = serving(Brightness(replace(FACTS, size=20))).client
    said = client.post("/predict?explain=true", files=of(film(tmp_path / "a.mp4", [51] * 8))).json()
    with Image.open(io.BytesIO(base64.b64decode(said["predictions"][0]["heat_map"]["png"]))) as strip:
        assert strip.size == (4 * 20 + 3 * 2, 20)
