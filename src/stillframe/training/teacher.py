"""The trained net that another one learns from: a folder of the train stage, or the model of an MLflow run."""

from __future__ import annotations

from pathlib import Path

from stillframe.config import DistillConfig, TrackingConfig
from stillframe.models.build import Network
from stillframe.models.trained import load_net
from stillframe.paths import WORK
from stillframe.tracking.record import download
from stillframe.types import DatasetCard


def load(
    distill: DistillConfig, tracking: TrackingConfig, card: DatasetCard, *, trained: Path, outputs: int | None = None
) -> Network:
    """The teacher, in evaluation mode on the CPU.

    Args:
        distill: names it.
        tracking: where a run is looked for.
        card: of the data that is learnt.
        trained: where this training will write; DVC empties it first.
        outputs: of the network that learns; None: one a class.

    Raises:
        FileNotFoundError: no such folder, run or file.
        ValueError: the folder is this training's own, or the teacher answers about other pictures or classes.
    """
    name = distill.teacher
    if name.startswith("runs:/"):
        for file in ("model/model.json", "model/model.safetensors"):
            folder = download(f"{name.rstrip('/')}/{file}", tracking, WORK / "models").parent
    else:
        folder = Path(name)
        if folder.resolve() == trained.resolve():
            raise ValueError(f"optim.distill.teacher = {name!r} is emptied when train begins: copy it elsewhere first")
    net, _ = load_net(folder)
    for what, theirs, ours in (
        ("classes" if card.classes else "outputs", net.spec.classes, outputs or len(card.classes)),
        ("channels", net.spec.channels, card.channels),
    ):
        if theirs != ours:
            raise ValueError(f"optim.distill.teacher = {name!r} was trained for {theirs} {what}, the data has {ours}")
    return net
