"""The files that paths, folders and patterns name, one after another."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from stillframe.ingest.listing import walk


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file to be predicted.

    Attributes:
        path: as it was named, or below the folder that was.
        problem: why it cannot be used whatever it holds (a broken link, say); "" when it may be read.
    """

    path: str
    problem: str = ""


def expand_paths(paths: Iterable[str], ignored: Counter[str], *, videos: bool = False) -> Iterator[InputFile]:
    """Files in the order of the arguments; inside folders and patterns by name.

    A folder gives the files that are images (with `videos`: videos) by their ending or first bytes, at any depth; what
    it passes over is counted in `ignored`. A file that is named is always taken: that it is no image is a
    result. A name that is not there is taken as a pattern (`*`, `?`, `[...]`, `**`); one that matches nothing is a
    problem.
    """
    for text in paths:
        if Path(text).exists() or not glob.has_magic(text):
            yield from _below(text, ignored, videos)
            continue
        matches = sorted(glob.glob(text, recursive=True))
        for match in matches:
            yield from _below(match, ignored, videos)
        if not matches:
            yield InputFile(text, "unreadable: the pattern matches no file")


def _below(text: str, ignored: Counter[str], videos: bool) -> Iterator[InputFile]:
    path = Path(text)
    if not path.is_dir():
        yield InputFile(text)
        return
    for inside, problem in walk(path, ".", ignored, videos=videos):
        yield InputFile(str(path / inside.removeprefix("./")), problem)
