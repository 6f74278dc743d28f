"""COCO files: images and their annotations (polygons, run lengths, boxes) in JSON.

Source: T.-Y. Lin et al., Microsoft COCO: Common Objects in Context, 2014; https://cocodataset.org/#format-data.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from stillframe.ingest.listing import SPLIT_NAMES, Listing, SourceRow, to_id

Annotation = tuple[str, dict[str, Any]]  # category's name, and the annotation as the file has it
MakeTarget = Callable[[int, int, list[Annotation]], Any]  # height, width (px) and annotations -> value of the target


def read_coco(folder: Path, files: list[str], images: str, make_target: MakeTarget, *, key: str) -> Listing:
    """The listing of some COCO files.

    Args:
        folder: the source.
        files: relative to it.
        images: the folder in which images are looked for first.
        make_target: makes the value of an image's target; its annotations come with the largest area first.
        key: the parameter that names the files, for messages.

    Raises:
        ValueError: a file is not there or not a COCO file, or an image is in two of them.
    """
    rows: dict[str, SourceRow] = {}
    for name in files:
        path = folder / name
        if not path.is_file():
            raise ValueError(f"{key}: {path} is not there")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            listed = list(_rows(folder, path, content, images, make_target))
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is not a COCO file: {type(error).__name__}: {error}") from None
        for row in listed:
            if row.id in rows:
                raise ValueError(f"{path}: the image {row.id} is also in another file of {key}")
            rows[row.id] = row
    return Listing("coco", [rows[name] for name in sorted(rows)], {}, [])


def _rows(
    folder: Path, path: Path, content: dict[str, Any], images: str, make_target: MakeTarget
) -> Iterator[SourceRow]:
    names = {int(category["id"]): str(category["name"]) for category in content["categories"]}
    annotations: dict[int, list[Annotation]] = defaultdict(list)
    for annotation in sorted(content["annotations"], key=lambda annotation: -float(annotation.get("area") or 0.0)):
        annotations[int(annotation["image_id"])].append((names[int(annotation["category_id"])], annotation))
    # the split is in the name of the file (instances_train2017.json) or of its folder
    parts = [*re.split(r"[^a-z]+", path.stem.lower()), path.parent.name.lower()]
    split = next((SPLIT_NAMES[part] for part in parts if part in SPLIT_NAMES), None)
    for image in content["images"]:
        file = str(image["file_name"])
        candidates = [folder / images / file, path.parent / file, folder / file]
        image_path = next((candidate for candidate in candidates if candidate.is_file()), candidates[0])
        inside = image_path.is_relative_to(folder) and ".." not in PurePosixPath(file).parts
        row_id = to_id(str(image_path.relative_to(folder))) if inside else to_id(file)
        value = make_target(int(image["height"]), int(image["width"]), annotations[int(image["id"])])
        problem = "" if inside else "path outside the source folder"
        yield SourceRow(row_id, value, split, problem=problem)
