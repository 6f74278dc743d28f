"""The local journal of an MLflow run: events are appended to a file, and sent from there when a server answers."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from stillframe.paths import write_text

Event = dict[str, Any]


class Journal:
    """Append-only JSON lines beside a file that says how many of them were sent.

    A line that a crash cut short is dropped at the next reading; all before it stand.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.mark = path.with_suffix(".sent")
        path.parent.mkdir(parents=True, exist_ok=True)

    def append(self, event: Event) -> None:
        """Write one event; it is on disk when this returns."""
        line = json.dumps(event, allow_nan=True).encode() + b"\n"
        with self.path.open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def unsent(self) -> list[tuple[int, Event]]:
        """(number, event) of what is still to be sent, in order."""
        if not self.path.exists():
            return []
        sent = self.sent()
        events = []
        for number, line in enumerate(self.path.read_bytes().split(b"\n")[:-1]):
            if number < sent:
                continue
            try:
                events.append((number, json.loads(line)))
            except json.JSONDecodeError:  # cut short by a crash; it counts, as `sent` counts lines
                events.append((number, {"kind": "lost"}))
        return events

    def sent(self) -> int:
        """How many events were sent."""
        return int(self.mark.read_text()) if self.mark.exists() else 0

    def mark_sent(self, number: int) -> None:
        """All events before `number` were sent."""
        write_text(self.mark, str(number))

    def mend(self) -> None:
        """End a line that a crash cut short, so that the next event starts on a line of its own."""
        if self.path.exists() and self.path.stat().st_size:
            with self.path.open("rb+") as file:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")

    @contextmanager
    def sending(self) -> Iterator[bool]:
        """Only one process sends at a time; yields False when another one does."""
        lock = FileLock(self.path.with_suffix(".lock"))
        try:
            lock.acquire(blocking=False)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()
