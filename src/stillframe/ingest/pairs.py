"""Two folders side by side, of images and of something beside each image, matched by their names."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from stillframe.ingest.listing import SPLIT_NAMES, walk


@dataclass(frozen=True)
class ImageFiles:
    """An image and the files that are named like it.

    Attributes:
        image: path relative to the source.
        problem: why the image cannot be used; "" for a usable one.
        split: "train", "val" or "test" where a folder's name says so.
        files: (part, path) each; part "" for a file that is the whole.
        folder: where the files should lie, relative to the source.
    """

    image: str
    problem: str
    split: str | None
    files: list[tuple[str, str]]
    folder: str


def find_pairs(folder: Path, images: str, others: str) -> list[tuple[str, str | None]]:
    """Where the folders `images` and `others` lie side by side: (path before them, split), "" for the source itself."""
    if (folder / images).is_dir() and (folder / others).is_dir():
        return [("", None)]
    inner = sorted(entry for entry in folder.iterdir() if entry.is_dir() and entry.name.lower() in SPLIT_NAMES)
    return [
        (f"{entry.name}/", SPLIT_NAMES[entry.name.lower()])
        for entry in inner
        if (entry / images).is_dir() and (entry / others).is_dir()
    ]


def read_pairs(
    folder: Path, images: str, others: str, suffix: str, ignored: Counter[str]
) -> tuple[list[ImageFiles], int]:
    """Every image with the files named like it, and how many files belong to no image.

    Args:
        folder: the source.
        images: name of the folder of the images.
        others: name of the folder of the files beside them.
        suffix: what the name of a file has after that of its image, e.g. "_mask".
        ignored: counts of files that are passed over; added to.
    """
    matched_images: list[ImageFiles] = []
    unused = 0
    for before, split in find_pairs(folder, images, others):
        walked = list(walk(folder, before + images, ignored))
        files = [name for name, problem in walk(folder, before + others, ignored) if not problem]
        stems = {name: _stem(name, before + images) for name, problem in walked if not problem}
        matched = match_names(stems, {name: _stem(name, before + others) for name in files}, suffix)
        unused += len(files) - sum(map(len, matched.values()))
        for name, problem in walked:
            own_split = split or SPLIT_NAMES.get(stems.get(name, name).split("/")[0].lower())
            matched_images.append(ImageFiles(name, problem, own_split, matched.get(name, []), before + others))
    return matched_images, unused


def _stem(name: str, folder: str) -> str:
    """A path below `folder`, without its suffix."""
    return str(PurePosixPath(name).relative_to(folder).with_suffix(""))


def match_names(images: dict[str, str], files: dict[str, str], suffix: str) -> dict[str, list[tuple[str, str]]]:
    """Image -> (part, file) each, by the stems of both.

    `a/b` belongs to the image `a/b`. Where no file has the name of an image, there is one file a part:
    `b_<part>`, or `<part>/b`.
    """
    image_of = {stem: name for name, stem in images.items()}
    whole: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for file, stem in files.items():
        if stem.endswith(suffix) and (image := image_of.get(stem.removesuffix(suffix))) is not None:
            whole[image].append(("", file))
    if whole:
        return dict(whole)
    parts: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for file, stem in files.items():
        part, name = _part_of(stem.removesuffix(suffix), image_of)
        if name is not None:
            parts[name].append((part, file))
    return {name: sorted(of_image) for name, of_image in parts.items()}


def _part_of(stem: str, image_of: dict[str, str]) -> tuple[str, str | None]:
    """The part that a file's name says, and its image: <part>/<image>, or the longest <image>_<part>."""
    first, _, rest = stem.partition("/")
    if rest in image_of:
        return first, image_of[rest]
    for end in sorted((match.start() for match in re.finditer("_", stem)), reverse=True):
        if stem[:end] in image_of and stem[end + 1 :]:
            return stem[end + 1 :], image_of[stem[:end]]
    return "", None
