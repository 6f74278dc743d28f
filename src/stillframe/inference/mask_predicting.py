"""`stillframe predict` with a model that answers masks: an indexed PNG an image, and a table about them."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from stillframe.drawing.class_map import encode_class_map, overlay_class_map, palette
from stillframe.inference.inputs import ImageInputs, plain
from stillframe.inference.masks import BatchPredictor, mask_of
from stillframe.inference.stream import read_all
from stillframe.inference.writers import format_of, table
from stillframe.ingest.decode import DecodedImage
from stillframe.ingest.listing import to_id
from stillframe.paths import replacing, write_text
from stillframe.progress import bar
from stillframe.store.columns import NO_VALUE as IGNORE

LEGEND = "classes.csv"  # beside the masks: value, class, colour


@dataclass(frozen=True)
class OutputFolders:
    """Where pictures go.

    Attributes:
        masks: beside the table.
        overlays: None: none are drawn.
    """

    masks: Path
    overlays: Path | None

    @classmethod
    def of(cls, out: str, overlays: Path | None) -> OutputFolders:
        """ValueError: the table goes to stdout, and there is no place beside it."""
        _, path = format_of(out)
        if path is None:
            raise ValueError(f"--out {out}: masks are written beside the table: give it a file, --out FILE.csv")
        return cls(path.with_name(f"{path.stem}_masks"), overlays)


def columns(classes: list[str]) -> list[str]:
    """The columns of the table."""
    return ["path", "mask", "overlay", "confidence", "reason", *(f"share/{name}" for name in classes)]


def answer_masks(
    model: BatchPredictor,
    paths: list[str],
    out: str,
    folders: OutputFolders,
    asked: ImageInputs,
    *,
    threads: int,
    quiet: bool,
    note: Callable[[str, str], None],
    ignored: Counter[str],
) -> None:
    """Answer images one after the other; memory does not grow with their number.

    Args:
        model: what answers.
        paths: files, folders, patterns.
        out: the table's file.
        folders: of the pictures.
        asked: where images come from.
        threads: that read ahead.
        quiet: no progress bar.
        note: called with each path and the reason why it has no mask ("": it has one).
        ignored: counts what is passed over.
    """
    classes = model.facts.classes
    write_legend(folders.masks, classes)
    total = asked.total(paths, quick=quiet)
    shown = nullcontext(lambda count: None) if quiet else bar(f"predicting, {asked.step}", total)
    with table(out, columns(classes)) as write, shown as advance:
        for number, (name, picture) in enumerate(read_all(asked.names(paths, ignored), asked.read, threads=threads)):
            reason = picture if isinstance(picture, str) else ""
            note(name.path, reason)
            known = {"path": to_id(name.path), "reason": reason}
            write(
                known
                | (
                    _nothing(classes)
                    if isinstance(picture, str)
                    else _drawn(model, picture, name.path, number, folders)
                )
            )
            advance(1)


def _nothing(classes: list[str]) -> dict[str, Any]:
    return {"mask": "", "overlay": "", "confidence": None, **{f"share/{name}": None for name in classes}}


def _drawn(
    model: BatchPredictor, picture: DecodedImage, path: str, number: int, folders: OutputFolders
) -> dict[str, Any]:
    """Write the pictures of an image; its row."""
    classes, mask = model.facts.classes, mask_of(model, picture.image)
    file = folders.masks / f"{number:06d}_{plain(Path(path).stem)}.png"
    _write(file, encode_class_map(mask.answer_HW, classes))
    overlay = ""
    if folders.overlays is not None:
        drawn = folders.overlays / f"{number:06d}_{plain(Path(path).stem)}.jpg"
        found, content = cv2.imencode(".jpg", overlay_class_map(picture.image, mask.answer_HW)[..., ::-1])
        assert found, "an image of uint8 can be encoded"
        _write(drawn, content.tobytes())
        overlay = to_id(str(drawn))
    shares = {f"share/{name}": round(float(mask.share_K[at]), 6) for at, name in enumerate(classes)}
    known = {"mask": f"{folders.masks.name}/{file.name}", "overlay": overlay}
    return {**known, "confidence": round(mask.confidence, 6), **shares}


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_legend(folder: Path, classes: list[str]) -> None:
    """Which value of a mask is which class, with its colour; 255 is no answer."""
    folder.mkdir(parents=True, exist_ok=True)
    text, shades = io.StringIO(), palette()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["value", "class", "colour"])
    named = [*enumerate(classes), (IGNORE, "")]
    lines.writerows([value, name, "#" + bytes(shades[value]).hex()] for value, name in named)
    write_text(folder / LEGEND, text.getvalue())
