"""What travels between the rooms, with shapes and units.

Legend of the suffixes: B samples in a batch, K classes, C channels (1 gray, 3 RGB), H height in px, W width in px,
N samples in a split. Of videos each sample is a clip of T frames, T after B: (B, T, C, H, W).
Images are `uint8` in 0..255 until they are on the device; `float32` after `normalise`.
Masks are `uint8` class indices, one a pixel of the prepared picture; 255 (`IGNORE`) is a pixel that is not counted.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stillframe.paths import read_json, write_json

if TYPE_CHECKING:
    from torch import Tensor

SPLITS = ("train", "val", "test")
IGNORE = 255  # in a mask: not learnt from, not scored


@dataclass(frozen=True)
class DatasetCard:
    """What preprocess measured of a data set; `data/prepared/card.json`.

    Attributes:
        name: of the data set, from `data.name`.
        classes: names, in the order of the class indices 0..K-1.
        counts: split -> class name -> images; of data with masks, images that show the class.
        channels: 1 (gray) or 3 (RGB) of the prepared images.
        height: of the prepared images, px.
        width: of the prepared images, px.
        mean: per channel over the train split, in 0..1.
        std: per channel over the train split, in 0..1.
        slices: names of the columns by which evaluate reports scores.
        split_hash: sha256 over (sample id, split), sorted; the same on any machine.
        pixels: split -> class name -> pixels of the prepared masks; {} of data without masks.
        frames: T, of a clip as the net is shown it; 1 for images.
        clip: section `data.clip`, how a video becomes clips (data/clips/sampling.py); None for images.
        seconds: s, the median length of the train videos (or their parts); None for images.
    """

    name: str
    classes: list[str]
    counts: dict[str, dict[str, int]]
    channels: int
    height: int
    width: int
    mean: list[float]
    std: list[float]
    slices: list[str]
    split_hash: str
    pixels: dict[str, dict[str, int]] = field(default_factory=dict)
    frames: int = 1
    clip: dict[str, Any] | None = None
    seconds: float | None = None

    @classmethod
    def read(cls, path: Path) -> DatasetCard:
        """Read a card.json; a missing or damaged file is an error that names it."""
        values = read_json(path)
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(f"{path} is not a card of this version ({error}): run `dvc repro preprocess`") from None

    def write(self, path: Path) -> None:
        """Write as JSON, without what this data does not have."""
        given = asdict(self)
        absent = set() if self.clip else {"frames", "clip", "seconds"}
        absent |= set() if self.pixels else {"pixels"}
        write_json(path, {name: value for name, value in given.items() if name not in absent})


@dataclass(frozen=True)
class Batch:
    """One batch, on the host or on the device."""

    image_BCHW: Tensor  # uint8 0..255 on the host; float32, normalised, after `normalise`; clips: (B, T, C, H, W)
    target_B: Tensor  # int64, class index
    weight_B: Tensor  # float32, sample weight (1 unless the table has a weight column)
    index_B: Tensor  # int64, row in the split (augmented copies follow the train rows)
    epoch: int = 0  # 0-based; with the seed and the index it decides a sample's random draw
    mixed_BK: Tensor | None = None  # float32 target distribution after mixup or cutmix, else None
    mask_BHW: Tensor | None = None  # uint8 class index of each pixel, IGNORE where none; of data with masks, else None

    def to(self, device: Any, *, non_blocking: bool = False) -> Batch:
        """The same batch on another device."""
        moved = {
            name: value.to(device, non_blocking=non_blocking)
            for name, value in vars(self).items()
            if hasattr(value, "to")
        }
        return replace(self, **moved)


@dataclass(frozen=True)
class Prediction:
    """What a net says of a batch."""

    logits_BK: Tensor  # float32, before temperature and softmax; (B, K, H, W) where each pixel is answered
    index_B: Tensor  # int64, row in the split


@dataclass(frozen=True)
class Scores:
    """Metrics of one split: flat names without the split, e.g. `f1_macro`, `recall/defective`."""

    values: dict[str, float] = field(default_factory=dict)
