"""A sheet of real train samples: each original beside its offline copies and some of its online draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stillframe.augmentation import policy, random_draws
from stillframe.augmentation.offline import class_indices
from stillframe.config import AugmentConfig
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

Tiles = list[NDArray[np.uint8] | None]
Draw = Callable[[NDArray[np.uint8], Mapping[str, NDArray[np.uint8]]], NDArray[np.uint8]]  # image, its maps by name


@dataclass(frozen=True)
class PreviewRow:
    """Neighbouring columns under one title; `tiles[row]` holds one image a column, None for a blank."""

    title: str
    columns: list[str]
    tiles: list[Tiles]


def pick(class_N: NDArray[np.int64], classes: int, *, rows: int, seed: int) -> NDArray[np.int64]:
    """Rows of a split, as many of each class as can be, in order of class; the seed decides which."""
    rank = random_draws.uniform(random_draws.keys(seed, random_draws.OFFLINE - 2, np.arange(len(class_N))), 0, 1)[:, 0]
    order = np.argsort(rank)
    queues = [order[class_N[order] == index].tolist() for index in range(classes)]
    chosen: list[int] = []
    while len(chosen) < rows and any(queues):
        chosen += [queue.pop(0) for queue in queues if queue][: rows - len(chosen)]
    return np.array(sorted(chosen, key=lambda row: (class_N[row], chosen.index(row))), dtype=np.int64)


def make_preview(
    path: Path,
    *,
    train: Path,
    augmented: Path,
    augment: AugmentConfig,
    classes: list[str],
    name: str,
    seed: int,
    draw: Draw,
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
        classes: names, by class index; [] where a sample is not of one class.
        name: of the data set.
        seed: of the run.
        draw: an image with its maps over it.
        sampler: of clips, which frames training is shown.
    """
    split, copies = Split(train), Split(augmented)
    class_N, n_classes = class_indices(split), max(1, len(classes))
    rows = pick(class_N, n_classes, rows=min(max(n_classes, ROWS), MOST_ROWS), seed=seed)
    ids = split.table["id"].iloc[rows].tolist()
    groups = [PreviewRow("", ["original"], [[image] for image in _stored(split, rows, draw)])]
    groups += _copies(copies, ids, draw)
    groups += _draws(augment, split, rows, seed, draw, sampler)
    titles = [(classes[class_N[row]] if classes else "", identity) for row, identity in zip(rows, ids, strict=True)]
    _draw_sheet(path, f"{name}: augmentation “{augment.name}”", titles, groups)


def _maps(split: Split, rows: NDArray[np.int64]) -> dict[str, NDArray[np.uint8]]:
    """The targets of rows that are maps, by name."""
    return {column.name: split.target(column.name, rows) for column in split.targets.values() if column.is_map}


def _drawn(images: NDArray[np.uint8], maps: dict[str, NDArray[np.uint8]], draw: Draw) -> list[NDArray[np.uint8]]:
    """Images with their maps over them; of clips four frames."""
    if not maps:
        return [four(image) for image in images]
    return [draw(image, {name: map_BHW[i] for name, map_BHW in maps.items()}) for i, image in enumerate(images)]


def _stored(split: Split, rows: NDArray[np.int64], draw: Draw) -> list[NDArray[np.uint8]]:
    return _drawn(split.images(rows), _maps(split, rows), draw)


def _copies(copies: Split, ids: list[str], draw: Draw) -> list[PreviewRow]:
    """The first offline copies of each sample."""
    if not len(copies):
        return []
    rows_of = copies.table.groupby("source_id").indices
    rows = [rows_of.get(identity, np.empty(0, dtype=np.int64))[:COPIES] for identity in ids]
    columns = max((len(of_sample) for of_sample in rows), default=0)
    if not columns:
        return []
    images = [_stored(copies, np.asarray(of_sample, dtype=np.int64), draw) for of_sample in rows]
    tiles: list[Tiles] = [[*of_sample, *[None] * (columns - len(of_sample))] for of_sample in images]
    return [PreviewRow("offline copies", [f"copy {number}" for number in range(columns)], tiles)]


def four(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image as it is; of a clip (T, H, W, C) four frames in a square, row by row."""
    if image.ndim == 3:
        return image
    frames = image[(np.arange(4) * 2 + 1) * len(image) // 8]
    return np.vstack([np.hstack([*frames[:2]]), np.hstack([*frames[2:]])])


def _draws(
    augment: AugmentConfig,
    split: Split,
    rows: NDArray[np.int64],
    seed: int,
    draw: Draw,
    sampler: FrameSampler | None,
) -> list[PreviewRow]:
    """Some online draws of each sample."""
    if not augment.online and augment.temporal is None:
        return []
    online, originals, maps = (
        policy.ItemPolicy(augment.online, "augment.online"),
        split.images(rows),
        _maps(split, rows),
    )
    epochs: list[Tiles] = []
    for epoch in range(DRAWS):
        key_B = random_draws.keys(seed, epoch, rows)
        if split.frames > 1:
            clips = originals if sampler is None else split.images(rows, sampler(epoch, rows))
            epochs.append([*_drawn(online(clips, key_B), {}, draw)])
        else:
            epochs.append([*_drawn(*online.with_maps(originals, maps, key_B), draw)])
    tiles: list[Tiles] = [list(images) for images in zip(*epochs, strict=True)]
    return [PreviewRow("online, drawn anew each epoch", [f"epoch {epoch}" for epoch in range(DRAWS)], tiles)]


def _draw_sheet(path: Path, title: str, titles: list[tuple[str, str]], groups: list[PreviewRow]) -> None:
    from PIL import Image, ImageDraw

    first = groups[0].tiles[0][0] if titles else None
    size = max(first.shape[:2]) if first is not None else TILE
    tile = min(TILE, size * max(1, TILE // size))  # small images are enlarged by a whole factor
    columns = sum(len(group.columns) for group in groups)
    width = LEFT + columns * (tile + GAP) + (len(groups) - 1) * 2 * GAP + 2 * GAP
    sheet = Image.new("RGB", (max(width, 560), TOP + len(titles) * (tile + GAP) + 2 * GAP), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((2 * GAP, 12), title, INK, font(18))
    for row, (name, identity) in enumerate(titles):
        middle = TOP + row * (tile + GAP) + tile // 2
        pen.text((2 * GAP, middle - 20), _fit(pen, name, font(14)), INK, font(14))
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


def _paste(sheet: Image.Image, pixels: NDArray[np.uint8] | None, left: int, top: int, tile: int) -> None:
    """One tile of `tile` px; enlarged pixels stay what they are."""
    from PIL import Image

    if pixels is None:
        sheet.paste(EMPTY, (left, top, left + tile, top + tile))
        return
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).convert("RGB")
    if max(image.size) > tile:
        image.thumbnail((tile, tile), Image.Resampling.LANCZOS)
    else:
        factor = tile // max(image.size)
        image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    sheet.paste(image, (left, top))


def _fit(pen: ImageDraw, text: str, font: FreeTypeFont, *, tail: bool = False) -> str:
    """The text, cut to the width of the column of names; `tail` keeps its end (of a path)."""
    text = " ".join(text.split())
    cut = text
    while cut and pen.textlength(cut if cut == text else cut + "…", font) > LEFT - 4 * GAP:
        cut = cut[1:] if tail else cut[:-1]
    return cut if cut == text else (f"…{cut}" if tail else f"{cut}…")
