"""Online augmentation: where it runs, and that no draw is repeated over workers and epochs."""

import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from stillframe.augmentation.online import make_online
from stillframe.config import AugmentConfig

CONF = Path(__file__).parents[2] / "conf" / "augment"
FLIP = {"HorizontalFlip": {"p": 0.5}}
NOISE = {"GaussNoise": {"p": 1.0}}


def augment(online, where="auto"):
    return AugmentConfig(name="made", offline=[], copies=0, balance="none", online=online, where=where, temporal=None)


def shipped(name):
    values = {}
    for part in ("none", name):
        values |= yaml.safe_load((CONF / f"{part}.yaml").read_text())
    values.pop("defaults", None)
    return AugmentConfig(**values)


def online(policy, where="auto", size=28, device="cpu", seed=0, channels=1):
    return make_online(augment(policy, where), image_size=size, channels=channels, device_type=device, seed=seed)


def images(count=20, size=28, channels=1):
    return np.random.default_rng(2).integers(0, 256, (count, size, size, channels), dtype=np.uint8)


def test_no_policy_no_augmentation():
    assert online([]) is None


@pytest.mark.parametrize(
    "policy, where, size, channels, device, expected",
    [
        ([FLIP], "auto", 28, 1, "cpu", "batch"),
        ([FLIP], "auto", 32, 3, "cpu", "batch"),
        ([FLIP], "auto", 64, 1, "cpu", "batch"),
        ([FLIP], "auto", 64, 3, "cpu", "item"),
        ([FLIP], "auto", 65, 1, "cpu", "item"),
        ([FLIP], "auto", 224, 3, "cuda", "batch"),
        ([FLIP, NOISE], "auto", 28, 1, "cuda", "item"),
        ([FLIP], "item", 28, 1, "cuda", "item"),
        ([FLIP], "batch", 224, 3, "cpu", "batch"),
    ],
)
def test_where(policy, where, size, channels, device, expected):
    assert online(policy, where, size, device, channels=channels).where == expected


def test_what_cannot_run_on_the_batch_is_named_before_any_work():
    with pytest.raises(ValueError, match="augment.where = 'batch': GaussNoise has no batched form"):
        online([FLIP, NOISE], "batch")
    with pytest.raises(ValueError, match=r"augment.online\[0\].*did you mean 'HorizontalFlip'"):
        online([{"HorzontalFlip": {}}])
    with pytest.raises(ValueError, match="augment.online: .*20 x 20 px"):
        online([{"RandomCrop": {"height": 20, "width": 20}}])


def call(made, images_BHWC, epoch, index_B):
    """Either path, as arrays in and out."""
    if made.where == "item":
        return made.items(images_BHWC, epoch, index_B)
    image = torch.from_numpy(images_BHWC).permute(0, 3, 1, 2)
    return made.batch(image, epoch, torch.from_numpy(index_B)).permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("where", ["item", "batch"])
@pytest.mark.parametrize("name", ["light", "upright", "strong", "small", "small_erasing"])
def test_shipped_policies_draw_by_seed_epoch_and_index_only(name, where, channels):
    chosen = shipped(name)
    parts = [make_online(chosen, image_size=28, channels=channels, device_type="cpu", seed=seed) for seed in (0, 0, 1)]
    for part in parts:
        part.where = where
    first, again, other_seed = parts
    made, index = images(channels=channels), np.arange(100, 120)
    whole = call(first, made, 3, index)
    assert whole.shape == made.shape and whole.dtype == np.uint8
    order = np.array([13, 4, 4, 0])
    np.testing.assert_array_equal(call(again, made[order], 3, index[order]), whole[order])
    assert (call(first, made, 4, index) != whole).any(axis=(1, 2, 3)).mean() > 0.5  # another epoch, another draw
    assert (call(other_seed, made, 3, index) != whole).any(axis=(1, 2, 3)).mean() > 0.5
    np.testing.assert_array_equal(call(pickle.loads(pickle.dumps(first)), made, 3, index), whole)


def test_samples_epochs_and_workers_do_not_repeat_each_other():
    made = online([NOISE], "item")
    same = np.repeat(images(1), 32, axis=0)  # one picture 32 times: only the draws can tell the results apart
    drawn = [made.items(same, epoch, np.arange(32)) for epoch in range(4)]
    assert len(np.unique(np.concatenate(drawn).reshape(128, -1), axis=0)) == 128
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:  # each worker begins from the same state
        halves = [np.arange(16), np.arange(16, 32)]
        jobs = [pool.submit(made.items, same[half], epoch, half) for epoch in range(4) for half in halves]
        parallel = [job.result() for job in jobs]
    np.testing.assert_array_equal(np.concatenate(parallel), np.concatenate(drawn))


def test_small_moves_whole_pixels_on_the_batch():
    made = make_online(shipped("small"), image_size=28, channels=1, device_type="cpu", seed=0)
    assert made.where == "batch"
    (image,) = images(1)
    padded = [np.pad(side[:, :, 0], 2) for side in (image, image[:, ::-1])]
    allowed = {side[y : y + 28, x : x + 28].tobytes() for side in padded for y in range(5) for x in range(5)}
    out = call(made, np.repeat(image[None], 500, axis=0), 0, np.arange(500))
    assert {one.tobytes() for one in out} == allowed  # mirror x 25 shifts, none interpolated
