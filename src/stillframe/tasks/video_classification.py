"""Video classification: one label a clip. What differs from images is the net; losses and scores are theirs.

Mixup and CutMix treat all frames of a clip alike: one share, one box.
"""

from __future__ import annotations

from dataclasses import replace

from stillframe.config import Model
from stillframe.nets import build
from stillframe.nets.build import Net
from stillframe.sample import Card
from stillframe.tasks import classification


def build_net(model: Model, card: Card) -> Net:
    """A fresh net for clips with one logit a class (ValueError: a model that takes no clips, or data without them)."""
    if card.frames == 1:
        raise ValueError("the data are images, not clips (data.clip is null): set task = classification")
    return build.for_card(model, card, frames=card.frames)


TASK = replace(classification.TASK, build_net=build_net)
