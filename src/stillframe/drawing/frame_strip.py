"""A clip as one image: some of its frames side by side, in order of time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_FRAMES = 8  # drawn
GAP, WHITE = 2, 255  # px and level between two frames


def strip_frames(frames: int, limit: int = MAX_FRAMES) -> list[int]:
    """Which frames of a clip are drawn: at most `limit`, evenly, the first and the last among them."""
    return [int(index) for index in np.linspace(0, frames - 1, min(frames, limit)).round()]


def frame_strip(clip_THWC: NDArray[Any], limit: int = MAX_FRAMES, gap_level: float = WHITE) -> NDArray[Any]:
    """Frames of a clip side by side with a small gap between them: (H, n W + (n - 1) GAP, C).

    An image (H, W, C) is given back as it is.
    """
    if clip_THWC.ndim == 3:
        return clip_THWC
    frames = [clip_THWC[index] for index in strip_frames(len(clip_THWC), limit)]
    gap = np.full((clip_THWC.shape[1], GAP, clip_THWC.shape[3]), gap_level, dtype=clip_THWC.dtype)
    return np.concatenate([piece for frame in frames for piece in (gap, frame)][1:], axis=1)
