"""Policies are checked before any work; what albumentations only warns of is an error."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from stillframe.augmentation import policy, random_draws

CONF = Path(__file__).parents[2] / "conf" / "augment"


def shipped(name):
    values = {}
    for part in ("none", name):
        values |= yaml.safe_load((CONF / f"{part}.yaml").read_text())
    return values


@pytest.mark.parametrize(
    "entry, words",
    [
        (
            {"HorizontalFlipp": {}},
            ["augment.online[0]", "'HorizontalFlipp'", "did you mean 'HorizontalFlip'?"],
        ),
        ({"horizontalflip": {}}, ["did you mean 'HorizontalFlip'?"]),
        ({"Affine": {"rotat": 3}}, ["augment.online[0].Affine", "rotat = 3", "did you mean 'rotate'?"]),
        ({"HorizontalFlip": {"p": 1.5}}, ["p = 1.5", "less than or equal to 1"]),
        ({"GaussNoise": {"std_range": [0.4, 0.1]}}, ["std_range = [0.4, 0.1]"]),
        ({"Affine": {"rotate": "left"}}, ["rotate = 'left'"]),
        ({"RandomCrop": {"height": 8}}, ["RandomCrop", "width"]),
        ({"Lambda": {"image": "print"}}, ["unknown transform 'Lambda'"]),
        ({"os.system": {"command": "true"}}, ["unknown transform 'os.system'"]),
        (
            {"OneOf": {"transforms": [{"Blurr": {}}]}},
            ["augment.online[0].OneOf.transforms[0]", "did you mean 'Blur'?"],
        ),
        ({"OneOf": {"p": 1.0}}, ["OneOf.transforms = None"]),
        ({"HorizontalFlip": {}, "VerticalFlip": {}}, ["one transform an entry"]),
        ({"HorizontalFlip": [0.5]}, ["as {argument: value}"]),
    ],
)
def test_a_wrong_policy_is_an_error_that_helps(entry, words):
    with pytest.raises(ValueError) as caught:
        policy.check_policy([entry], "augment.online")
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    "entries, words",
    [
        ([{"Normalize": {}}], ["Normalize makes float32", "leave it out"]),
        ([{"RandomCrop": {"height": 20, "width": 20}}], ["make 20 x 20 px", "of 32 x 32 px"]),
        ([{"RandomCrop": {"height": 40, "width": 40}}], ["RandomCrop does not work on images of 32 x 32 px"]),
        (
            [{"Pad": {"padding": 4, "p": 0.5}}, {"RandomCrop": {"height": 32, "width": 32}}],
            ["Pad", "p = 0.5"],
        ),
        ([{"HistogramMatching": {"metadata_key": "reference"}}], ["HistogramMatching does not work"]),
    ],
)
def test_a_policy_must_give_images_of_the_same_shape_back(entries, words):
    policy.check_policy(entries, "augment.offline")
    with pytest.raises(ValueError) as caught:
        policy.check_policy(entries, "augment.offline", (32, 32, 1))
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [28, 128])
@pytest.mark.parametrize("name", sorted(path.stem for path in CONF.glob("*.yaml")))
def test_every_shipped_policy_works_for_gray_and_rgb(name, size, channels):
    values = shipped(name)
    for kind in ("offline", "online"):
        policy.check_policy(values[kind], f"augment.{kind}", (size, size, channels))
    assert values["name"] == name


def test_choices_nest_and_are_resolved_with_all_defaults():
    entries = [
        {"OneOf": {"transforms": [{"Blur": {"blur_limit": [3, 5]}}, {"GaussNoise": {}}], "p": 0.5}},
        {"D4": {}},
    ]
    policy.check_policy(entries, "augment.offline", (16, 16, 1))
    one_of, d4 = policy.resolved(entries, "augment.offline")
    assert [next(iter(entry)) for entry in one_of["OneOf"]["transforms"]] == ["Blur", "GaussNoise"]
    assert one_of["OneOf"]["transforms"][0]["Blur"] == {"blur_limit": [3, 5], "p": 0.5}
    assert d4 == {"D4": {"p": 1}}


def test_an_item_depends_on_its_key_only():
    image = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 1), dtype=np.uint8)
    entries = [
        {"GaussNoise": {"p": 0.8}},
        {"ElasticTransform": {"p": 0.5}},
        {"CoarseDropout": {"fill": "random"}},
    ]
    keys = random_draws.keys(0, 0, np.arange(12))
    whole = policy.ItemPolicy(entries, "x")(image, keys)
    order = np.array([7, 0, 11, 3])
    np.testing.assert_array_equal(policy.ItemPolicy(entries, "x")(image[order], keys[order]), whole[order])
    assert (
        (policy.ItemPolicy(entries, "x")(image, random_draws.keys(0, 1, np.arange(12))) != whole)
        .any(axis=(1, 2, 3))
        .all()
    )


def test_albumentations_comes_without_torch_and_without_its_call_home():
    code = (
        "import sys, urllib.request; import numpy as np; calls = [];"
        "urllib.request.urlopen = lambda *given, **named: calls.append(given);"
        "from stillframe.augmentation import policy, random_draws; policy.albumentations();"
        "made = policy.ItemPolicy([{'HorizontalFlip': {}}], 'x');"
        "made(np.zeros((2, 8, 8, 1), np.uint8), random_draws.keys(0, 0, np.arange(2)));"
        "assert 'torch' not in sys.modules; assert not calls; import torch; print(torch.ones(1).item())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "1.0"


@pytest.mark.parametrize("name", sorted(path.stem for path in CONF.glob("*.yaml")))
def test_shipped_ranges_are_centred(name):
    """A scalar `translate_percent: 0.06` shifts by +6 % always: easily written, never meant."""
    for entry in policy.build(shipped(name)["online"], "augment.online"):
        for argument, neutral in (("translate_px", 0), ("translate_percent", 0), ("rotate", 0), ("scale", 1)):
            ranges = getattr(entry, argument, None)
            for low, high in ranges.values() if isinstance(ranges, dict) else [ranges] if ranges else []:
                assert (low + high) / 2 == pytest.approx(neutral), f"{name}: {argument}"
