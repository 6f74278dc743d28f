"""Made video files, for tests of every room: each frame's number can be read off its pixels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

CODECS = {
    ".mp4": ("libx264", "yuv420p"),
    ".mov": ("mjpeg", "yuvj420p"),
    ".mkv": ("libx264", "yuv420p"),
    ".webm": ("libvpx-vp9", "yuv420p"),
    ".avi": ("mpeg4", "yuv420p"),
    ".ts": ("libx264", "yuv420p"),
    ".gif": ("gif", "rgb8"),
}
STEP = 4  # gray levels from one numbered frame to the next


def numbered(count: int, height: int = 48, width: int = 64, mark: int = 0) -> list[np.ndarray]:
    """Frames whose gray level is STEP * number, uint8 (H, W, 3); white at the top left, a film's mark at its right."""
    frames = [np.full((height, width, 3), STEP * number, np.uint8) for number in range(count)]
    for frame in frames:
        frame[: height // 4, : width // 4] = 255
        frame[: height // 4, -width // 4 :] = mark * 16 % 256
    return frames


def numbers(frames: np.ndarray) -> list[int]:
    """The numbers of `numbered` frames (T, H, W, C), read from their lower right corners."""
    corner = frames[:, -frames.shape[1] // 4 :, -frames.shape[2] // 4 :]
    return np.round(corner.mean(axis=(1, 2, 3)) / STEP).astype(int).tolist()


def film(
    path: Path,
    frames: Iterable[np.ndarray],
    *,
    fps: int = 20,
    gop: int = 10,
    times: Sequence[int] | None = None,
    rotation: int = 0,
    codec: tuple[str, str] | None = None,
    options: dict[str, str] | None = None,
    sound_s: float = 0.0,
    **muxer: Any,
) -> Path:
    """Write frames, uint8 (H, W, 3), as a video; `times` are their times in ms where the rate varies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name, pixels = codec or CODECS[path.suffix]
    with av.open(str(path), "w", options={key: str(value) for key, value in muxer.items()}) as out:
        stream = None
        sound = out.add_stream("aac", rate=8000, layout="mono") if sound_s else None
        for number, image in enumerate(frames):
            if stream is None:
                stream = out.add_stream(name, rate=fps, options=options or {})
                stream.height, stream.width, stream.pix_fmt = *image.shape[:2], pixels
                stream.codec_context.bit_rate = 4_000_000
                stream.codec_context.gop_size, stream.codec_context.thread_count = gop, 1
                if times is not None:
                    stream.codec_context.time_base = Fraction(1, 1000)
                if rotation:
                    stream.set_display_rotation(rotation)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24").reformat(format=pixels)
            frame.pts = number if times is None else times[number]
            frame.time_base = Fraction(1, fps) if times is None else Fraction(1, 1000)
            out.mux(stream.encode(frame))
        if stream is not None:
            out.mux(stream.encode())
        if sound is not None:
            _silence(out, sound, sound_s)
    return path


def _silence(out: Any, stream: Any, seconds: float) -> None:
    for first in range(0, int(8000 * seconds), 1024):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 8000, first, Fraction(1, 8000)
        out.mux(stream.encode(frame))
    out.mux(stream.encode())
