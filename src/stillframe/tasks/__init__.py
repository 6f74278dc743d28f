"""What is learned: one folder per task. `TASKS` lists them; a task's code is imported only when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from stillframe.tasks.base import Task

TASKS = {
    "classification": "stillframe.tasks.classification",
    "multilabel": "stillframe.tasks.multilabel",
    "regression": "stillframe.tasks.regression",
    "segmentation": "stillframe.tasks.segmentation",
    "video_classification": "stillframe.tasks.video_classification",
}


def find_task(name: str) -> Task:
    """The task of that name (ValueError as of `task_module`)."""
    return cast(Task, import_module(task_module(name)).TASK)


def task_module(name: str) -> str:
    """The dotted name of a task's folder.

    Raises:
        ValueError: there is no such task; names the nearest one.
    """
    if name not in TASKS:
        from stillframe.config import nearest  # pydantic: not at the start of those who only import a task

        raise ValueError(f"params.yaml: task = {name!r}: {nearest(name, TASKS)}")
    return TASKS[name]
