"""Pictures that are larger than what a net is shown: cut into overlapping tiles, and answers put together again.

Preprocessing, evaluation, the exported file's runner and `stillframe predict` all use this module. No torch.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def grid(height: int, width: int, size: int, overlap: float) -> list[tuple[int, int]]:
    """The tiles that cover an image, as (top, left) in px, row by row.

    Tiles are spread evenly, so that the first and the last one end where the image ends, and neighbours share at
    least the overlap. Along an axis that is no longer than a tile there is one tile, at 0, which reaches beyond it.

    Args:
        height: of the image, px.
        width: of the image, px.
        size: side of the square tiles, px.
        overlap: least share of a tile's side that neighbours have in common, 0 <= overlap < 1.
    """
    assert height > 0 and width > 0 and size > 0 and 0 <= overlap < 1
    return [(top, left) for top in _starts(height, size, overlap) for left in _starts(width, size, overlap)]


def _starts(length: int, size: int, overlap: float) -> list[int]:
    room = length - size
    if room <= 0:
        return [0]
    stride = max(1, math.floor(size * (1 - overlap) + 1e-9))  # 0.9 of 10 px are 9 px, whatever binary fractions say
    steps = -(-room // stride)
    return [step * room // steps for step in range(steps + 1)]


def cut(image: NDArray[Any], top: int, left: int, size: int, fill: int) -> NDArray[Any]:
    """One tile of an image (H, W) or (H, W, C): (size, size[, C]), a fresh array; beyond the image it is `fill`."""
    part = image[top : top + size, left : left + size]
    tile = np.full((size, size, *image.shape[2:]), fill, dtype=image.dtype)
    tile[: part.shape[0], : part.shape[1]] = part
    return tile


def window(size: int) -> Floats:
    """The weight of each pixel of a tile, (size, size): 1 in the middle, falling smoothly to nearly 0 at the edge.

    The square of a half sine, over both axes; never 0, so that a pixel that only one tile covers has that tile's value.
    """
    side = np.sin(np.pi * (np.arange(size) + 0.5) / size) ** 2
    return np.outer(side, side).astype(np.float32)


class TileBlend:
    """Outputs for tiles, blended to the output for the image.

    A pixel's value is the mean of those of all tiles that cover it, weighted by `window`: the weights sum to one
    everywhere, and change smoothly from one tile to the next, so that no seam shows. Memory is that of the whole
    answer, once; it does not grow with the number of tiles.
    """

    def __init__(self, values: int, height: int, width: int, size: int) -> None:
        """For an image of `height` x `width` px, `values` numbers a pixel (classes, say), tiles of `size` px."""
        self.window_HW = window(size)
        self.sum_KHW = np.zeros((values, height, width), dtype=np.float32)
        self.weight_HW = np.zeros((height, width), dtype=np.float32)

    def add(self, values_KHW: NDArray[Any], top: int, left: int) -> None:
        """Add one tile's values (K, size, size); what lies beyond the image is left out."""
        into = self.sum_KHW[:, top : top + values_KHW.shape[1], left : left + values_KHW.shape[2]]
        rows, columns = into.shape[1:]
        weight_HW = self.window_HW[:rows, :columns]
        into += values_KHW[:, :rows, :columns] * weight_HW
        self.weight_HW[top : top + rows, left : left + columns] += weight_HW

    def whole(self) -> Floats:
        """The blended values of the image: float32 (K, H, W).

        Raises:
            ValueError: a pixel is covered by no tile.
        """
        if not (self.weight_HW > 0).all():
            bare = int((self.weight_HW <= 0).sum())
            raise ValueError(f"{bare} of {self.weight_HW.size} px are covered by no tile: add all tiles of the grid")
        blended: Floats = self.sum_KHW / self.weight_HW
        return blended


class TileRows:
    """The blended values of an image from top to bottom, each part as soon as no further tile covers it.

    The same numbers as `TileBlend.whole` gives, in the memory of one row of tiles: for images of any height.

    Attributes:
        rows: the tiles of each row, as (top, left), from above to below; they are added in this order.
    """

    def __init__(self, values: int, height: int, width: int, size: int, corners: list[tuple[int, int]]) -> None:
        """For an image of `height` x `width` px, `values` numbers a pixel, tiles of `size` px at `corners`."""
        self.shape, self.size = (values, height, width), size
        tops = sorted({top for top, _ in corners})
        self.rows = [sorted(corner for corner in corners if corner[0] == top) for top in tops]
        self.added = 0
        self.above: TileBlend | None = None

    def add(self, values_NKSS: NDArray[Any]) -> tuple[int, Floats]:
        """Add the next row of tiles, (tiles, K, size, size); the first px row of what is done, and (K, rows, width)."""
        values, height, width = self.shape
        row, after = self.rows[self.added], self.rows[self.added + 1 :]
        top = row[0][0]
        blend = TileBlend(values, min(self.size, height - top), width, self.size)
        if self.above is not None:
            done = top - self.rows[self.added - 1][0][0]
            begun = self.above.sum_KHW.shape[1] - done
            blend.sum_KHW[:, :begun] = self.above.sum_KHW[:, done:]
            blend.weight_HW[:begun] = self.above.weight_HW[done:]
        for (_, left), values_KHW in zip(row, values_NKSS, strict=True):
            blend.add(values_KHW, 0, left)
        ready = after[0][0][0] - top if after else blend.sum_KHW.shape[1]
        self.above, self.added = blend, self.added + 1
        return top, blend.sum_KHW[:, :ready] / blend.weight_HW[:ready]
