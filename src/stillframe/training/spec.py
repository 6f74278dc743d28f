"""What a network is trained with; apart from the loop, so that naming it does not import Lightning."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stillframe.config import AugmentConfig, ModelConfig, OptimConfig, TrainerConfig, flat
from stillframe.types import DatasetCard


@dataclass(frozen=True)
class TrainingSpec:
    """The sections of params.yaml and the data of one training or fine-tuning.

    Attributes:
        task: name of the task.
        seed: of the run.
        augment: section `augment`; so are `model`, `optim` and `trainer`.
        card: of the prepared data.
        train: folder of the train split; card.json lies beside it.
        val: folder of the validation split.
        augmented: folder of the offline copies, which need not exist.
    """

    task: str
    seed: int
    augment: AugmentConfig
    model: ModelConfig
    optim: OptimConfig
    trainer: TrainerConfig
    card: DatasetCard
    train: Path
    val: Path
    augmented: Path

    @property
    def train_folders(self) -> list[Path]:
        """The train split and, where there are some, its offline copies."""
        return [self.train, *([self.augmented] if self.augmented.exists() else [])]

    def params(self) -> dict[str, Any]:
        """The sections, flat: `{"task": "classification", "optim.lr": 0.001, ...}`."""
        sections = {name: asdict(getattr(self, name)) for name in ("augment", "model", "optim", "trainer")}
        return flat({"task": self.task, "seed": self.seed, **sections})
