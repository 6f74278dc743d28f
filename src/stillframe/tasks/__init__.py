"""Tasks: what is learned. One file a task; `TASKS` is the only place that knows them all."""

from stillframe.config import nearest
from stillframe.tasks import classification, segmentation, video_classification
from stillframe.tasks.base import Task

TASKS: dict[str, Task] = {
    "classification": classification.TASK,
    "segmentation": segmentation.TASK,
    "video_classification": video_classification.TASK,
}


def find(name: str) -> Task:
    """The task of that name (ValueError names the nearest one)."""
    if name not in TASKS:
        raise ValueError(f"params.yaml: task = {name!r}: {nearest(name, TASKS)}")
    return TASKS[name]
