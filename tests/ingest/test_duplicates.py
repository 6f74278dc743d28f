import cv2
import numpy as np
import pandas as pd
import pytest

from stillframe.ingest import duplicates
from stillframe.ingest.image_hash import fingerprints, perceptual_hash, pixel_hash
from tiny import picture

NO_PAIRS = np.empty((0, 2), dtype=np.int64)


@pytest.mark.parametrize("bits", [0, 1, 2, 4, 7, 16])
def test_candidates_are_all_pairs_within_the_distance(bits):
    rng = np.random.default_rng(bits)
    hashes = rng.integers(0, 1 << 63, 120, dtype=np.uint64)
    for step in range(40):  # neighbours at known distances
        flips = rng.choice(64, size=step % 20, replace=False)
        hashes[80 + step] = hashes[step] ^ np.bitwise_or.reduce(
            np.uint64(1) << flips.astype(np.uint64), initial=np.uint64(0)
        )
    distance = np.bitwise_count(hashes[:, None] ^ hashes[None])
    expected = np.argwhere(np.triu(distance <= bits, 1))
    assert np.array_equal(duplicates.candidates(hashes, bits), expected)


def test_no_hashes_no_pairs():
    assert duplicates.candidates(np.array([], dtype=np.uint64), 2).shape == (0, 2)
    assert duplicates.candidates(np.array([7], dtype=np.uint64), 2).shape == (0, 2)


def jpeg(image, quality):
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def photo(seed):
    """A picture with texture at every scale, as photographs have."""
    rng = np.random.default_rng(seed)
    layers = [cv2.resize(rng.normal(0, 60 / 2**level, (4 << level, 4 << level)), (200, 160)) for level in range(5)]
    tint = rng.uniform(0.7, 1.0, 3)
    return np.clip((128 + sum(layers))[:, :, None] * tint, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "copy",
    [
        lambda image: jpeg(image, 85),
        lambda image: cv2.resize(image, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA),
        lambda image: np.clip(image * 0.95 + 6, 0, 255).astype(np.uint8),
    ],
    ids=["jpeg", "smaller", "brighter"],
)
def test_copies_are_found_and_others_are_not(copy):
    images = [photo(seed) for seed in range(60)]
    everything = images + [copy(image) for image in images]
    marks = [fingerprints(image) for image in everything]
    assert len({mark[0] for mark in marks}) == len(everything)
    pairs = duplicates.candidates(np.array([mark[1] for mark in marks], dtype=np.uint64), 6)
    thumbs = {place: mark[2].tobytes() for place, mark in enumerate(marks)}
    background = duplicates.SimilarityBackground.of(list(thumbs.values()))
    likeness = duplicates.confirm(pairs, thumbs, background)
    found = {tuple(pair) for pair in pairs[likeness >= background.same].tolist()}
    assert found <= {(place, place + 60) for place in range(60)}
    assert len(found) >= 54


@pytest.mark.parametrize("count", [10, 60])
def test_look_alike_scenes_are_not_one_image(count):
    """The same frame and bars, other specks: what cells of one solar module look like."""
    scene = np.full((128, 128, 3), 170, np.uint8)
    scene[:6] = scene[-6:] = scene[40:44] = scene[84:88] = 30
    marks = []
    for seed in range(count):
        specks = np.random.default_rng(seed).normal(0, 12, (32, 32, 1))
        cell = np.clip(scene + cv2.resize(specks, (128, 128))[:, :, None], 0, 255).astype(np.uint8)
        marks.append(fingerprints(cell))
    pairs = np.array([(a, b) for a in range(count) for b in range(a + 1, count)])
    thumbs = {place: mark[2].tobytes() for place, mark in enumerate(marks)}
    background = duplicates.SimilarityBackground.of(list(thumbs.values()))
    assert (duplicates.confirm(pairs, thumbs, background) < background.same).all()


def test_flat_images_are_never_near():
    flat = [np.full((32, 32, 1), value, np.uint8) for value in (0, 90, 91)]
    thumbs = {place: fingerprints(image)[2].tobytes() for place, image in enumerate(flat)}
    assert (duplicates.confirm(np.array([(0, 1), (1, 2)]), thumbs, duplicates.SimilarityBackground.of([])) == 0).all()


def test_pixel_hash_knows_the_shape():
    image = picture(1)
    assert pixel_hash(image) == pixel_hash(image.copy())
    assert pixel_hash(image) != pixel_hash(image.reshape(24, 20, 3))
    assert perceptual_hash(image[:, :, :1]) < 1 << 64


def test_groups_join_by_source_group_pixels_and_pairs():
    frame = pd.DataFrame(
        {
            "id": list("abcdefg"),
            "group": [None, "p1", "p1", None, None, "p2", None],
            "pixels": ["x", "x", "y", "z", "w", "v", "u"],
        }
    )
    names = duplicates.name_groups(frame, np.array([(3, 4), (5, 6)]))
    assert list(names) == ["p1", "p1", "p1", "d", "d", "p2", "p2"]
    joined = duplicates.name_groups(frame, np.array([(2, 5)]))  # two groups of the source in one: neither name is right
    assert list(joined)[:3] == ["a", "a", "a"] and joined[5] == "a"
    assert list(duplicates.name_groups(frame, NO_PAIRS))[3:5] == ["d", "e"]


def test_a_chain_over_the_whole_set_is_a_scene():
    chain = np.array([(place, place + 1) for place in range(50)] + [(90, 91)])
    kept, scenes = duplicates.without_scenes(100, chain)
    assert scenes == 1 and kept.tolist() == [[90, 91]]
    assert duplicates.without_scenes(100, NO_PAIRS)[1] == 0
