"""Stage 4: seeded offline copies and balancing of the train split; the policies resolved and shown."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from stillframe.augmentation import policy
from stillframe.augmentation.offline import ORIGIN as OFFLINE
from stillframe.augmentation.offline import class_indices, make_copies, row_classes
from stillframe.augmentation.online import ORIGIN as ONLINE
from stillframe.augmentation.online import choose_where
from stillframe.augmentation.preview import make_preview
from stillframe.config import AugmentConfig, read_params
from stillframe.paths import AUGMENTED, PREPARED, WORK, fresh_folder, write_json
from stillframe.store.frame_sampling import make_frame_sampler
from stillframe.store.split import Split
from stillframe.tasks import find_task
from stillframe.types import DatasetCard


def check(augment: AugmentConfig, card: DatasetCard, maps: bool) -> dict[str, str]:
    """Check both policies before any work; returns where the online one runs, by device type.

    Args:
        augment: section `augment`.
        card: of the dataset.
        maps: whether a target is a map, which is transformed with its image.

    Raises:
        ValueError: a policy that cannot run on this data; names the key, the value and what is allowed.
    """
    make_frame_sampler(card, augment.temporal, seed=0)
    shape = (card.height, card.width, card.channels)
    policy.check_policy(augment.offline, OFFLINE, shape, maps=maps)
    policy.check_policy(augment.online, ONLINE, shape, maps=maps)
    if augment.copies and not augment.offline:
        raise ValueError(
            f"augment.copies = {augment.copies} with an empty augment.offline would only repeat the images: "
            "name transforms there, or set augment.copies to 0"
        )
    size = {"image_size": card.height, "channels": card.channels}
    return {device: choose_where(augment, **size, device_type=device) for device in ("cpu", "cuda")}


def describe(augment: AugmentConfig, where: dict[str, str], counts: dict[str, Any], seed: int) -> dict[str, Any]:
    """What policy.json says: each transform with the value of each argument, and how many copies were made."""
    temporal: dict[str, Any] = {"temporal": asdict(augment.temporal)} if augment.temporal is not None else {}
    return temporal | {
        "name": augment.name,
        "albumentations": policy.version(),
        "seed": seed,
        "offline": policy.resolved(augment.offline, OFFLINE),
        "copies": augment.copies,
        "balance": augment.balance,
        "counts": counts,
        "online": policy.resolved(augment.online, ONLINE),
        "where": augment.where,
        "where_on": where,
    }


def run(
    task: str,
    seed: int,
    augment: AugmentConfig,
    *,
    train: Path = PREPARED / "train",
    card: Path = PREPARED / "card.json",
    augmented: Path = AUGMENTED,
) -> None:
    """Write data/augmented: the copies as a split (possibly of no rows), policy.json and preview.png.

    Args:
        task: name of the task, which knows how targets are drawn.
        seed: of the run.
        augment: section `augment`.
        train: the train split.
        card: what preprocess measured.
        augmented: written from scratch.

    Raises:
        FileNotFoundError, ValueError: no prepared data, or damaged; a policy cannot run or changes the targets.
    """
    facts, split, target = DatasetCard.read(card), Split(train), find_task(task).target
    where = check(augment, facts, any(column.is_map for column in split.targets.values()))
    target.check_augmentation(augment, facts)
    classes = row_classes(split, facts.classes)
    if augment.balance != "none" and not classes:
        raise ValueError(f"augment.balance = {augment.balance!r}: there are no classes to balance: set it to none")
    fresh_folder(augmented)
    plan = make_copies(train, augment, seed=seed, out=augmented, work=WORK)
    class_N, names = class_indices(split), classes or ["all"]
    sizes = [np.bincount(indices, minlength=len(names)).tolist() for indices in (class_N, class_N[plan.row_M])]
    counts = {name: {"train": sizes[0][k], "copies": sizes[1][k]} for k, name in enumerate(names)}
    write_json(augmented / "policy.json", describe(augment, where, counts, seed))
    make_preview(
        augmented / "preview.png",
        train=train,
        augmented=augmented,
        augment=augment,
        sampler=make_frame_sampler(facts, augment.temporal, seed=seed),
        classes=classes,
        name=facts.name,
        seed=seed,
        draw=target.draw,
    )
    copies = f"{len(plan):,} offline copies of {len(class_N):,} train images (policy {augment.name!r})"
    print(f"{copies}\nwhat the policy does to them: {augmented / 'preview.png'}")


if __name__ == "__main__":
    try:
        run(*read_params("task", "seed", "augment"))
    except (ValueError, OSError) as problem:
        sys.exit(f"augment: {problem}")
