"""Training a net on that has lost a part of itself."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from stillframe import config
from stillframe.config.hydra_compose import compose
from stillframe.export.variants import MAKERS, ExportContext
from stillframe.models.build import Network
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


def test_pruned_networks_for_clips_are_tuned_on_clips_of_the_length_that_is_shown(long_walks_here, monkeypatch, capsys):
    """`export=compressed` on clips that are stored longer than they are shown, with attention over their frames."""
    here = long_walks_here
    train.run(*here.params("task", "seed", "augment", "model", "optim", "trainer", "tracking"))
    prepared, lengths = here.folder / "data/prepared", []
    card, sections = DatasetCard.read(prepared / "card.json"), here.params("augment", "model", "optim", "trainer")
    spec = TrainingSpec(
        "video_classification", 0, *sections, card, prepared / "train", prepared / "val", here.folder / "none"
    )
    normalise = Network.normalise

    def seen(self, image):
        if image.ndim == 5:
            lengths.append((len(image), image.shape[1]))
        return normalise(self, image)

    changes = {"share": 0.3, "epochs": 1}
    export = compose(["export=compressed"], Path(__file__).parents[2] / "conf")["export"]
    export |= {"sparse": export["sparse"] | changes, "slim": export["slim"] | changes}
    facts = SimpleNamespace(task="video_classification", tta="none", temperature=1.0, threshold=None)
    context = ExportContext(facts, config.build("export", export), here.folder / "artifacts/train", spec, 0)
    monkeypatch.setattr("stillframe.export.variants.net_graph", lambda net, facts: net)
    monkeypatch.setattr(Network, "normalise", seen)
    for name in ("sparse", "slim"):
        MAKERS[name](context, None)
    assert lengths and {frames for _, frames in lengths} == {16}
    validated = [count for count, frames in lengths if count == 8]
    assert len(validated) == 2, "of each validation video one view, once in each of the two fine-tunings"
    assert capsys.readouterr().out.count("1 epochs on, validation") == 2
