"""Clips through the functions of image classification: first losses, mixing, views, refusals."""

from dataclasses import replace

import pytest
import torch

from stillframe.config import build
from stillframe.config.hydra_compose import compose
from stillframe.tasks import find_task
from stillframe.types import Batch, DatasetCard

CARD = DatasetCard(
    name="made",
    classes=["a", "b", "c"],
    counts={"train": {"a": 60, "b": 30, "c": 10}},
    channels=1,
    height=16,
    width=16,
    mean=[0.5],
    std=[0.2],
    slices=[],
    split_hash="",
    frames=4,
    clip={"frames": 4},
)
STILL = DatasetCard("made", ["a", "b", "c"], CARD.counts, 1, 16, 16, [0.5], [0.2], [], "")
GOLDEN = {
    "cnn_gru": [1.08417, 1.05154, 1.01453, 0.98805],
    "cnn_lstm": [1.10534, 1.09555, 1.08707, 1.07837],
    "cnn_attention": [1.12599, 1.73755, 3.07942, 1.87294],
    "frame_average": [1.11429, 1.21609, 1.57111, 1.41163],
}


def batch(size=12):
    random = torch.Generator().manual_seed(1)
    return Batch(
        inputs={"image": torch.randint(0, 256, (size, 4, 1, 16, 16), generator=random, dtype=torch.uint8)},
        target={"label": torch.arange(size) % 3},
        weight_B=torch.ones(size),
        index_B=torch.arange(size),
    )


def sections(name):
    values = compose([f"model={name}", "optim=adam_constant"])
    return build("model", values["model"] | {"drop_rate": 0.0}), build("optim", values["optim"])


def losses(name):
    """The losses of four steps of plain gradient descent."""
    model, optim = sections(name)
    task = find_task("video_classification").learning
    torch.manual_seed(0)
    net = task.build_network(model, CARD)
    loss, learn = task.make_loss(optim, CARD), torch.optim.SGD(net.parameters(), lr=0.1)
    out = []
    for _ in range(4):
        value, prediction = task.step(net, batch(), loss)
        assert prediction.outputs["logits"].shape == (12, 3)
        learn.zero_grad()
        value.backward()
        learn.step()
        out.append(value.item())
    return out


@pytest.mark.parametrize("name", GOLDEN)
def test_the_first_losses(name):
    assert losses(name) == pytest.approx(GOLDEN[name], rel=1e-3)


def test_mixing_treats_all_frames_of_a_clip_alike():
    task = find_task("video_classification").learning
    still = replace(batch(), inputs={"image": batch().image[:, :1].expand(-1, 4, -1, -1, -1).contiguous()})
    for kind in ("mixup", "cutmix"):
        _, optim = sections("cnn_gru")
        torch.manual_seed(0)
        mixed = task.mix(type(optim)(**(vars(optim) | {kind: 1.0})), CARD, still)
        assert mixed.image.shape == still.image.shape and mixed.target["label_distribution"] is not None
        assert (mixed.image == mixed.image[:, :1]).all()
        assert not torch.equal(mixed.image, still.image.float())


def test_views_of_a_clip_mirror_every_frame():
    task = find_task("video_classification").learning
    first, second = task.tta_views(batch().image, "mirror")
    assert torch.equal(second, first.flip(-1))


def test_clips_and_images_each_have_their_task():
    model, _ = sections("cnn_gru")
    with pytest.raises(ValueError, match=r"the data are images, not clips .*: set task = classification"):
        find_task("video_classification").learning.build_network(model, STILL)
    with pytest.raises(ValueError, match=r"the data are clips of 4 frames .*: set task = video_classification"):
        find_task("classification").learning.build_network(model, CARD)
