"""What is copied sooner has the pixels that albumentations gives."""

import cv2
import numpy as np
import pytest

from stillframe.augmentation import item_pixels, policy, random_draws

TURNED = {"rotate": [-20, 20], "scale": [0.8, 1.2], "shear": [-5, 5], "p": 0.8}
POLICIES = {
    "D4": [{"D4": {}}],
    "Transpose": [{"Transpose": {}}],
    "RandomRotate90": [{"RandomRotate90": {}}],
    **{f"border {mode}": [{"Affine": {**TURNED, "border_mode": mode}}] for mode in range(5)},
    "nearest": [{"Affine": {**TURNED, "interpolation": 0, "fill": 7}}],
    "cubic": [{"Affine": {**TURNED, "interpolation": 2}}],
    "colour": [{"Affine": {**TURNED, "fill": [10, 20, 30]}}],
    "nested": [{"OneOf": {"transforms": [{"D4": {}}, {"Sequential": {"transforms": [{"Affine": TURNED}]}}]}}],
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", POLICIES)
def test_the_same_draws_give_the_same_pixels(monkeypatch, name, channels):
    image = np.random.default_rng(3).integers(0, 256, (40, 17, 17, channels), dtype=np.uint8)
    key = random_draws.keys(1, 2, np.arange(40))
    entries = POLICIES[name] if name != "colour" or channels == 3 else POLICIES["nearest"]
    ours = policy.ItemPolicy(entries, "x")(image, key)
    monkeypatch.setattr(item_pixels, "quicken", lambda transform: None)
    theirs = policy.ItemPolicy(entries, "x")(image, key)
    np.testing.assert_array_equal(ours, theirs)
    assert (ours != image).any(axis=(1, 2, 3)).mean() > 0.3  # it does something


def test_three_channels_are_warped_as_four(monkeypatch):
    made = policy.ItemPolicy([{"Affine": {**TURNED, "p": 1.0}}], "x")
    seen, warp = [], cv2.warpAffine

    def watched(image, *rest, **more):
        seen.append(image.shape)
        return warp(image, *rest, **more)

    monkeypatch.setattr(cv2, "warpAffine", watched)
    for channels in (1, 3):
        made(np.zeros((1, 9, 9, channels), np.uint8), random_draws.keys(0, 0, np.arange(1)))
    assert [shape[2:] in ((), (1,)) for shape in seen] == [True, False] and seen[1] == (9, 9, 4)


@pytest.mark.parametrize("channels", [1, 3])
def test_every_view_of_an_image_becomes_dense(channels):
    image = np.random.default_rng(3).integers(0, 256, (5, 8, channels), dtype=np.uint8)
    for side in (image, image.transpose(1, 0, 2)):
        for view in (side, side[::-1], side[:, ::-1], side[::-1, ::-1], side[::2], side[1:4, ::-2]):
            made = item_pixels.dense(view)
            np.testing.assert_array_equal(made, view)
            assert made.flags.c_contiguous
