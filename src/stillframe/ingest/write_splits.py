"""The last step of preprocessing: prepared samples from the spool into three splits, and card.json."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stillframe.config import DataConfig
from stillframe.ingest import spool
from stillframe.ingest.decode import to_channels
from stillframe.ingest.ingest_config import IngestConfig
from stillframe.ingest.split_assignment import split_hash
from stillframe.ingest.spool import Chunk
from stillframe.ingest.target import Counts, Target
from stillframe.ingest.validate import DatasetReport
from stillframe.ingest.video import clip_rows
from stillframe.progress import bar
from stillframe.store import frame_sampling
from stillframe.store.split import SplitWriter
from stillframe.types import SPLITS, DatasetCard

BATCH = 512  # rows a record batch, at most
BATCH_BYTES = 1 << 25


@dataclass
class Totals:
    """Sums over the prepared samples, for card.json.

    Attributes:
        sums: over the train split, per channel, of pixel values and of their squares: (2, C).
        seconds: lengths of the train videos, s.
        counts: split -> sums of the target's counts.
    """

    sums: NDArray[np.float64]
    seconds: list[float] = field(default_factory=list)
    counts: Counts = field(default_factory=dict)


def write(out: Path, data: DataConfig, target: Target, report: DatasetReport, parts: list[Chunk]) -> DatasetCard:
    """Write the three splits (rows sorted by id) and card.json into `out`."""
    # auto: gray when every usable image is gray by its mode
    channels = {"gray": 1, "rgb": 3}.get(data.channels) or int(report.usable["channels"].max())
    config = IngestConfig.of(data, target)
    size, totals = data.image_size, Totals(np.zeros((2, channels)))
    with ExitStack() as stack, bar("writing splits", len(report.usable)) as advance:
        writers = {
            name: stack.enter_context(
                SplitWriter(
                    out / name,
                    height=size,
                    width=size,
                    channels=channels,
                    encoding=config.encoding,
                    targets=target.stored(config, report.classes),
                    tiles=config.overlap is not None,
                    frames=_frames(data, name),
                )
            )
            for name in SPLITS
        }
        # rows are written in record batches of bounded size
        limit = max(1, min(BATCH, BATCH_BYTES // (size**2 * channels * _frames(data, "train"))))
        waiting: dict[str, list[dict[str, Any]]] = {name: [] for name in SPLITS}
        for split, row in _prepared(report, target, parts, channels, config, totals, advance):
            waiting[split].append(row)
            if len(waiting[split]) == limit:
                writers[split].write(waiting[split])
                waiting[split] = []
        for split, rest in waiting.items():
            writers[split].write(rest)
    card = _card(data, report, channels, totals, writers["train"].rows)
    card = replace(card, **target.card(report.usable, report.classes, totals.counts, data))
    card.write(out / "card.json")
    return card


def _frames(data: DataConfig, split: str) -> int:
    """Frames of a row of a split; 1 of images."""
    if data.clip is None:
        return 1
    return (data.clip.stored or data.clip.frames) if split == "train" else data.clip.frames


def _prepared(
    report: DatasetReport,
    target: Target,
    parts: list[Chunk],
    channels: int,
    config: IngestConfig,
    totals: Totals,
    advance: Callable[[int], None],
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Split and row of every prepared sample, in order of id; adds up `totals` on the way."""
    samples = report.frame.itertuples(index=False)
    columns = ["id", "channels", "sums", "squares"]
    columns += ["image", "start", "end"] if config.clip is not None else ["parts"]
    for part in parts:
        for record, sample in zip(spool.read_records(part, columns), samples, strict=False):
            if sample.reason:
                continue
            split = str(sample.split)
            base = {"id": sample.id, "source_id": sample.id, "weight": sample.weight, "group": sample.group}
            base |= {"source_width": sample.width, "source_height": sample.height, "source_mode": sample.mode}
            base |= {"slices": sample.slices}
            if split == "train":
                totals.sums += [record["sums"], record["squares"]]  # one value for all channels of a gray file
                totals.seconds += [record["end"] - record["start"]] if config.clip is not None else []
            # a video gives one row a view, an image one row, or one a tile
            if config.clip is not None:
                values = target.store(sample, {}, report.classes, config).values
                rows = clip_rows.rows_of({**base, **values}, record, split, config.clip, channels, config)
            else:
                rows = _image_rows(base, record, sample, target, report.classes, channels, config, totals)
            yield from ((split, row) for row in rows)
            advance(1)


def _image_rows(
    base: dict[str, Any],
    record: dict[str, Any],
    sample: Any,
    target: Target,
    classes: list[str],
    channels: int,
    config: IngestConfig,
    totals: Totals,
) -> list[dict[str, Any]]:
    """The rows of one image."""
    rows = []
    for part in record["parts"]:
        stored = target.store(sample, part, classes, config)
        if stored.counts is not None:
            totals.counts[sample.split] = totals.counts.get(sample.split, 0) + stored.counts
        image = part["image"]
        if config.encoding == "raw" and record["channels"] != channels:
            shape = (config.image_size, config.image_size, record["channels"])
            image = to_channels(np.frombuffer(image, dtype=np.uint8).reshape(shape), channels).tobytes()
        row = {**base, **stored.values, "image": image}
        if config.overlap is not None:
            name = f"{base['id']}@{part['top']},{part['left']}"
            row |= {"id": name, "source_id": name, "origin": base["id"], "top": part["top"], "left": part["left"]}
        rows.append(row)
    return rows


def _card(data: DataConfig, report: DatasetReport, channels: int, totals: Totals, train_rows: int) -> DatasetCard:
    usable = report.usable
    table = usable.explode("classes").groupby(["split", "classes"]).size()
    pixels = float(train_rows) * _frames(data, "train") * data.image_size**2
    mean = totals.sums[0] / pixels / 255.0
    deviation = np.sqrt(np.maximum(totals.sums[1] / pixels / 255.0**2 - mean**2, 0.0))
    return DatasetCard(
        name=data.name,
        classes=report.classes,
        counts={split: {name: int(table.get((split, name), 0)) for name in report.classes} for split in SPLITS},
        channels=channels,
        height=data.image_size,
        width=data.image_size,
        mean=[round(float(value), 6) for value in mean],
        std=[round(float(value), 6) for value in deviation],
        slices=data.columns.slices,
        split_hash=split_hash(zip(usable["id"], usable["split"], strict=True)),
        frames=_frames(data, "test"),
        clip=frame_sampling.facts(data.clip) if data.clip is not None else None,
        seconds=round(float(np.median(totals.seconds)), 3) if totals.seconds else None,
    )
