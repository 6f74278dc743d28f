"""Training a net on that has lost a part of itself."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from stillframe.models.prune import slim, sparse, zeros
from stillframe.models.trained import load_net
from stillframe.paths import read_json
from stillframe.stages import train
from stillframe.training.finetune import finetune
from stillframe.training.spec import TrainingSpec
from stillframe.types import DatasetCard


@pytest.fixture
def trained(here):
    """A net that knows digits, and what it was trained with."""
    train.run(*here.params("task", "seed", "augment", "model", "optim", "trainer", "tracking"))
    prepared, out = here.folder / "data/prepared", here.folder / "artifacts/train"
    sections = here.params("augment", "model", "optim", "trainer")
    card = DatasetCard.read(prepared / "card.json")
    spec = TrainingSpec(
        "classification", 0, *sections, card, prepared / "train", prepared / "val", here.folder / "none"
    )
    return out, spec, read_json(out / "summary.json")["best_value"]


def test_half_the_weights_and_half_the_channels_can_be_done_without(trained):
    out, spec, before = trained
    net, _ = load_net(out)
    with sparse(net, 0.5):
        value = finetune(net, spec, epochs=2, lr=3e-3)
    assert zeros(net) == pytest.approx(0.5, abs=0.01) and value > 0.9 * before
    small, _ = load_net(out)
    slim(small, 0.5)
    value = finetune(small, spec, epochs=3, lr=1e-2)
    assert sum(part.numel() for part in small.parameters()) < 0.35 * sum(part.numel() for part in net.parameters())
    assert value > 0.8 * before and not small.training
    assert small(torch.zeros((3, 1, 8, 8), dtype=torch.uint8)).shape == (3, 10)


def test_batch_statistics_are_those_of_the_net_that_is_left(trained):
    """Also of a net whose own momentum is so low that they would lag behind for epochs (as in timm's tf_ nets)."""
    out, spec, _ = trained
    net, _ = load_net(out)
    layers = [layer for layer in net.modules() if isinstance(layer, _BatchNorm)]
    for layer in layers:
        layer.momentum = 1e-6
    with torch.no_grad():
        net.backbone.features[0].weight.mul_(0.3)
    old = layers[0].running_var.clone()
    assert math.isnan(finetune(net, spec, epochs=0, lr=1e-3))
    assert float((layers[0].running_var / old).median()) == pytest.approx(0.09, rel=0.3)


def test_a_net_whose_channels_cannot_be_followed_is_named(trained):
    out, _, _ = trained
    net, _ = load_net(out)
    net.backbone.head = torch.nn.Identity()
    with pytest.raises(ValueError, match="variant slim: plain_cnn has no layer of 10 outputs"):
        slim(net, 0.5)
