"""Videos in preprocessing: reading one into the spool, and the rows of the store that are made of its frames."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from stillframe.config import ClipConfig
from stillframe.drawing.frame_strip import strip_frames
from stillframe.hashing import file_sha256
from stillframe.ingest.decode import InvalidImage, Pixels, resize, to_channels
from stillframe.ingest.image_hash import fingerprints
from stillframe.ingest.ingest_config import IngestConfig
from stillframe.ingest.listing import SourceRow
from stillframe.ingest.video import decode
from stillframe.ingest.video.reader import VideoInfo
from stillframe.ingest.video.views import container_of
from stillframe.store.encoding import encode, pack, unpack
from stillframe.store.frame_sampling import FrameTimes

BEYOND_S = 1.0  # a table's end may lie so far behind the file's


def examine_clip(row: SourceRow, path: Path, clip: ClipConfig, config: IngestConfig, record: dict[str, Any]) -> None:
    """Read one video or a part of one, and fill in its record: facts, fingerprints, and the frames of its rows.

    Args:
        row: the sample.
        path: of its file.
        clip: section `data.clip`.
        config: how images are prepared.
        record: of the spool; changed.

    Raises:
        InvalidImage: with the reason. OSError: the file cannot be read.
    """
    seen = path.stat()
    record["bytes"], record["time_ns"], record["sha256"] = seen.st_size, seen.st_mtime_ns, file_sha256(path)

    def shrink(image: Pixels) -> Pixels:
        small = resize(image, config.image_size, config.resize)
        return small if config.channels == "auto" else to_channels(small, 1 if config.channels == "gray" else 3)

    def choose(facts: VideoInfo) -> NDArray[np.float64]:
        return FrameTimes.of(clip, row.start, _end(row, facts)).seconds_N

    facts, frame_N = decode.read(
        path, choose, change=shrink, min_px=config.min_px, max_megapixels=config.max_megapixels
    )
    _describe(record, facts, frame_N)
    if config.encoding == "none":
        return
    train = frame_N[FrameTimes.of(clip, row.start, _end(row, facts)).train_S]
    # how often each value occurs, channel by channel: a sixth of the time of sums over float64
    often = [np.bincount(train[..., channel].ravel(), minlength=256) for channel in range(train.shape[-1])]
    record["sums"] = [float(count @ np.arange(256)) for count in often]
    record["squares"] = [float(count @ np.arange(256) ** 2) for count in often]
    record["image"] = pack([encode(frame, config.encoding) for frame in frame_N])
    record["start"], record["end"] = row.start, _end(row, facts)


def _end(row: SourceRow, facts: VideoInfo) -> float:
    """Where a sample ends in its file, s (InvalidImage: the table names seconds that the file does not have)."""
    if row.start >= facts.seconds:
        raise InvalidImage(f"outside the video: begins at {row.start:g} s, the video ends at {facts.seconds:.2f} s")
    if row.end is not None and row.end > facts.seconds + BEYOND_S:
        raise InvalidImage(f"outside the video: ends at {row.end:g} s, the video at {facts.seconds:.2f} s")
    return min(row.end if row.end is not None else math.inf, facts.seconds)


def _describe(record: dict[str, Any], facts: VideoInfo, frame_N: Pixels) -> None:
    """Size, format and fingerprints; two clips look alike when four of their frames do."""
    record |= {"mode": facts.codec, "format": container_of(facts), "frames": 1}
    record |= {"width": facts.width, "height": facts.height, "channels": frame_N.shape[-1]}
    four = frame_N[(np.arange(4) * 2 + 1) * len(frame_N) // 8]
    _, record["phash"], thumb = fingerprints(np.vstack([np.hstack([*four[:2]]), np.hstack([*four[2:]])]))
    record["thumb"] = thumb.tobytes()
    record["pixels"] = hashlib.sha256(repr(frame_N.shape).encode() + frame_N.tobytes()).hexdigest()


def rows_of(
    row: dict[str, Any], record: dict[str, Any], split: str, clip: ClipConfig, channels: int, config: IngestConfig
) -> list[dict[str, Any]]:
    """The rows of one video: one of the stored frames for training, one a view for validation and test.

    Args:
        row: the columns that all its rows share; `id` is the video's.
        record: of the survey.
        split: "train", "val" or "test".
        clip: section `data.clip`.
        channels: of the data set.
        config: how images are prepared.

    Returns:
        Rows of the store. The views of a video share `source_id`; their ids end in "@0", "@1", ...
    """
    frames = unpack(record["image"])
    if config.encoding == "raw" and record["channels"] != channels:
        # a gray video in a colour data set: raw frames have a fixed number of bytes, so all of them need 3 channels
        shape = (config.image_size, config.image_size, record["channels"])
        frames = [
            to_channels(np.frombuffer(frame, dtype=np.uint8).reshape(shape), channels).tobytes() for frame in frames
        ]
    wanted = FrameTimes.of(clip, record["start"], record["end"])
    picks = wanted.train_S[None] if split == "train" else wanted.views_VT
    rows = []
    for view, pick_T in enumerate(picks):
        name = row["id"] if len(picks) == 1 else f"{row['id']}@{view}"
        image = join([frames[index] for index in pick_T], config.encoding)
        rows.append({**row, "id": name, "source_id": row["id"], "image": image})
    return rows


def join(frames: list[bytes], encoding: str) -> bytes:
    """The frames of a clip as a row of the store holds them."""
    return b"".join(frames) if encoding == "raw" else pack(frames)


def some_frames(image: bytes, encoding: str, size: int, most: int) -> Pixels:
    """Of the frames that the survey keeps at most `most`, evenly, for the audit page: (n, size, size, C)."""
    frames = unpack(image)
    return np.stack([_decoded(frames[i], encoding, size) for i in strip_frames(len(frames), most)])


def _decoded(frame: bytes, encoding: str, size: int) -> Pixels:
    values: NDArray[np.uint8] = np.frombuffer(frame, dtype=np.uint8)
    if encoding == "jpeg":
        values = np.asarray(cv2.imdecode(values, cv2.IMREAD_UNCHANGED), dtype=np.uint8)
        values = values if values.ndim == 2 else np.asarray(cv2.cvtColor(values, cv2.COLOR_BGR2RGB), dtype=np.uint8)
    return values.reshape(size, size, -1)
