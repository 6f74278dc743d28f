"""An untrained net as an exported file, and as a folder of the train stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stillframe.export.onnx_graph import net_graph, save, with_preprocessing
from stillframe.inference.predictor import Predictor, predict_images
from stillframe.model_metadata import ModelMetadata
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
    save(with_preprocessing(net_graph(make_net(seed), said), said), path)
    return path


def write_trained(folder: Path, seed: int = 0) -> Path:
    """What the train stage leaves of a net."""
    net = make_net(seed)
    weights.save(net, folder / "model.safetensors")
    write_json(folder / "model.json", {"task": "classification", **asdict(net.spec)})
    return folder


@dataclass(frozen=True)
class Predicted:
    """Probabilities and class indices of several images."""

    probability_NK: np.ndarray
    decision_N: np.ndarray


def predicted(model: Predictor, images: Sequence[Any]) -> Predicted:
    """The predictions of a classifier for images of any sizes."""
    predictions = predict_images(model, images)
    probabilities = [prediction.probability_K for prediction in predictions]
    indices = np.array([prediction.index for prediction in predictions], dtype=np.int64)
    return Predicted(np.array(probabilities).reshape(-1, len(model.metadata.classes)), indices)
