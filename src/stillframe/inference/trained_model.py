"""The trained network itself in place of an exported file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stillframe.config import DataConfig
from stillframe.inference.predictor import preprocess
from stillframe.ingest.decode import Pixels
from stillframe.model_metadata import ModelMetadata
from stillframe.models.trained import load_net
from stillframe.paths import read_json
from stillframe.tasks import find_task
from stillframe.types import Batch, DatasetCard


def read_metadata(trained: Path, validated: Path, card: Path, data: DataConfig) -> ModelMetadata:
    """The metadata of a trained model, from what the stages wrote.

    Raises:
        FileNotFoundError: a stage has not run. ValueError: a file is damaged.
    """
    dataset, choices = DatasetCard.read(card), read_json(validated / "choices.json")
    model, run = read_json(trained / "model.json"), trained / "run.json"
    clip, origin = dataset.clip or {}, read_json(run) if run.exists() else {}
    return ModelMetadata(
        task=model["task"],
        classes=dataset.classes,
        size=dataset.height,
        channels=dataset.channels,
        resize=data.resize,
        min_px=data.min_px,
        max_megapixels=data.max_megapixels,
        tta=choices["tta"],
        temperature=choices.get("temperature", 1.0),
        threshold=choices.get("threshold"),
        net=model["name"],
        variant="trained",
        data=dataset.name,
        data_hash=dataset.split_hash,
        run_id=origin.get("run_id"),
        git_commit=origin.get("git_commit"),
        frames=dataset.frames,
        fps=clip.get("fps"),
        sampling=clip.get("sampling"),
        views=clip.get("views", 1),
        seconds=dataset.seconds,
        overlap=data.masks.overlap if data.masks is not None else None,
        thresholds=choices.get("thresholds", []),
        target=dataset.target,
    )


class TrainedModel:
    """A folder of the train stage with the frozen choices, a `Predictor`.

    Attributes:
        metadata: what decides its predictions.
    """

    def __init__(self, trained: Path, metadata: ModelMetadata, *, threads: int = 0) -> None:
        """Load the network on the CPU (FileNotFoundError, ValueError: as `load_net`)."""
        self.net, task = load_net(trained)
        self.task, self.metadata = find_task(task), metadata
        if threads:
            torch.set_num_threads(threads)

    def run(self, image_NHWC: Pixels) -> dict[str, NDArray[Any]]:
        """The outputs of the exported file by name, for images (N, H, W, C) or clips (N, T, H, W, C) of any one size.

        By the task's own prediction function, as in validate and evaluate.
        """
        images = torch.from_numpy(np.stack([preprocess(image, self.metadata) for image in image_NHWC]))
        batch = Batch({"image": images.movedim(-1, -3)}, {}, torch.ones(len(images)), torch.arange(len(images)))
        outputs = self.task.learning.predict(self.net, batch, self.metadata.tta).outputs
        (raw,) = outputs.values()
        arrays = self.task.learning.export_head(raw.double(), self.metadata)  # in float64, as evaluate computes
        return {
            name: value.float().numpy() if value.is_floating_point() else value.numpy()
            for name, value in arrays.items()
        }
