"""Whatever moves an image moves its mask: a mask that its image shows by its colours still is that mask afterwards."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from masked import mask_of, scene
from stillframe.augmentation import batch_augment, batch_rules, offline, policy, random_draws
from stillframe.augmentation.online import OnlineAugmentation, make_online
from stillframe.augmentation.preview import make_preview
from stillframe.config import AugmentConfig
from stillframe.store.loader import SplitDataset
from stillframe.store.split import Split, SplitWriter
from stillframe.tasks import find_task
from stillframe.tasks.segmentation import IGNORE
from tiny import LABEL, MASK

CONF = Path(__file__).parents[2] / "conf/augment"
PX, COUNT = 48, 24
COLOURS_ONLY = {"RandomBrightnessContrast", "GaussNoise", "GaussianBlur", "CoarseDropout"}  # pixels keep their places
MORE = [  # geometric transforms that no shipped policy has, and that have a batched form
    {"Transpose": {"p": 1.0}},
    {"RandomRotate90": {"p": 1.0}},
    {"SquareSymmetry": {"p": 1.0}},
    {"Affine": {"rotate": [-40, 40], "shear": [-10, 10], "p": 1.0}},
    {"Affine": {"translate_px": [-9, 9], "border_mode": 4, "p": 1.0}},
    {"RandomResizedCrop": {"size": [PX, PX], "scale": [0.3, 0.9]}},
    {"Sequential": {"transforms": [{"Pad": {"padding": 6}}, {"RandomCrop": {"height": PX, "width": PX}}]}},
]


def shipped():
    """Each geometric transform of each policy in conf/augment, once."""
    found = {}
    for path in sorted(CONF.glob("*.yaml")):
        values = yaml.safe_load(path.read_text())
        for entry in [*values.get("offline", []), *values.get("online", [])]:
            ((name, arguments),) = entry.items()
            if name not in COLOURS_ONLY:
                found[str(entry)] = {name: {**arguments, "p": 1.0}}
    assert {next(iter(entry)) for entry in found.values()} >= {"HorizontalFlip", "D4", "Affine", "ElasticTransform"}
    return list(found.values())


@pytest.fixture(scope="module")
def scenes():
    pairs = [scene(number, PX, PX) for number in range(COUNT)]
    return np.stack([image for image, _ in pairs]), np.stack([mask for _, mask in pairs])


def match(image, mask):
    """Share of the pixels that count whose class is the one that the image shows."""
    counts = mask != IGNORE
    assert counts.mean() > 0.35 and set(np.unique(mask)) <= {0, 1, 2, IGNORE}
    return (mask_of(image)[counts] == mask[counts]).mean()


def names(entry):
    return str(entry)[:60]


@pytest.mark.parametrize("entry", shipped() + MORE, ids=names)
def test_per_item(scenes, entry):
    images, masks = scenes
    keys = random_draws.keys(0, 0, np.arange(COUNT))
    made = policy.ItemPolicy([entry], "x")
    moved, maps = made.with_maps(images, {"mask": masks}, keys)
    moved_masks = maps["mask"]
    np.testing.assert_array_equal(moved, made(images, keys))  # a mask beside it changes no image
    assert (moved_masks != masks).mean() > 0.02, "it does something"
    assert match(moved, moved_masks) > 0.97
    assert 1 - match(moved, moved_masks) < 0.6 * (1 - match(moved, masks)), "the mask that stayed does not match"


def batched():
    for entry in shipped() + MORE:
        inner = entry["Sequential"]["transforms"] if "Sequential" in entry else [entry]
        if not batch_rules.first_problem(policy.build(inner, "x")):
            yield inner


@pytest.mark.parametrize("entries", list(batched()), ids=names)
def test_on_the_batch(scenes, entries):
    images, masks = scenes
    made = batch_augment.BatchPolicy(policy.build(entries, "x"))
    image = torch.from_numpy(images).permute(0, 3, 1, 2)
    online = OnlineAugmentation("batch", entries, 0)
    moved, maps = online.batch_with_maps(image, {"mask": torch.from_numpy(masks)}, 0, torch.arange(COUNT))
    moved_masks = maps["mask"]
    assert torch.equal(moved, made(image, 0, 0, torch.arange(COUNT))) and moved_masks.dtype == torch.uint8
    assert (moved_masks.numpy() != masks).mean() > 0.02
    assert match(moved.permute(0, 2, 3, 1).numpy(), moved_masks.numpy()) > 0.97


def test_colours_leave_masks_alone_in_both_forms(scenes):
    images, masks = scenes
    entries = [{"RandomBrightnessContrast": {"p": 1.0}}, {"CoarseDropout": {"p": 1.0}}]
    keys = random_draws.keys(0, 0, np.arange(COUNT))
    moved, same = policy.ItemPolicy(entries, "x").with_maps(images, {"mask": masks}, keys)
    np.testing.assert_array_equal(same["mask"], masks)
    assert (moved != images).any()
    made = batch_augment.BatchPolicy(policy.build(entries, "x"))
    same = made.move(torch.from_numpy(masks), 0, 0, torch.arange(COUNT))
    np.testing.assert_array_equal(same.numpy(), masks)


@pytest.mark.parametrize(
    "entry",
    [{"Affine": {"translate_px": {"x": [5, 5], "y": [0, 0]}, "p": 1.0}}, {"Affine": {"rotate": [30, 30], "p": 1.0}}],
)
def test_what_was_not_in_the_picture_is_ignored(scenes, entry):
    images, masks = scenes
    keys = random_draws.keys(0, 0, np.arange(COUNT))
    item = policy.ItemPolicy([entry], "x").with_maps(images, {"mask": masks}, keys)[1]["mask"]
    made = batch_augment.BatchPolicy(policy.build([entry], "x"))
    batch = made.move(torch.from_numpy(masks), 0, 0, torch.arange(COUNT))
    assert (item[:, 0, 0] == IGNORE).all()
    assert (item == batch.numpy()).mean() > 0.995  # both forms agree, but for nearest neighbours that are as near


def test_a_policy_that_would_mix_classes_is_refused():
    wrong = [{"Affine": {"rotate": [5, 5], "mask_interpolation": 1}}]
    policy.check_policy(wrong, "augment.online", (32, 32, 3))
    with pytest.raises(ValueError, match=r"augment\.online: Affine\.mask_interpolation = 1"):
        policy.check_policy(wrong, "augment.online", (32, 32, 3), maps=True)


def write(folder, scenes, encoding="raw"):
    from stillframe.store.encoding import encode, encode_map

    with SplitWriter(folder, height=PX, width=PX, channels=3, encoding=encoding, targets=[LABEL, MASK]) as writer:
        same = {
            "weight": 1.0,
            "group": "g",
            "source_width": PX,
            "source_height": PX,
            "source_mode": "RGB",
            "slices": "{}",
        }
        for number, (image, mask) in enumerate(zip(*scenes, strict=True)):
            own = {"id": str(number), "source_id": str(number), "label": number % 3}
            writer.write([{**same, **own, "image": encode(image, encoding), "mask": encode_map(mask, encoding)}])
    return folder


ONLINE = [{"D4": {"p": 1.0}}, {"Affine": {"rotate": [-20, 20], "p": 1.0}}]


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_offline_copies_loader_and_preview(tmp_path, scenes, encoding):
    train = write(tmp_path / "train", scenes, encoding)
    augment = AugmentConfig(
        "both", [{"ElasticTransform": {"alpha": 20.0, "sigma": 5.0, "p": 1.0}}], 1, "none", ONLINE, "item", None
    )
    offline.make_copies(train, augment, seed=0, out=tmp_path / "augmented", work=tmp_path / "work")
    copies = Split(tmp_path / "augmented")
    places = np.arange(COUNT)
    assert "mask" in copies.targets and len(copies) == COUNT
    assert match(copies.images(places), copies.target("mask", places)) > 0.97
    assert (copies.target("mask", places) != scenes[1]).any()
    online = make_online(augment, image_size=PX, channels=3, device_type="cpu", seed=0, maps=True)
    batch = SplitDataset([train, tmp_path / "augmented"], online)[(1, np.arange(2 * COUNT))]
    assert batch.target["mask"] is not None and batch.target["mask"].dtype == torch.uint8
    assert match(batch.image.permute(0, 2, 3, 1).numpy(), batch.target["mask"].numpy()) > 0.96
    plain = SplitDataset([train])[(0, np.array([3, 1]))]
    np.testing.assert_array_equal(plain.target["mask"].numpy(), scenes[1][[3, 1]])
    make_preview(
        tmp_path / "preview.png",
        train=train,
        augmented=tmp_path / "augmented",
        augment=augment,
        classes=["ground", "square", "disc"],
        name="made",
        seed=0,
        draw=find_task("segmentation").target.draw,
    )
    assert (tmp_path / "preview.png").stat().st_size > 20_000


def test_online_gives_the_same_pair_for_the_same_seed_epoch_and_row(scenes):
    images, masks = scenes
    for where in ("item", "batch"):
        drawn = [OnlineAugmentation(where, ONLINE, seed) for seed in (0, 0, 1)]
        out = []
        for one in drawn:
            if where == "item":
                out.append(one.items_with_maps(images, {"mask": masks}, 2, np.arange(COUNT))[1]["mask"])
            else:
                image = torch.from_numpy(images).permute(0, 3, 1, 2)
                maps = {"mask": torch.from_numpy(masks)}
                out.append(one.batch_with_maps(image, maps, 2, torch.arange(COUNT))[1]["mask"].numpy())
        np.testing.assert_array_equal(out[0], out[1])
        assert (out[0] != out[2]).mean() > 0.05
