"""What travels between the rooms, with shapes and units.

Legend of the suffixes: B samples in a batch, K classes, C channels (1 gray, 3 RGB), H height in px, W width in px,
N samples in a split. Of videos each sample is a clip of T frames, T after B: (B, T, C, H, W).
Images are `uint8` in 0..255 until they are on the device; `float32` after `normalise`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stillframe.paths import read_json, write_json

if TYPE_CHECKING:
    from torch import Tensor

SPLITS = ("train", "val", "test")


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
        target: what else the task's parts need of the targets, e.g. their units; {} where that is nothing.
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
    target: dict[str, Any] = field(default_factory=dict)

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
        values = asdict(self)
        absent = set() if self.clip else {"frames", "clip", "seconds"}
        absent |= {name for name in ("pixels", "target") if not values[name]}
        write_json(path, {name: value for name, value in values.items() if name not in absent})


@dataclass(frozen=True)
class Batch:
    """One batch of named tensors, on the host or on the device; the first axis of each is B.

    Attributes:
        inputs: what the network is called with, by argument name. "image": uint8 0..255, or float32 of the same range
            after mixing, (B, C, H, W); of clips (B, T, C, H, W).
        target: what is to be learned, by the name of the store's column (see `store.columns`), or as a task's mixing
            has put it there.
        weight_B: float32, sample weights (1 unless the table has a weight column).
        index_B: int64, row in the split (augmented copies follow the train rows).
        epoch: 0-based; with the seed and the index it decides a sample's random draw.
    """

    inputs: dict[str, Tensor]
    target: dict[str, Tensor]
    weight_B: Tensor
    index_B: Tensor
    epoch: int = 0

    @property
    def image(self) -> Tensor:
        """The images (B, C, H, W) or clips (B, T, C, H, W)."""
        return self.inputs["image"]

    def __len__(self) -> int:
        return len(self.index_B)

    def to(self, device: Any, *, non_blocking: bool = False) -> Batch:
        """The same batch on another device."""

        def moved(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            return {name: tensor.to(device, non_blocking=non_blocking) for name, tensor in tensors.items()}

        rows = moved({"weight": self.weight_B, "index": self.index_B})
        return Batch(moved(self.inputs), moved(self.target), rows["weight"], rows["index"], self.epoch)


@dataclass(frozen=True)
class Prediction:
    """Raw outputs of a network for a batch.

    Attributes:
        outputs: float32 tensors by name, as the task's `learning.py` names them; the first axis of each is B.
        index_B: int64, row in the split.
    """

    outputs: dict[str, Tensor]
    index_B: Tensor
