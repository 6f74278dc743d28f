"""What is taken out of a net, and that nothing else changes."""

from __future__ import annotations

import pytest
import torch

from stillframe.models.build import NetworkSpec, rebuild
from stillframe.models.prune import lamp, slim, sparse, zeros

SPEC = NetworkSpec("plain_cnn", 5, 1, 16, [0.5], [0.2], 0.0, 0.0)


def test_lamp_is_the_share_of_what_is_left() -> None:
    score = lamp(torch.tensor([[3.0, -1.0], [2.0, 0.0]]))
    torch.testing.assert_close(score, torch.tensor([[1.0, 1 / 14], [4 / 13, 0.0]]))
    torch.testing.assert_close(lamp(1000 * torch.tensor([3.0, -1.0])), lamp(torch.tensor([3.0, -1.0])))


def test_the_scale_of_a_layer_decides_nothing() -> None:
    """A batch normalisation behind it takes the scale away: no layer may be emptied for its small numbers."""
    net = rebuild(SPEC).eval()
    with torch.no_grad():
        net.backbone.features[3].weight.mul_(1e-3)
    with sparse(net, 0.5):
        pass
    assert zeros(net) == pytest.approx(0.5, abs=1e-3)
    assert (net.backbone.features[3].weight != 0).float().mean() > 0.3


def test_masks_hold_while_the_others_learn_and_leave_plain_weights() -> None:
    torch.manual_seed(0)
    net = rebuild(SPEC).eval()
    names = set(net.state_dict())
    with sparse(net, 0.7):
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        net(torch.randint(0, 256, (4, 1, 16, 16), dtype=torch.uint8)).square().sum().backward()
        optimizer.step()
    assert zeros(net) == pytest.approx(0.7, abs=1e-3) and set(net.state_dict()) == names


def test_slim_keeps_inputs_and_classes() -> None:
    net = rebuild(SPEC).eval()
    before = sum(part.numel() for part in net.parameters())
    slim(net, 0.5)
    assert sum(part.numel() for part in net.parameters()) < 0.3 * before
    assert net(torch.zeros((2, 1, 16, 16), dtype=torch.uint8)).shape == (2, 5)


@pytest.mark.parametrize("name", ["unet", "deeplabv3plus"])
def test_slim_takes_channels_out_of_nets_for_masks(name: str) -> None:
    net = rebuild(NetworkSpec(name, 5, 3, 64, [0.5] * 3, [0.2] * 3, 0.0, 0.0, encoder="test_resnet")).eval()
    before = sum(part.numel() for part in net.parameters())
    slim(net, 0.5)
    assert sum(part.numel() for part in net.parameters()) < 0.6 * before
    assert net(torch.zeros((2, 3, 64, 64), dtype=torch.uint8)).shape == (2, 5, 64, 64)


@pytest.mark.parametrize(("name", "temporal"), [("plain_cnn", "gru"), ("plain_cnn", "attention")])
def test_nets_for_clips_become_slim_and_sparse(name: str, temporal: str | None) -> None:
    """Of a head over time nothing is taken out: the net that sees each frame loses its channels."""
    spec = NetworkSpec(name, 5, 3, 16, [0.5] * 3, [0.2] * 3, 0.0, 0.0, frames=4, temporal=temporal)
    net, clips = rebuild(spec).eval(), torch.zeros((2, 4, 3, 16, 16), dtype=torch.uint8)
    before = sum(part.numel() for part in net.parameters())
    with sparse(net, 0.5):
        pass
    assert zeros(net) == pytest.approx(0.5, abs=1e-2)
    slim(net, 0.5)
    assert sum(part.numel() for part in net.parameters()) < 0.8 * before
    assert net(clips).shape == (2, 5)
