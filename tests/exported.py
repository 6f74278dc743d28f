"""An untrained net as an exported file, and as a folder of the train stage."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from stillframe.export.onnx_graph import net_graph, save, whole
from stillframe.inference.model_metadata import ModelMetadata
from stillframe.models import weights
from stillframe.models.build import Network, NetworkSpec, rebuild
from stillframe.paths import write_json

SIDE = 16
CHOICES: dict[str, Any] = {"tta": "d4", "temperature": 1.3, "threshold": 0.4}
IMAGE: dict[str, Any] = {"size": SIDE, "channels": 3, "resize": "pad", "min_px": 4, "max_megapixels": 1.0}
ORIGIN: dict[str, Any] = {"data": "tiny", "data_hash": "h1", "run_id": "r1", "git_commit": "c1"}
FACTS = ModelMetadata(
    task="classification", classes=["cat", "dog ü"], net="plain_cnn", variant="fp32", **IMAGE, **CHOICES, **ORIGIN
)


def make_net(seed: int = 0) -> Network:
    """Two classes, 16 px, RGB."""
    torch.manual_seed(seed)
    return rebuild(NetworkSpec("plain_cnn", 2, 3, SIDE, [0.5] * 3, [0.05] * 3, 0.0, 0.0)).eval()


def write_file(path: Path, seed: int = 0, **facts: Any) -> Path:
    """The exported file of a net."""
    path.parent.mkdir(parents=True, exist_ok=True)
    said = replace(FACTS, **facts)
    save(whole(net_graph(make_net(seed), said), said), path)
    return path


def write_trained(folder: Path, seed: int = 0) -> Path:
    """What the train stage leaves of a net."""
    net = make_net(seed)
    weights.save(net, folder / "model.safetensors")
    write_json(folder / "model.json", {"task": "classification", **asdict(net.spec)})
    return folder
