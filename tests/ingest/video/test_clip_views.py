"""Videos read once more after preprocessing: by their ids, the very frames that were prepared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from clips import film, numbered
from stillframe.config import DataConfig, build
from stillframe.ingest.decode import InvalidImage, prepare
from stillframe.ingest.prepare import prepare as prepare_source
from stillframe.ingest.read_image import SourceImages
from stillframe.ingest.video.views import ClipReader
from stillframe.store.split import Split
from stillframe.tasks.classification.target import TARGET
from tiny import DATA

CLIP = {"frames": 4, "stored": 6, "fps": 8.0, "sampling": "uniform", "views": 2, "reversible": False}


def data(**changes: Any) -> DataConfig:
    made: DataConfig = build("data", DATA | {"workers": 1, "near_duplicates": "off", "clip": CLIP} | changes)
    return made


def test_originals_are_the_frames_that_were_prepared(tmp_path: Path) -> None:
    """Videos of two sizes, and a part of one that a table names; # in a file's name is no part."""
    source, rows = tmp_path / "source", []
    for at in range(8):
        name = f"{'a#1-2' if at == 3 else at}.mp4"
        film(source / name, numbered(30, 48 + 16 * (at % 2), 64, mark=at))
        rows.append(
            {"path": name, "label": "even" if at % 2 else "odd", "start": 0.4 if at == 5 else None, "end": None}
        )
    pd.DataFrame(rows).to_csv(source / "table.csv", index=False)
    section = data(table="table.csv", columns={**DATA["columns"], "start": "start", "end": "end"})
    prepare_source(source, section, TARGET, seed=0, out=tmp_path / "prepared", work=tmp_path / "work")
    originals, seen = SourceImages(source, section, tmp_path / "unpacked"), set()
    for name in ("val", "test"):
        split = Split(tmp_path / "prepared" / name)
        for row_id, places in split.table.groupby("source_id").indices.items():
            views = originals(str(row_id)).image
            shown = [[prepare(frame, 16, "squash", split.channels) for frame in view] for view in views]
            np.testing.assert_array_equal(np.array(shown), split.images(places))
            seen.add(str(row_id))
    assert len(seen) >= 3
    part = originals("5.mp4#0.4-").image
    assert part.shape == (2, 4, 64, 64, 3) and part[0].mean() > originals("5.mp4").image[0].mean()
    assert originals("a#1-2.mp4").image.shape == (2, 4, 64, 64, 3)


def test_frames_may_be_changed_as_they_are_decoded(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", numbered(30))
    read = ClipReader(frames=4, fps=None, views=3, min_px=8, max_megapixels=1.0)
    small = read(path, change=lambda frame: prepare(frame, 8, "squash", 3))
    whole = read(path)
    assert small.image.shape == (3, 4, 8, 8, 3) and whole.image.shape == (3, 4, 48, 64, 3)
    shown = [[prepare(frame, 8, "squash", 3) for frame in view] for view in whole.image]
    np.testing.assert_array_equal(small.image, np.array(shown))
    assert (whole.mode, whole.width, whole.height, whole.frames) == ("RGB", 64, 48, 30)


def test_what_is_no_video_is_refused_with_the_reason(tmp_path: Path) -> None:
    read = ClipReader(frames=4, fps=None, views=1, min_px=8, max_megapixels=1.0)
    (tmp_path / "a.mp4").write_bytes(b"<html>")
    for name, reason in (("a.mp4", "not a video"), ("b.mp4", "unreadable: No such file")):
        with pytest.raises(InvalidImage, match=reason):
            read(tmp_path / name)
