"""The batched forms mean what albumentations' transforms of the same name and arguments mean."""

import numpy as np
import pytest
import torch

from stillframe.augmentation import batch_augment, batch_rules, batch_step, policy, random_draws

PX = 24


def images(count, channels=1, size=PX):
    return np.random.default_rng(1).integers(0, 256, (count, size, size, channels), dtype=np.uint8)


def smooth(count, channels=1):
    y, x = np.mgrid[:PX, :PX] / PX
    waves = [np.sin(7 * x + 2 * b) * np.cos(5 * y + b) for b in range(count)]
    return np.repeat((np.array(waves)[..., None] * 100 + 128).astype(np.uint8), channels, axis=3)


def batch(name, arguments, images_BHWC, epoch=0, seed=0):
    made = batch_augment.BatchPolicy(policy.build([{name: arguments}], "x"))
    image = torch.from_numpy(images_BHWC).permute(0, 3, 1, 2)
    out = made(image, seed, epoch, torch.arange(len(image)))
    assert out.dtype == torch.uint8
    return out.permute(0, 2, 3, 1).numpy()


def item(name, arguments, images_BHWC):
    return policy.ItemPolicy([{name: arguments}], "x")(
        images_BHWC, random_draws.keys(0, 0, np.arange(len(images_BHWC)))
    )


def test_both_tables_know_the_same_transforms():
    assert set(batch_augment.MAKERS) == set(batch_rules.BATCHED) <= set(policy.transforms())


def test_draws_on_the_device_are_the_draws_of_numpy_bit_for_bit():
    index = np.array([0, 1, 17, 2**40, 2**62], dtype=np.int64)
    for seed, epoch in [(0, 0), (2**63 + 5, 3), (7, random_draws.OFFLINE)]:
        expected = random_draws.uniform(random_draws.keys(seed, epoch, index), 0, 9)
        for made in (batch_step.uniform, batch_step.uniform_anywhere):
            np.testing.assert_array_equal(made(seed, epoch, torch.from_numpy(index), 9).numpy(), expected)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "name, arguments",  # ranges of one value leave nothing to chance: equal pixel by pixel
    [
        ("HorizontalFlip", {"p": 1.0}),
        ("VerticalFlip", {"p": 1.0}),
        ("Transpose", {"p": 1.0}),
        ("Affine", {"translate_px": {"x": [3, 3], "y": [-2, -2]}, "p": 1.0}),
        ("Affine", {"translate_px": {"x": [-30, -30], "y": [0, 0]}, "p": 1.0}),
        ("Affine", {"translate_px": {"x": [3, 3], "y": [-2, -2]}, "fill": 77, "p": 1.0}),
        ("Affine", {"translate_px": {"x": [5, 5], "y": [4, 4]}, "border_mode": 1, "p": 1.0}),
        ("Affine", {"translate_px": {"x": [5, 5], "y": [4, 4]}, "border_mode": 2, "p": 1.0}),
        ("Affine", {"translate_px": {"x": [5, 5], "y": [4, 4]}, "border_mode": 3, "p": 1.0}),
        ("Affine", {"translate_px": {"x": [5, 5], "y": [4, 4]}, "border_mode": 4, "p": 1.0}),
        ("Affine", {"translate_percent": {"x": [0.1, 0.1], "y": [-0.22, -0.22]}, "p": 1.0}),
        (
            "RandomBrightnessContrast",
            {"brightness_limit": [0.1, 0.1], "contrast_limit": [-0.3, -0.3], "p": 1.0},
        ),
        (
            "RandomBrightnessContrast",
            {"brightness_limit": [-0.4, -0.4], "contrast_limit": [0.5, 0.5], "p": 1.0},
        ),
        ("RandomCrop", {"height": PX, "width": PX}),
        ("RandomResizedCrop", {"size": [PX, PX], "scale": [1.0, 1.0], "ratio": [1.0, 1.0]}),
        ("CoarseDropout", {"hole_height_range": [PX, PX], "hole_width_range": [PX, PX], "fill": 9, "p": 1.0}),
        ("Erasing", {"scale": [1.0, 1.0], "ratio": [1.0, 1.0], "fill": 200, "p": 1.0}),
    ],
)
def test_equal_to_albumentations_where_nothing_is_drawn(name, arguments, channels):
    made = images(3, channels)
    np.testing.assert_array_equal(batch(name, arguments, made), item(name, arguments, made))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "arguments",
    [
        {"rotate": [20, 20]},
        {"rotate": [-35, -35], "scale": [1.3, 1.3], "translate_px": {"x": [3, 3], "y": [-2, -2]}},
        {"scale": {"x": [0.8, 0.8], "y": [1.2, 1.2]}, "shear": {"x": [10, 10], "y": [-5, -5]}},
        {"rotate": [10, 10], "fill": 128},
        {"rotate": [30, 30], "border_mode": 1},
        {"rotate": [30, 30], "border_mode": 2},
        {"translate_percent": 0.1, "shear": [8, 8]},
    ],
)
def test_affine_is_albumentations_affine_up_to_the_rounding_of_its_interpolation(arguments, channels):
    made = smooth(2, channels)
    ours = batch("Affine", arguments | {"p": 1.0}, made).astype(int)
    theirs = item("Affine", arguments | {"p": 1.0}, made).astype(int)
    inner = np.abs(ours - theirs)[:, 2:-2, 2:-2]
    assert np.abs(theirs - made).mean() > 5  # it does something
    assert np.percentile(inner, 97) <= 4  # OpenCV interpolates in steps of 1/32 px
    assert inner.mean() < 1.5


def test_brightness_by_the_mean_of_each_image():
    made = smooth(3)
    arguments = {
        "brightness_limit": [0.2, 0.2],
        "contrast_limit": [0, 0],
        "brightness_by_max": False,
        "p": 1.0,
    }
    ours, theirs = (f("RandomBrightnessContrast", arguments, made).astype(int) for f in (batch, item))
    assert np.abs(ours - theirs).max() <= 1


def test_pad_then_crop_takes_every_window_of_the_padded_image():
    made = images(1, size=6)
    many = np.repeat(made, 400, axis=0)
    transforms = policy.build([{"Pad": {"padding": 2}}, {"RandomCrop": {"height": 6, "width": 6}}], "x")
    image = torch.from_numpy(many).permute(0, 3, 1, 2)
    out = batch_augment.BatchPolicy(transforms)(image, 0, 0, torch.arange(400))[:, 0].numpy()
    padded = np.pad(made[0, :, :, 0], 2)
    windows = {padded[y : y + 6, x : x + 6].tobytes() for y in range(5) for x in range(5)}
    assert {one.tobytes() for one in out} == windows


@pytest.mark.parametrize("border", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("fill", [50, [10, 20, 30]])
def test_padding_is_albumentations_padding(border, fill):
    made = images(2, 3)
    arguments = {"padding": [1, 2, 3, 4], "border_mode": border, "fill": fill}
    (pad,) = policy.build([{"Pad": arguments}], "x")
    expected = np.stack([pad(image=one)["image"] for one in made])
    np.testing.assert_array_equal(batch("Pad", arguments, made), expected)


def symmetries(image):
    return {np.rot90(side, turn).tobytes() for side in (image, image.T) for turn in range(4)}


@pytest.mark.parametrize(
    "name, p, expected",
    [
        ("D4", 1.0, [1 / 8] * 8),
        ("RandomRotate90", 1.0, [1 / 4] * 4),
        ("RandomRotate90", 0.4, [0.7, 0.1, 0.1, 0.1]),
        ("HorizontalFlip", 0.3, [0.7, 0.3]),
        ("Affine", 1.0, None),
    ],
)
def test_how_often_each_outcome_comes(name, p, expected):
    made = images(1, size=8)
    arguments = {"p": p} | ({"translate_px": [-1, 2]} if name == "Affine" else {})
    count = 4000
    expected = expected or [1 / 16] * 16  # shifts -1, 0, 1, 2 in x and in y, both ends included
    shares = []
    for path, number in ((batch, count), (item, count // 4)):
        out = path(name, arguments, np.repeat(made, number, axis=0))
        outcomes, counts = np.unique([one.tobytes() for one in out], return_counts=True)
        assert len(outcomes) == len(expected)
        if name != "Affine":
            assert set(outcomes.tolist()) <= symmetries(made[0, :, :, 0])
        shares.append(np.sort(counts / number)[::-1])
    assert np.abs(shares[0] - np.sort(expected)[::-1]).max() < 0.03
    assert np.abs(shares[1] - np.sort(expected)[::-1]).max() < 0.06


def moments(values):
    return np.array([values.mean(), values.std()])


@pytest.mark.parametrize(
    "name, arguments, measure",
    [
        ("RandomBrightnessContrast", {"brightness_limit": 0.2, "contrast_limit": 0.3, "p": 0.6}, "mean"),
        (
            "CoarseDropout",
            {"num_holes_range": [1, 3], "hole_height_range": [2, 6], "hole_width_range": [1, 9]},
            "holes",
        ),
        (
            "CoarseDropout",
            {"hole_height_range": [0.1, 0.3], "hole_width_range": [0.2, 0.4], "p": 1.0},
            "holes",
        ),
        ("Erasing", {"p": 0.7}, "holes"),
        ("RandomResizedCrop", {"size": [PX, PX], "scale": [0.2, 0.7]}, "left"),
        ("RandomResizedCrop", {"size": [PX, PX], "scale": [0.2, 0.7]}, "spread"),
        ("Affine", {"rotate": [-40, 40], "scale": [0.8, 1.2], "translate_percent": 0.1, "p": 0.8}, "holes"),
        ("Affine", {"scale": [0.5, 0.9], "keep_ratio": True, "p": 1.0}, "holes"),
    ],
)
def test_ranges_are_drawn_as_albumentations_draws_them(name, arguments, measure):
    ramp = np.broadcast_to(np.linspace(10, 250, PX), (PX, PX)).astype(np.uint8)[None, :, :, None]

    def of(out):
        if measure == "holes":
            return (out == 0).mean(axis=(1, 2, 3))
        if measure == "left":
            return out[:, :, 0, 0].mean(axis=1)
        if measure == "spread":
            return np.ptp(out[:, 0, :, 0], axis=1)
        return out.mean(axis=(1, 2, 3))

    ours = moments(of(batch(name, arguments, np.repeat(ramp, 6000, axis=0))))
    theirs = moments(of(item(name, arguments, np.repeat(ramp, 3000, axis=0))))
    np.testing.assert_allclose(ours, theirs, rtol=0.08, atol=0.004)


def test_order_and_composition_of_the_batch_do_not_matter():
    entries = [
        {"D4": {}},
        {"Affine": {"translate_px": [-2, 2], "p": 1.0}},
        {"Affine": {"rotate": [-20, 20], "p": 0.7}},
        {"RandomResizedCrop": {"size": [PX, PX]}},
        {"RandomBrightnessContrast": {}},
        {"CoarseDropout": {}},
        {"Erasing": {}},
    ]
    made = batch_augment.BatchPolicy(policy.build(entries, "x"))
    image = torch.from_numpy(images(40, 3)).permute(0, 3, 1, 2)
    before = image.clone()
    whole = made(image, 5, 2, torch.arange(40))
    assert torch.equal(image, before)  # the input is left as it is
    assert whole.is_contiguous(memory_format=torch.channels_last)
    order = torch.tensor([31, 2, 2, 17])
    assert torch.equal(made(image[order], 5, 2, order), whole[order])
    assert torch.equal(made(image[order].contiguous(), 5, 2, order), whole[order])
    assert not torch.equal(made(image, 5, 3, torch.arange(40)), whole)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the same batch on a GPU needs a GPU")
def test_exact_transforms_are_the_same_on_a_gpu():
    entries = [{"D4": {}}, {"Affine": {"translate_px": [-2, 2], "p": 1.0}}, {"CoarseDropout": {}}]
    made = batch_augment.BatchPolicy(policy.build(entries, "x"))
    image = torch.from_numpy(images(64, 3)).permute(0, 3, 1, 2)
    on_cpu = made(image, 5, 2, torch.arange(64))
    assert torch.equal(made(image.cuda(), 5, 2, torch.arange(64)).cpu(), on_cpu)


@pytest.mark.parametrize(
    "name, arguments, word",
    [
        ("GaussNoise", {}, "GaussNoise has no batched form"),
        ("CoarseDropout", {"fill": "random"}, "fill = 'random'"),
        ("Affine", {"rotate": [-5, 5], "fit_output": True}, "fit_output"),
        ("Affine", {"rotate": [-5, 5], "interpolation": 2}, "interpolation = 2"),
        ("Affine", {"rotate": [-5, 5], "border_mode": 4}, "border_mode = 4"),
        ("RandomBrightnessContrast", {"ensure_safe_range": True}, "ensure_safe_range"),
        (
            "RandomCrop",
            {"height": 40, "width": 40, "pad_if_needed": True, "pad_position": "random"},
            "pad_position",
        ),
        ("RandomResizedCrop", {"size": [PX, PX], "interpolation": 2}, "interpolation 0 or 1"),
    ],
)
def test_what_has_no_batched_form_is_named(name, arguments, word):
    assert word in batch_rules.first_problem(policy.build([{"D4": {}}, {name: arguments}], "x"))
