"""Loading the network that the train stage wrote."""

from __future__ import annotations

from pathlib import Path

from stillframe.models import weights
from stillframe.models.build import Network, NetworkSpec, rebuild
from stillframe.paths import read_json


def load_net(trained: Path) -> tuple[Network, str]:
    """The trained network, in evaluation mode on the CPU, and its task's name.

    Raises:
        FileNotFoundError: nothing was trained. ValueError: a file is damaged or does not fit.
    """
    facts = read_json(trained / "model.json")
    task = str(facts.pop("task"))
    net = rebuild(NetworkSpec(**facts))
    weights.load(net, trained / "model.safetensors")
    return net.eval(), task
