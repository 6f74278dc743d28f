"""What a trained net is tuned with; apart from `tuning`, so that naming it does not import Lightning."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stillframe.config import Augment, Model, Optim, Trainer
from stillframe.sample import Card


@dataclass(frozen=True)
class Lesson:
    """What a net is tuned with: the sections and the data of its training."""

    task: str
    seed: int
    augment: Augment
    model: Model
    optim: Optim
    trainer: Trainer
    card: Card
    train: Path
    val: Path
    augmented: Path
