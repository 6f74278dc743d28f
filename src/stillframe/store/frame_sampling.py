"""Which frames of a video make a clip; knows neither files nor pixels.

A video (or the part of it that a table names) lasts from `start` to `end`. With `fps` a clip of T frames is a window
of T / fps seconds, and the windows of several views lie at equal distances from its beginning to its end. Without `fps`
the whole is cut into T equal parts; a clip has one frame of each, and view v of V takes it at (v + 1/2) / V of the
part. What lies beyond the end is the last frame, repeated.

A train row may hold more frames than the net is shown (`data.clip.stored`), of a longer window or in finer parts;
`FrameSampler` chooses among them, anew each epoch where `augment.temporal` says so. One frame anywhere in each of T
parts is the sampling of Wang et al., Temporal Segment Networks, ECCV 2016.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from stillframe.augmentation.random_draws import keys, uniform
from stillframe.config import ClipConfig, TemporalConfig
from stillframe.store.frame_times import seconds
from stillframe.types import DatasetCard

TEMPORAL = 1 << 33  # added to the epoch: no draw of the other augmentations


@dataclass(frozen=True)
class FrameTimes:
    """The frames that are read of one video, each once, and how rows are made of them.

    Attributes:
        seconds_N: when they are taken, ascending.
        train_S: of a train row: indices among them.
        views_VT: of the rows of a validation or test video.
    """

    seconds_N: NDArray[np.float64]
    train_S: NDArray[np.int64]
    views_VT: NDArray[np.int64]

    @classmethod
    def of(cls, clip: ClipConfig, start: float, end: float) -> FrameTimes:
        """The frames of a video from `start` to `end`, s; which split it will be in is not known yet."""
        stored = clip.stored or clip.frames
        train_S = seconds(stored, clip.fps, 1, start, end)[0]
        views_VT = seconds(clip.frames, clip.fps, clip.views, start, end)
        seconds_N, index = np.unique(np.concatenate([train_S, views_VT.ravel()]), return_inverse=True)
        return cls(seconds_N, index[:stored], index[stored:].reshape(views_VT.shape))


def check(clip: ClipConfig) -> ClipConfig:
    """Raise ValueError for values that do not go together."""
    if clip.stored is not None and clip.stored < clip.frames:
        raise ValueError(
            f"data.clip.stored = {clip.stored} is less than data.clip.frames = {clip.frames}: null stores as many"
        )
    return clip


class FrameSampler:
    """Which of its stored frames the net is shown of a train clip, as a function of (seed, epoch, row)."""

    def __init__(self, clip: ClipConfig, temporal: TemporalConfig | None, *, seed: int) -> None:
        """Check what is to be drawn.

        Raises:
            ValueError: a clip would be played backwards, and data.clip.reversible does not allow it.
        """
        self.clip, self.seed = check(clip), seed
        self.temporal = temporal or TemporalConfig(jitter=False, reverse=0.0, speed=0.0)
        self.stored = clip.stored or clip.frames
        if self.temporal.reverse and not clip.reversible:
            raise ValueError(
                f"augment.temporal.reverse = {self.temporal.reverse:g} needs data.clip.reversible = true: "
                "where the label is a direction or an order, a clip that is played backwards has another one"
            )

    def __call__(self, epoch: int, index_B: NDArray[np.int64]) -> NDArray[np.int64]:
        """Indices among the stored frames, (B, T), in the order in which they are shown."""
        frames, draws = self.clip.frames, self.temporal
        u_BD = uniform(keys(self.seed, TEMPORAL + epoch, index_B), 0, 4 + frames)
        rate_B = (1.0 + draws.speed) ** (2.0 * u_BD[:, 0] - 1.0)
        step_B = rate_B * (1.0 if self.clip.fps is not None else self.stored / frames)
        rest_B = self.stored - frames * step_B
        first_B = rest_B * (u_BD[:, 1] if draws.jitter else 0.5)
        first_B = np.where(rest_B < 0, 0.5 * rest_B, first_B)  # faster than what is stored: both ends stand still
        inside_BT = np.full((len(index_B), frames), 0.5)
        if draws.jitter:
            inside_BT = u_BD[:, 4:] if self.clip.sampling == "segments" else np.repeat(u_BD[:, 2:3], frames, axis=1)
        at_BT: NDArray[np.int64] = np.floor(
            first_B[:, None] + (np.arange(frames) + inside_BT) * step_B[:, None]
        ).astype(np.int64)
        at_BT = np.clip(at_BT, 0, self.stored - 1)
        at_BT[u_BD[:, 3] < draws.reverse] = at_BT[u_BD[:, 3] < draws.reverse, ::-1]
        return at_BT


def make_frame_sampler(card: DatasetCard, temporal: TemporalConfig | None, *, seed: int) -> FrameSampler | None:
    """The choice of frames for the data of a card; None for images.

    Raises:
        ValueError: augment.temporal for data without clips, or what `FrameSampler` refuses.
    """
    if card.clip is None:
        if temporal is not None:
            raise ValueError("augment.temporal is for clips, and the data are images: set it to null")
        return None
    return FrameSampler(ClipConfig(**card.clip), temporal, seed=seed)


def facts(clip: ClipConfig) -> dict[str, int | float | str | bool | None]:
    """The section as card.json has it."""
    return asdict(clip)
