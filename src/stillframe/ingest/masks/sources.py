"""Images with masks as they lie in a folder: images/ beside masks/, or COCO files. A table is read by tables.py.

Names match: masks/a/b.png is the mask of images/a/b.jpg. Where no mask has the name of an image, there is one file a
class: masks/b_<class>.png, or masks/<class>/b.png.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from stillframe.config import DataConfig, MasksConfig
from stillframe.ingest.sources import SPLIT_NAMES, Listing, MaskFiles, SourceRow, to_id, walk

KINDS = ("masks", "coco")
USUAL = ("images", "masks")  # folders that say by their names what they hold
MISSING = "mask missing"


def side_by_side(folder: Path) -> bool:
    """Whether images/ and masks/ lie in a folder, or in its train/, val/ and test/."""
    return bool(_pairs(folder, *USUAL))


def warn_of_masks(folder: Path) -> None:
    """Raise ValueError for images/ beside masks/ in a folder that is to be read by labels."""
    if side_by_side(folder):
        raise ValueError(
            f"{folder} holds {USUAL[0]}/ and {USUAL[1]}/: for segmentation choose data=masks, model=unet and "
            "task=segmentation; if they are two classes, set data.format to folders"
        )


def detect(folder: Path, data: DataConfig) -> str:
    """The layout of a folder with masks: "table", "coco" or "masks".

    Raises:
        ValueError: none of them is there.
    """
    masks = data.masks
    assert masks is not None
    if data.table is not None:
        return "table"
    if masks.coco:
        return "coco"
    if _pairs(folder, masks.images, masks.folder):
        return "masks"
    raise ValueError(
        f"{folder} has no folders {masks.images}/ and {masks.folder}/ (data.masks.images and data.masks.folder), "
        "no table is named (data.table with data.masks.column), and no COCO file (data.masks.coco)"
    )


def read(folder: Path, data: DataConfig, kind: str) -> Listing:
    """Rows with masks, sorted by id.

    Raises:
        ValueError: a folder or a COCO file is not there, or cannot be read.
    """
    masks = data.masks
    if masks is None:
        raise ValueError(f"data.format = {kind!r} needs a section data.masks: see conf/data/masks.yaml")
    return _read_coco(folder, masks) if kind == "coco" else _read_folders(folder, masks)


def _pairs(folder: Path, images: str, masks: str) -> list[tuple[str, str | None]]:
    """Where both folders lie: (path before them, split), "" for the source itself."""
    if (folder / images).is_dir() and (folder / masks).is_dir():
        return [("", None)]
    inner = sorted(entry for entry in folder.iterdir() if entry.is_dir() and entry.name.lower() in SPLIT_NAMES)
    return [
        (f"{entry.name}/", SPLIT_NAMES[entry.name.lower()])
        for entry in inner
        if (entry / images).is_dir() and (entry / masks).is_dir()
    ]


def _read_folders(folder: Path, masks: MasksConfig) -> Listing:
    pairs = _pairs(folder, masks.images, masks.folder)
    if not pairs:
        raise ValueError(f"{folder} has no {masks.images}/ beside {masks.folder}/ (data.masks.images, .folder)")
    ignored: Counter[str] = Counter()
    rows: list[SourceRow] = []
    unused = 0
    for before, split in pairs:
        found = list(walk(folder, before + masks.images, ignored))
        files = [name for name, problem in walk(folder, before + masks.folder, ignored) if not problem]
        names = {name: _inside(name, before + masks.images) for name, problem in found if not problem}
        of = _matched(names, {name: _inside(name, before + masks.folder) for name in files}, masks.suffix)
        unused += len(files) - sum(map(len, of.values()))
        for name, problem in found:
            mine = MaskFiles(tuple((label, to_id(file)) for label, file in of.get(name, ())))
            part = split or SPLIT_NAMES.get(names.get(name, name).split("/")[0].lower())
            lacking = "" if mine.files else f"{MISSING}: nothing in {before}{masks.folder} is named like it"
            rows.append(SourceRow(to_id(name), "", part, problem=problem or lacking, mask=mine))
    if unused:
        ignored["mask without an image"] += unused
    rows.sort(key=lambda row: row.id)
    return Listing("masks", rows, dict(sorted(ignored.items())), [])


def _inside(name: str, folder: str) -> str:
    """A path below `folder`, without its suffix."""
    return str(PurePosixPath(name).relative_to(folder).with_suffix(""))


def _matched(images: dict[str, str], files: dict[str, str], suffix: str) -> dict[str, list[tuple[str, str]]]:
    """Image -> (class, mask file) each; class "" where the file is the whole mask."""
    image_of = {stem: name for name, stem in images.items()}
    whole: dict[str, list[tuple[str, str]]] = {}
    for file, stem in files.items():
        if suffix and not stem.endswith(suffix):
            continue
        if (image := image_of.get(stem.removesuffix(suffix))) is not None:
            whole.setdefault(image, []).append(("", file))
    if whole:
        return whole
    parts: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for file, stem in files.items():
        label, image = _class_of(stem.removesuffix(suffix), image_of)
        if image is not None:
            parts[image].append((label, file))
    return {image: sorted(found) for image, found in parts.items()}


def _class_of(stem: str, image_of: dict[str, str]) -> tuple[str, str | None]:
    """The class that a mask file's name says, and its image: <class>/<image>, or the longest <image>_<class>."""
    first, _, rest = stem.partition("/")
    if rest in image_of:
        return first, image_of[rest]
    for cut in sorted((match.start() for match in re.finditer("_", stem)), reverse=True):
        if stem[:cut] in image_of and stem[cut + 1 :]:
            return stem[cut + 1 :], image_of[stem[:cut]]
    return "", None


def _read_coco(folder: Path, masks: MasksConfig) -> Listing:
    rows: dict[str, SourceRow] = {}
    for name in masks.coco:
        path = folder / name
        if not path.is_file():
            raise ValueError(f"data.masks.coco: {path} is not there")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            listed = list(_coco_rows(folder, path, content, masks))
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is not a COCO file: {type(error).__name__}: {error}") from None
        for row in listed:
            if row.id in rows:
                raise ValueError(f"{path}: the image {row.id} is also in another file of data.masks.coco")
            rows[row.id] = row
    return Listing("coco", [rows[name] for name in sorted(rows)], {}, [])


def _coco_rows(folder: Path, path: Path, content: dict[str, Any], masks: MasksConfig) -> Iterable[SourceRow]:
    names = {int(category["id"]): str(category["name"]) for category in content["categories"]}
    shapes: dict[int, list[tuple[str, Any]]] = defaultdict(list)
    for one in sorted(content["annotations"], key=lambda one: -float(one.get("area") or 0.0)):  # small ones on top
        shapes[int(one["image_id"])].append((names[int(one["category_id"])], one["segmentation"]))
    words = [*re.split(r"[^a-z]+", path.stem.lower()), path.parent.name.lower()]
    split = next((SPLIT_NAMES[re.sub(r"\d+$", "", word)] for word in words if word in SPLIT_NAMES), None)
    for image in content["images"]:
        file = str(image["file_name"])
        places = [folder / masks.images / file, path.parent / file, folder / file]
        found = next((place for place in places if place.is_file()), places[0])
        inside = found.is_relative_to(folder) and ".." not in PurePosixPath(file).parts
        row_id = to_id(str(found.relative_to(folder))) if inside else to_id(file)
        size = [int(image["height"]), int(image["width"])]
        text = json.dumps([*size, shapes[int(image["id"])]])
        problem = "" if inside else "path outside the source folder"
        yield SourceRow(row_id, "", split, problem=problem, mask=MaskFiles((), text))
