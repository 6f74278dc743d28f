"""A sheet of real train samples: each original beside its offline copies and some of its online draws."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stillframe.augmentation import policy, random_draws
from stillframe.config import AugmentConfig
from stillframe.drawing.class_map import overlay_class_map
from stillframe.drawing.text import font
from stillframe.paths import replacing
from stillframe.store.frame_sampling import FrameSampler
from stillframe.store.split import Split

if TYPE_CHECKING:
    from PIL import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont

ROWS, MOST_ROWS, COPIES, DRAWS = 8, 12, 3, 5  # a row for each class up to MOST_ROWS; copies and draws at most
TILE, GAP, LEFT, TOP = 128, 8, 168, 92  # px
PAPER, INK, FAINT, RULE, EMPTY = "#ffffff", "#1b1f24", "#6a737d", "#d0d7de", "#f3f5f7"

Pictures = list[NDArray[np.uint8] | None]


@dataclass(frozen=True)
class PreviewRow:
    """Neighbouring columns under one title; `tiles[row]` holds one picture a column, None for a blank."""

    title: str
    columns: list[str]
    tiles: list[Pictures]


def pick(label_N: NDArray[np.int64], classes: int, *, rows: int, seed: int) -> NDArray[np.int64]:
    """Rows of a split, as many of each class as can be, in order of class; the seed decides which."""
    rank = random_draws.uniform(random_draws.keys(seed, random_draws.OFFLINE - 2, np.arange(len(label_N))), 0, 1)[:, 0]
    order = np.argsort(rank)
    queues = [order[label_N[order] == label].tolist() for label in range(classes)]
    chosen: list[int] = []
    while len(chosen) < rows and any(queues):
        chosen += [queue.pop(0) for queue in queues if queue][: rows - len(chosen)]
    return np.array(sorted(chosen, key=lambda row: (label_N[row], chosen.index(row))), dtype=np.int64)


def make_preview(
    path: Path,
    *,
    train: Path,
    augmented: Path,
    augment: AugmentConfig,
    classes: list[str],
    name: str,
    seed: int,
    sampler: FrameSampler | None = None,
) -> None:
    """Write the sheet as PNG; of a clip four frames in a square, row by row.

    The online draws are those of albumentations at epochs 0, 1, ...: what a training that augments per item sees;
    one that augments on the batch draws other values from the same ranges.

    Args:
        path: of the PNG.
        train: folder of the train split.
        augmented: folder of its offline copies.
        augment: section `augment`, checked.
        classes: names, by class index.
        name: of the data set.
        seed: of the run.
        sampler: of clips, which frames training is shown.
    """
    split, copies = Split(train), Split(augmented)
    rows = pick(split.table["label"].to_numpy(), len(classes), rows=min(max(len(classes), ROWS), MOST_ROWS), seed=seed)
    table = split.table.iloc[rows]
    groups = [PreviewRow("", ["original"], [[image] for image in _shown(split, rows)])]
    groups += _copies(copies, table["id"].tolist())
    groups += _draws(augment, split, rows, seed, sampler)
    labels = [(classes[label], identity) for label, identity in zip(table["label"], table["id"], strict=True)]
    _draw_sheet(path, f"{name}: augmentation “{augment.name}”", labels, groups)


def _shown(split: Split, rows: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
    """Images of a split, with their masks over them if they have any."""
    images = split.images(rows)
    names = [column.name for column in split.targets.values() if column.is_map]
    if not names:
        return [four(image) for image in images]
    return [
        overlay_class_map(image, map_HW) for image, map_HW in zip(images, split.target(names[0], rows), strict=True)
    ]


def _copies(copies: Split, ids: list[str]) -> list[PreviewRow]:
    """The first offline copies of each sample."""
    if not len(copies):
        return []
    of_source = copies.table.groupby("source_id").indices
    found = [of_source.get(identity, np.empty(0, dtype=np.int64))[:COPIES] for identity in ids]
    shown = max((len(rows) for rows in found), default=0)
    if not shown:
        return []
    made = [_shown(copies, np.asarray(rows, dtype=np.int64)) for rows in found]
    tiles: list[Pictures] = [[*images, *[None] * (shown - len(images))] for images in made]
    return [PreviewRow("offline copies", [f"copy {number}" for number in range(shown)], tiles)]


def four(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image as it is; of a clip (T, H, W, C) four frames in a square, row by row."""
    if image.ndim == 3:
        return image
    frames = image[(np.arange(4) * 2 + 1) * len(image) // 8]
    return np.vstack([np.hstack([*frames[:2]]), np.hstack([*frames[2:]])])


def _draws(
    augment: AugmentConfig, split: Split, rows: NDArray[np.int64], seed: int, sampler: FrameSampler | None
) -> list[PreviewRow]:
    """Some online draws of each sample."""
    if not augment.online and augment.temporal is None:
        return []
    online, originals = policy.ItemPolicy(augment.online, "augment.online"), split.images(rows)
    maps = {column.name: split.target(column.name, rows) for column in split.targets.values() if column.is_map}
    epochs: list[Pictures] = []
    for epoch in range(DRAWS):
        key_B = random_draws.keys(seed, epoch, rows)
        if maps:
            images, moved = online.with_maps(originals, maps, key_B)
            first_BHW = next(iter(moved.values()))
            epochs.append([overlay_class_map(image, map_HW) for image, map_HW in zip(images, first_BHW, strict=True)])
        else:
            shown = originals if sampler is None else split.images(rows, sampler(epoch, rows))
            epochs.append([four(image) for image in online(shown, key_B)])
    tiles: list[Pictures] = [list(images) for images in zip(*epochs, strict=True)]
    return [PreviewRow("online, drawn anew each epoch", [f"epoch {epoch}" for epoch in range(DRAWS)], tiles)]


def _draw_sheet(path: Path, title: str, labels: list[tuple[str, str]], groups: list[PreviewRow]) -> None:
    from PIL import Image, ImageDraw

    shown = groups[0].tiles[0][0] if labels else None
    size = max(shown.shape[:2]) if shown is not None else TILE
    tile = min(TILE, size * max(1, TILE // size))  # small images are enlarged by a whole factor
    columns = sum(len(group.columns) for group in groups)
    width = LEFT + columns * (tile + GAP) + (len(groups) - 1) * 2 * GAP + 2 * GAP
    sheet = Image.new("RGB", (max(width, 560), TOP + len(labels) * (tile + GAP) + 2 * GAP), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((2 * GAP, 12), title, INK, font(18))
    for row, (label, identity) in enumerate(labels):
        middle = TOP + row * (tile + GAP) + tile // 2
        pen.text((2 * GAP, middle - 20), _fit(pen, label, font(14)), INK, font(14))
        pen.text((2 * GAP, middle + 2), _fit(pen, identity, font(10), tail=True), FAINT, font(10))
    x = LEFT
    for group in groups:
        span = len(group.columns) * (tile + GAP) - GAP
        if group.title:
            pen.text((x, 44), group.title, INK, font(13))
            pen.line((x, 64, x + span, 64), RULE)
        for column, name in enumerate(group.columns):
            left = x + column * (tile + GAP)
            pen.text((left, 70), name, FAINT, font(11))
            for row, tiles in enumerate(group.tiles):
                _paste(sheet, tiles[column], left, TOP + row * (tile + GAP), tile)
        x += span + 3 * GAP
    with replacing(path) as temporary:
        sheet.save(temporary, format="PNG")


def _paste(sheet: Image.Image, picture: NDArray[np.uint8] | None, left: int, top: int, tile: int) -> None:
    """One tile of `tile` px; enlarged pixels stay what they are."""
    from PIL import Image

    if picture is None:
        sheet.paste(EMPTY, (left, top, left + tile, top + tile))
        return
    image = Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture).convert("RGB")
    if max(image.size) > tile:
        image.thumbnail((tile, tile), Image.Resampling.LANCZOS)
    else:
        factor = tile // max(image.size)
        image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    sheet.paste(image, (left, top))


def _fit(pen: ImageDraw, text: str, font: FreeTypeFont, *, tail: bool = False) -> str:
    """The text, cut to the width of the label column; `tail` keeps its end (of a path)."""
    text = " ".join(text.split())
    cut = text
    while cut and pen.textlength(cut if cut == text else cut + "…", font) > LEFT - 4 * GAP:
        cut = cut[1:] if tail else cut[:-1]
    return cut if cut == text else (f"…{cut}" if tail else f"{cut}…")
