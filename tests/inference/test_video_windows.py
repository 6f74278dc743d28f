"""`stillframe predict` on videos: a row for a short one, a timeline for a long one, whatever its length."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from exported import predicted
from reels import FACTS, Brightness, film, write_file
from stillframe.cli import main
from stillframe.drawing.text import series_color as rgb
from stillframe.inference import predict as predict_module
from stillframe.inference.onnx_model import OnnxModel
from stillframe.inference.predict import predict
from stillframe.inference.video_windows import windows_of
from stillframe.ingest.video.decode import frames_at, probe
from stillframe.ingest.video.views import ClipReader


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[Brightness]:
    """Asked in place of an exported file: clips of 4 frames, 4 a second."""
    made = Brightness()
    monkeypatch.setattr(predict_module, "open_model", lambda name, threads: made)
    yield made


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """A short one, one of 10.6 s that turns bright after 5 s, and two that cannot be read."""
    folder = tmp_path / "in put"
    film(folder / "a short.mp4", [30] * 8)
    film(folder / "deep/long.mp4", [20] * 40 + [230] * 45)
    (folder / "deep/no.mp4").write_bytes(b"<html>")
    whole = film(tmp_path / "whole.mp4", [20] * 400).read_bytes()
    (folder / "torn.mp4").write_bytes(whole[:-3000])
    (folder / "notes.txt").write_text("passed over")
    return folder


def table_of(tmp_path: Path, *paths: Path, **options: Any) -> pd.DataFrame:
    out = tmp_path / "answers.parquet"
    predict([str(path) for path in paths], out=str(out), threads=1, quiet=True, **options)
    return pd.read_parquet(out)


def test_a_short_video_has_one_row_and_a_long_one_a_row_a_window(
    model: Brightness, videos: Path, tmp_path: Path
) -> None:
    table = table_of(tmp_path, videos, batch=3)
    names = [str(Path(path).relative_to(videos)) for path in table["path"]]
    assert names == ["a short.mp4", *["deep/long.mp4"] * 11, "deep/no.mp4", "torn.mp4"]
    reasons = table.set_index(pd.Index(names))["reason"]
    assert reasons["deep/no.mp4"].startswith("not a video") and reasons["torn.mp4"].startswith("truncated")
    assert table["start"].isna().tolist() == [bool(reason) for reason in table["reason"]]
    long = table[[name == "deep/long.mp4" for name in names]]
    np.testing.assert_allclose(long["start"], [*range(10), 9.5], atol=1e-6)
    np.testing.assert_allclose(long["end"], [*range(1, 11), 10.625], atol=1e-6)
    assert long["predicted"].tolist() == ["dark"] * 5 + ["bright"] * 6
    assert 0 < model.largest <= 3


def test_an_exported_file_answers_as_evaluate_asks(videos: Path, tmp_path: Path) -> None:
    """All views of a video together, frames of any size."""
    facts = replace(FACTS, views=2)
    file = OnnxModel(write_file(tmp_path / "model.onnx", facts), threads=1)
    out = tmp_path / "answers.csv"
    predict([str(videos / "a short.mp4")], model=str(file.path), out=str(out), threads=1, quiet=True)
    views = ClipReader(4, 4.0, 2, 8, 1.0)(videos / "a short.mp4").image
    assert views.shape == (2, 4, 32, 48, 3)
    (row,) = pd.read_csv(out).to_dict("records")
    assert (row["start"], row["end"], row["predicted"]) == (0.0, 1.0, "dark")
    assert row["probability/bright"] == pytest.approx(predicted(file, [views]).probability_NK[0, 1], abs=1e-5)


def test_windows_of_any_length_and_stride_see_the_frames_that_are_shown_then(videos: Path) -> None:
    path = videos / "deep/long.mp4"
    about = probe(path)
    found = list(windows_of(path, about, FACTS, 2.0, 0.5))
    assert [start for start, _, _ in found] == [0.5 * at for at in range(18)]
    for start, end, clip in found:
        assert end == pytest.approx(start + 2.0 if start < 8.5 else about.seconds)
        levels = frames_at(path, start + 0.25 + 0.5 * np.arange(4)).mean((1, 2, 3))
        np.testing.assert_allclose(clip.mean((1, 2, 3)), levels, atol=1)
    ((start, end, clip),) = windows_of(path, about, FACTS, 60.0, 60.0)
    assert (start, end) == (0.0, about.seconds) and clip[-1].mean() > 200 > clip[0].mean()


def test_a_window_may_be_asked_for_where_clips_span_whole_videos(
    model: Brightness, videos: Path, tmp_path: Path
) -> None:
    long = videos / "deep/long.mp4"
    for usual, rows in ((None, 1), (6.0, 1), (5.0, 2)):
        model.metadata = replace(FACTS, fps=None, seconds=usual)
        assert len(table_of(tmp_path, long)) == rows, "in windows where it is more than twice as long as usual"
    assert table_of(tmp_path, long)["end"].tolist() == [5.0, 10.625], "the last one ends with the video"
    model.metadata = replace(FACTS, fps=None)
    assert len(table_of(tmp_path, long, window=4.0)) == 3
    with pytest.raises(ValueError, match="give --window, too"):
        table_of(tmp_path, long, stride=1.0)


def test_all_formats_hold_the_seconds(model: Brightness, videos: Path, tmp_path: Path, capfd: Any) -> None:
    table = table_of(tmp_path, videos)
    assert main(["predict", str(videos), "--out", "jsonl", "--strict"]) == 1
    said, summary = capfd.readouterr()
    lines = [json.loads(line) for line in said.splitlines()]
    assert [line["start"] for line in lines] == table["start"].astype(object).where(
        table["start"].notna(), None
    ).tolist()
    assert "12 windows" in summary and "refused: 2" in summary and "predicting, seconds: 11 of 11" in summary
    assert "not a video by name or content 1" in summary
    assert main(["predict", str(videos), "--quiet"]) == 0
    assert capfd.readouterr().out.startswith("path,start,end,predicted,confidence,")


def test_an_annotated_video_shows_answer_and_timeline(model: Brightness, videos: Path, tmp_path: Path) -> None:
    drawn = tmp_path / "drawn"
    table_of(tmp_path, videos, annotate=drawn)
    assert sorted(path.name for path in drawn.iterdir()) == ["0001_a_short.mp4", "0002_long.mp4"]
    with av.open(str(drawn / "0002_long.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 85 and probe(drawn / "0002_long.mp4").seconds == pytest.approx(10.625, abs=0.01)
    height, width = frames[0].shape[:2]
    assert width >= 320 and height > 320 * 32 / 48
    for frame, at in ((frames[16], 0), (frames[80], 1)):
        left, right = frame[-4, width // 4], frame[-4, width * 2 // 3]
        assert np.abs(left.astype(int) - rgb(0)).max() < 60 and np.abs(right.astype(int) - rgb(1)).max() < 60
        assert np.abs(frame[12, 11].astype(int) - rgb(at)).max() < 60, "the colour of the answer beside its name"


def test_heat_maps_of_videos_are_strips(model: Brightness, videos: Path, tmp_path: Path, monkeypatch: Any) -> None:
    def heat(model: Any, image: np.ndarray, decision: int) -> Any:
        return image, np.zeros(image.shape[:3], np.float32), "none"

    monkeypatch.setattr("stillframe.inference.predict.explain_prediction", heat)
    table = table_of(tmp_path, videos / "deep/long.mp4", explain=True)
    assert table["heat"].nunique() == 11
    with Image.open(tmp_path / table["heat"].iloc[0]) as strip:
        assert strip.size == (4 * 16 + 3 * 2, 2 * 16)


def test_arguments_that_do_not_fit_are_one_line(model: Brightness, videos: Path, tmp_path: Path) -> None:
    for given, words in [({"window": 0.0}, "--window 0: seconds"), ({"stride": -1.0}, "--stride -1: seconds")]:
        with pytest.raises(ValueError, match=words):
            table_of(tmp_path, videos, **given)
    model.metadata = replace(FACTS, frames=1)
    with pytest.raises(ValueError, match="--annotate is about videos"):
        table_of(tmp_path, videos, annotate=tmp_path / "drawn")


def test_memory_does_not_grow_with_the_length(model: Brightness, tmp_path: Path) -> None:
    """Frames of 64 x 64 px: those that the long video has more would take 12 MB."""
    peaks = []
    for seconds in (20, 120):
        path = film(tmp_path / f"{seconds}.mp4", [at % 200 for at in range(10 * seconds)], fps=10, width=64, height=64)
        tracemalloc.start()
        table = table_of(tmp_path, path, annotate=tmp_path / f"{seconds}", batch=1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(table) == seconds
    assert peaks[1] - peaks[0] < 1_000_000, peaks
