"""A clip as one picture: some of its frames side by side, in order of time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST = 8  # frames shown
GAP, PAPER = 2, 255  # px and level between two frames


def shown_frames(frames: int, most: int = MOST) -> list[int]:
    """Which frames of a clip are shown: at most `most`, evenly, the first and the last among them."""
    return [int(at) for at in np.linspace(0, frames - 1, min(frames, most)).round()]


def strip(clip_THWC: NDArray[Any], most: int = MOST, paper: float = PAPER) -> NDArray[Any]:
    """Frames of a clip side by side with a small gap of level `paper`: (H, n W + (n - 1) GAP, C).

    An image (H, W, C) is given back as it is.
    """
    if clip_THWC.ndim == 3:
        return clip_THWC
    frames = [clip_THWC[at] for at in shown_frames(len(clip_THWC), most)]
    gap = np.full((clip_THWC.shape[1], GAP, clip_THWC.shape[3]), paper, dtype=clip_THWC.dtype)
    return np.concatenate([piece for frame in frames for piece in (gap, frame)][1:], axis=1)
