"""Which images are one image: exact copies by their pixels, near copies by perceptual hash and thumbnail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stillframe.ingest.image_hash import THUMB, texture

# Likeness from which two images are one. Measured on the hardest look-alikes we have, photographs of solar cells: with
# what the whole set shares taken away, distinct cells reach 0.977; copies at JPEG quality 90 lie above 0.993, at half
# size above 0.985, and nine of ten at quality 50 above 0.977. With it left in, distinct cells reach 0.996.
SAME, SAME_FEW = 0.98, 0.997
ENOUGH, SAMPLE, AXES = 50, 500, 4  # images for a background; thumbnails it is made from; its directions
REACH = 512  # neighbours compared within one band of equal bits; keeps look-alike sets from costing n^2
CHAIN = 0.05  # a near-duplicate group above this share of all images (and above 20) is a scene, not an image
CHAIN_AT_LEAST = 20

Pairs = NDArray[np.int64]


def candidates(hashes: NDArray[np.uint64], bits: int) -> Pairs:
    """Pairs (i < j) of 64-bit hashes that differ in at most `bits` bits: int64 (P, 2).

    The hash is cut into bits + 1 bands: two hashes so near agree in one band at least (pigeonhole), so only hashes
    with an equal band are compared, each with `REACH` neighbours at most.
    """
    pairs = []
    edges = np.linspace(0, 64, bits + 2).round().astype(int)
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        width = int(high - low)
        bits_of_band = np.uint64((1 << width) - 1)
        band = (hashes >> np.uint64(low)) & bits_of_band if width < 64 else hashes
        # Sorted by band, equal bands are neighbours: compare each with the next, the one after that, ...
        order = np.lexsort((hashes, band))
        band, ordered = band[order], hashes[order]
        for step in range(1, min(REACH, len(hashes) - 1) + 1):
            same = band[step:] == band[:-step]
            if not same.any():
                break
            near = same & (np.bitwise_count(ordered[step:] ^ ordered[:-step]) <= bits)
            where = np.flatnonzero(near)
            pairs.append(np.sort(np.stack([order[where], order[where + step]], axis=1), axis=1))
    if not pairs:
        return np.empty((0, 2), dtype=np.int64)
    return np.unique(np.concatenate(pairs), axis=0).astype(np.int64)


@dataclass(frozen=True)
class SimilarityBackground:
    """What the images of a set share (frame, bars, light): it must not count as likeness.

    Attributes:
        mean: of the textures, float32 (D,).
        axes: their main directions, float32 (AXES, D), orthonormal.
        same: likeness from which two images are one.
    """

    mean: NDArray[np.float32]
    axes: NDArray[np.float32]
    same: float

    @classmethod
    def of(cls, thumbs: Sequence[bytes]) -> SimilarityBackground:
        """From some thumbnails of the set; nothing is taken away from a set of fewer than `ENOUGH`."""
        size = THUMB * THUMB
        if len(thumbs) < ENOUGH:
            return cls(np.zeros(size, dtype=np.float32), np.zeros((0, size), dtype=np.float32), SAME_FEW)
        textures = np.stack([_texture(thumb) for thumb in thumbs])
        mean = textures.mean(axis=0)
        # Their first principal components: what most images of the set have in common.
        centred = textures - mean
        _, vectors = np.linalg.eigh(centred @ centred.T)  # of the small Gram matrix: N is far below D
        axes = vectors[:, ::-1][:, :AXES].T @ centred
        return cls(mean, axes / np.maximum(np.linalg.norm(axes, axis=1, keepdims=True), 1e-6), SAME)

    def rest(self, thumb: bytes) -> NDArray[np.float32]:
        """The texture without the background, as a unit vector (zeros for a flat picture)."""
        own = _texture(thumb)
        if not own.any():
            return own
        own = own - self.mean
        own = own - self.axes.T @ (self.axes @ own)
        return np.asarray(own / max(float(np.linalg.norm(own)), 1e-6), dtype=np.float32)


def confirm(pairs: Pairs, thumbs: Mapping[int, bytes], background: SimilarityBackground) -> NDArray[np.float64]:
    """Likeness of each pair, -1..1: the correlation of what sets them apart from the rest of the set.

    `thumbs` holds the thumbnail of every index in `pairs`.
    """
    out = np.empty(len(pairs))
    # Pairs are sorted by their first index, whose texture is needed again and again.
    last, left = -1, np.empty(0, dtype=np.float32)
    for slot, (first, second) in enumerate(pairs.tolist()):
        if first != last:
            last, left = first, background.rest(thumbs[first])
        out[slot] = float(left @ background.rest(thumbs[second]))
    return out


def _texture(thumb: bytes) -> NDArray[np.float32]:
    return texture(np.frombuffer(thumb, dtype=np.uint8).reshape(THUMB, THUMB))


def components(count: int, pairs: Sequence[tuple[int, int]] | Pairs) -> NDArray[np.int64]:
    """Number the connected components of a graph over 0..count-1: int64 (count,)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(edges), dtype=np.int8), (edges[:, 0], edges[:, 1])), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


def without_scenes(count: int, pairs: Pairs) -> tuple[Pairs, int]:
    """Leave out the pairs of groups so large that they are look-alike scenes; how many groups those were."""
    number = components(count, pairs)
    sizes = np.bincount(number, minlength=1)
    huge = sizes > max(CHAIN_AT_LEAST, CHAIN * count)
    rest = pairs[~huge[number[pairs[:, 0]]]] if len(pairs) else pairs
    return rest, int(huge.sum())


def name_groups(frame: pd.DataFrame, near: Pairs) -> NDArray[np.object_]:
    """The group of every row: joined by the source's own group, equal pixels, one file, or a near-duplicate pair.

    Args:
        frame: columns id, group (str or None), pixels, and file where rows are parts of files; index 0..N-1.
        near: confirmed pairs, as positions in `frame`.

    Returns:
        The source's group where the joined rows have one and only one, else the smallest id among them.
    """
    links = [near]
    # Rows with the same value are linked in a chain, not each with each: N - 1 links are enough.
    for column in ("group", "pixels", *(["file"] if "file" in frame else [])):
        codes = pd.factorize(frame[column].replace("", None))[0]
        order = np.lexsort((np.arange(len(codes)), codes))
        same = (codes[order][1:] == codes[order][:-1]) & (codes[order][1:] >= 0)
        links.append(np.stack([order[:-1][same], order[1:][same]], axis=1))
    # Everything that is linked, however far around, is one group, and so lies in one split.
    number = components(len(frame), np.concatenate(links))
    table = pd.DataFrame({"number": number, "id": frame["id"].to_numpy(), "group": frame["group"].to_numpy()})
    grouped = table.groupby("number")
    smallest, own, kinds = grouped["id"].min(), grouped["group"].first(), grouped["group"].nunique()
    names = own.where(kinds == 1, smallest).astype(str)
    return names.reindex(number).to_numpy(dtype=object)
