"""The columns of a split that hold what is to be learned of a sample; a task declares them.

A column is scalar or a vector (small, read into memory when the split is opened) or a map (one value a pixel, stored
beside the image and moved with it by augmentation).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

NO_VALUE = 255  # of a pixel in a map: not known, or outside the image that was padded or turned
KINDS = ("int", "floats", "bools", "map")


@dataclass(frozen=True)
class TargetColumn:
    """One column of targets.

    Attributes:
        name: of the column, and the key in `Batch.target`.
        kind: how a value is stored and what a batch of B values is:
            "int": int32, a class index; int64 (B,).
            "floats": `size` float32 numbers; float32 (B, size).
            "bools": `size` booleans; bool (B, size).
            "map": uint8 (H, W), one value a pixel, `NO_VALUE` where there is none; uint8 (B, H, W).
        size: length of a vector; None of the other kinds.
    """

    name: str
    kind: str
    size: int | None = None

    def __post_init__(self) -> None:
        assert self.kind in KINDS, f"target {self.name}: kind {self.kind!r} is none of {', '.join(KINDS)}"
        assert (self.size is not None) == (self.kind in ("floats", "bools")), f"target {self.name}: size of a vector"

    @property
    def is_map(self) -> bool:
        """Whether it has one value a pixel."""
        return self.kind == "map"

    def json(self) -> dict[str, Any]:
        """As state.json has it; `TargetColumn(**json)` is its inverse."""
        return {name: value for name, value in asdict(self).items() if value is not None}
