"""The seconds of a video at which the frames of its clips are taken."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

EDGE_S = 2e-3  # nothing at the very end is asked for: there the next part begins, or nothing is left


def seconds(frames: int, fps: float | None, views: int, start: float, end: float) -> NDArray[np.float64]:
    """The seconds of a video at which the frames of its clips are taken: (views, frames).

    Args:
        frames: of a clip.
        fps: frames a second; None: spread over the whole.
        views: clips.
        start: s, where the video (or its part) begins.
        end: s, where it ends.
    """
    number_T = np.arange(frames)
    if fps is None:
        share_V = (np.arange(views) + 0.5) / views
        at_VT = start + (number_T + share_V[:, None]) * (end - start) / frames
    else:
        rest = max(0.0, end - start - frames / fps)
        first_V = rest * (np.linspace(0.0, 1.0, views) if views > 1 else np.array([0.5]))
        at_VT = start + first_V[:, None] + (number_T + 0.5) / fps
    return np.clip(at_VT, start, max(start, end - EDGE_S))
