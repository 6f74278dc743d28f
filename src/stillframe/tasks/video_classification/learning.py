"""Learning from clips: the network differs from classification's, losses and steps are its own.

Mixup and CutMix treat all frames of a clip alike: one share, one box.
"""

from __future__ import annotations

from stillframe.config import ModelConfig
from stillframe.models import build
from stillframe.models.build import Network
from stillframe.models.tta import tta_views
from stillframe.tasks.classification.learning import (
    distill_loss,
    export_head,
    make_accumulator,
    make_loss,
    mix,
    predict,
    step,
    undo_tta,
)
from stillframe.types import DatasetCard

__all__ = [
    "build_network",
    "distill_loss",
    "export_head",
    "make_accumulator",
    "make_loss",
    "mix",
    "predict",
    "step",
    "tta_views",
    "undo_tta",
]


def build_network(model: ModelConfig, card: DatasetCard) -> Network:
    """A fresh network for clips with one logit a class.

    Raises:
        ValueError: a model that takes no clips, or data without them.
    """
    if card.frames == 1:
        raise ValueError("the data are images, not clips (data.clip is null): set task = classification")
    return build.for_card(model, card, frames=card.frames)
