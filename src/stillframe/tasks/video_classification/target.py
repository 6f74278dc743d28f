"""Labels of videos: those of images, on files that are videos."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from stillframe.ingest.listing import holds_videos
from stillframe.ingest.target import Onboarding
from stillframe.tasks.classification import target


def onboarding(folder: Path, table: str | None) -> Onboarding | None:
    """A folder of videos; no spatial augmentation, for a mirror image moves the other way."""
    return Onboarding("videos", model="cnn_gru", augment="none") if holds_videos(folder) else None


TARGET = replace(target.TARGET, module=__name__, onboarding=onboarding)
