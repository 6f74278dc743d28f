"""Tiles cover a picture, and their answers come together without a seam."""

import numpy as np
import pytest

from stillframe.ingest import tiles


@pytest.mark.parametrize("overlap", [0.0, 0.1, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(64, 64), (65, 64), (100, 37), (200, 301), (20, 500), (1, 1)])
def test_every_pixel_is_covered_and_neighbours_share_the_overlap(shape, overlap):
    size = 64
    found = tiles.grid(*shape, size, overlap)
    seen = np.zeros(shape, dtype=int)
    for top, left in found:
        assert 0 <= top and 0 <= left
        assert top + size <= max(size, shape[0]) and left + size <= max(size, shape[1]), "none reaches out needlessly"
        seen[top : top + size, left : left + size] += 1
    assert seen.min() >= 1
    for axis in (0, 1):
        starts = sorted({place[axis] for place in found})
        assert all(size - (b - a) >= size * overlap - 1e-6 for a, b in zip(starts, starts[1:], strict=False))
    assert len(found) == len(set(found))


def test_no_more_tiles_than_needed():
    assert tiles.grid(64, 128, 64, 0.0) == [(0, 0), (0, 64)]
    assert tiles.grid(64, 65, 64, 0.0) == [(0, 0), (0, 1)]
    assert tiles.grid(10, 19, 10, 0.1) == [(0, 0), (0, 9)]
    assert len(tiles.grid(1000, 1000, 100, 0.25)) == 13**2


@pytest.mark.parametrize("shape", [(64, 64), (150, 91), (20, 30)])
@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.75])
def test_a_constant_stays_that_constant(shape, overlap):
    blend = tiles.TileBlend(3, *shape, 64)
    value_K = np.array([0.25, -7.0, 1e4], dtype=np.float32)
    for top, left in tiles.grid(*shape, 64, overlap):
        blend.add(np.broadcast_to(value_K[:, None, None], (3, 64, 64)), top, left)
    whole = blend.whole()
    assert whole.shape == (3, *shape) and whole.dtype == np.float32
    np.testing.assert_allclose(whole, np.broadcast_to(value_K[:, None, None], whole.shape), rtol=1e-6)


def test_what_was_cut_comes_back():
    picture = np.random.default_rng(0).normal(size=(150, 91, 2)).astype(np.float32)
    blend = tiles.TileBlend(2, 150, 91, 64)
    for top, left in tiles.grid(150, 91, 64, 0.25):
        blend.add(tiles.cut(picture, top, left, 64, 0).transpose(2, 0, 1), top, left)
    np.testing.assert_allclose(blend.whole().transpose(1, 2, 0), picture, rtol=1e-5, atol=1e-6)


def test_tiles_that_disagree_leave_no_seam():
    """Each tile says another number: side by side they would jump by up to 9, blended they pass over smoothly."""
    rng = np.random.default_rng(3)
    blend = tiles.TileBlend(1, 200, 200, 64)
    for top, left in tiles.grid(200, 200, 64, 0.5):
        blend.add(np.full((1, 64, 64), rng.integers(0, 10), dtype=np.float32), top, left)
    whole = blend.whole()[0]
    steps = max(np.abs(np.diff(whole, axis=0)).max(), np.abs(np.diff(whole, axis=1)).max())
    assert whole.std() > 0.5
    assert steps < 0.8


def test_a_small_picture_is_filled_up():
    tile = tiles.cut(np.ones((2, 3), dtype=np.uint8), 0, 0, 4, 255)
    assert tile.tolist() == [[1, 1, 1, 255], [1, 1, 1, 255], [255] * 4, [255] * 4]
    assert tiles.cut(np.ones((9, 9, 3), dtype=np.uint8), 6, 5, 4, 0).sum() == 3 * 4 * 3


def test_a_tile_that_is_missing_is_an_error():
    blend = tiles.TileBlend(1, 64, 100, 64)
    blend.add(np.zeros((1, 64, 64), dtype=np.float32), 0, 0)
    with pytest.raises(ValueError, match="2304 of 6400 px"):
        blend.whole()


@pytest.mark.parametrize(("height", "width", "overlap"), [(100, 70, 0.25), (20, 90, 0.5), (33, 32, 0.0), (90, 10, 0.9)])
def test_strips_are_the_blended_answer_from_above_to_below(height, width, overlap):
    size = 32
    rng = np.random.default_rng(0)
    answers = {
        place: rng.random((3, size, size), dtype=np.float32) for place in tiles.grid(height, width, size, overlap)
    }
    blend = tiles.TileBlend(3, height, width, size)
    for (top, left), values in answers.items():
        blend.add(values, top, left)
    strips = tiles.TileRows(3, height, width, size, list(answers))
    parts = [strips.add(np.stack([answers[place] for place in row])) for row in strips.rows]
    assert [top for top, _ in parts] == np.cumsum([0, *(part.shape[1] for _, part in parts[:-1])]).tolist()
    np.testing.assert_allclose(np.concatenate([part for _, part in parts], axis=1), blend.whole(), atol=1e-6)
