"""The trained net itself, asked as an exported file is: the same function as in validate and evaluate behind it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from stillframe.config import DataConfig
from stillframe.inference.model_metadata import ModelMetadata
from stillframe.inference.onnx_model import ModelOutputs, no_masks, shown, together, unfold
from stillframe.models.trained import load_net
from stillframe.paths import read_json
from stillframe.tasks import find_task
from stillframe.tasks.calibration import decide, softmax
from stillframe.types import Batch, DatasetCard


def facts_of(trained: Path, validated: Path, card: Path, data: DataConfig) -> ModelMetadata:
    """What decides a trained model's answers, from what the stages wrote.

    Raises:
        FileNotFoundError: a stage has not run. ValueError: a file is damaged.
    """
    card_facts, choices, model = (
        DatasetCard.read(card),
        read_json(validated / "choices.json"),
        read_json(trained / "model.json"),
    )
    clip = card_facts.clip or {}
    run = trained / "run.json"
    origin = read_json(run) if run.exists() else {}
    return ModelMetadata(
        task=model["task"],
        classes=card_facts.classes,
        size=card_facts.height,
        channels=card_facts.channels,
        resize=data.resize,
        min_px=data.min_px,
        max_megapixels=data.max_megapixels,
        tta=choices["tta"],
        temperature=choices["temperature"],
        threshold=choices["threshold"],
        net=model["name"],
        variant="trained",
        data=card_facts.name,
        data_hash=card_facts.split_hash,
        run_id=origin.get("run_id"),
        git_commit=origin.get("git_commit"),
        frames=card_facts.frames,
        fps=clip.get("fps"),
        sampling=clip.get("sampling"),
        views=clip.get("views", 1),
        seconds=card_facts.seconds,
        answer=find_task(model["task"]).answer,
        overlap=data.masks.overlap if data.masks is not None else None,
    )


class TrainedModel:
    """A folder of the train stage with the frozen choices; answers like `Exported`.

    Attributes:
        facts: what decides its answers.
    """

    def __init__(self, trained: Path, facts: ModelMetadata, *, threads: int = 0) -> None:
        """Load the net on the CPU (FileNotFoundError, ValueError: as `load_net`)."""
        self.net, task = load_net(trained)
        self.task, self.facts = find_task(task), facts
        if threads:
            torch.set_num_threads(threads)

    def __call__(self, images: Sequence[NDArray[np.uint8]]) -> ModelOutputs:
        """Answer decoded images or clips of any sizes (ValueError: an array that is neither)."""
        no_masks(self.facts)
        parts, of_N = unfold(images, self.facts.frames)
        return together(self.ask(parts), of_N, self.facts.threshold)

    def batch(self, image_NHWC: NDArray[np.uint8]) -> ModelOutputs:
        """Answer images of one size, as `Exported.batch`."""
        return self.ask(list(image_NHWC))

    def ask(self, parts: Sequence[NDArray[np.uint8]]) -> ModelOutputs:
        """Answer images or clips, each by itself."""
        facts = self.facts
        pixels = torch.from_numpy(np.stack([shown(part, facts) for part in parts]))
        batch = Batch({"image": pixels.movedim(-1, -3)}, {}, torch.ones(len(parts)), torch.arange(len(parts)))
        logits_NK = self.task.learning.predict(self.net, batch, facts.tta).outputs["logits"].numpy()
        probability_NK = softmax(logits_NK, facts.temperature)
        decision_N = decide(probability_NK, facts.threshold).astype(np.int64)
        return ModelOutputs(probability_NK.astype(np.float32), decision_N)
