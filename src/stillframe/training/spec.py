"""What a trained net is tuned with; apart from `tuning`, so that naming it does not import Lightning."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stillframe.config import AugmentConfig, ModelConfig, OptimConfig, TrainerConfig
from stillframe.types import DatasetCard


@dataclass(frozen=True)
class FinetuneSpec:
    """What a net is tuned with: the sections and the data of its training."""

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
