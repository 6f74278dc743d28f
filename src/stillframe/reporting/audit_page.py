"""The audit of a data set as one self-contained HTML page with images, readable by someone who was not there."""

from __future__ import annotations

import base64
import html
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stillframe.drawing.class_map import palette
from stillframe.drawing.encode import encode_image
from stillframe.drawing.frame_strip import frame_strip
from stillframe.ingest import spool
from stillframe.ingest.audit import Audit
from stillframe.ingest.decode import Pixels
from stillframe.ingest.image_hash import THUMB
from stillframe.ingest.prepare import Prepared
from stillframe.ingest.validate import kind
from stillframe.ingest.video import clip_rows
from stillframe.paths import write_text
from stillframe.store.encoding import decode_map
from stillframe.types import SPLITS

HERE = Path(__file__).parent
SAMPLES, CLASSES, PAIRS, REJECTED, REFUSED = 9, 30, 24, 48, 20  # images or lines, at most
SIDE, FRAMES = 128, 4  # px, of an image on the page; frames of a clip

PageImages = dict[int, dict[str, Any]]  # index in the frame -> src and id of an <img>


def write_page(path: Path, prepared: Prepared) -> None:
    """Write audit.html; the images come from the spool, so it must still be there."""
    from jinja2 import Environment, FileSystemLoader
    from markupsafe import Markup

    report, findings, target = prepared.report, prepared.findings, prepared.target
    frame, pairs = report.frame, report.near.head(PAIRS)
    # some samples of each class; of targets without classes, some of all
    samples = {name: _sample(report.usable, name) for name in report.classes[:CLASSES]} or {
        "all": _sample(report.usable, None)
    }
    indices = [index for rows in samples.values() for index in rows]
    images = _images(prepared, [*indices, *pairs["first"], *pairs["second"]])
    rejected = report.quarantined[report.quarantined["pixels"] != ""].head(REJECTED)
    thumbs = spool.load(prepared.parts, rejected.index, "thumb")
    classes = _classes(findings, samples, images)
    environment = Environment(loader=FileSystemLoader(HERE), autoescape=True)
    text = environment.get_template("audit.html").render(
        audit=findings,
        card=prepared.card,
        css=Markup((HERE / "audit.css").read_text(encoding="utf-8")),
        things="images" if prepared.config.clip is None else "clips",
        classes=classes,
        largest=max(row["all"] for row in classes),
        all_pixels=sum(sum(by_class.values()) for by_class in findings.pixels.values()),
        near_off=findings.near["rule"] == "off",
        pairs=_pairs(pairs, frame, images),
        rejected=[_thumb(thumbs[index], frame, index) for index in rejected.index],
        refused=report.quarantined[report.quarantined["pixels"] == ""].head(REFUSED).to_dict("records"),
        numbers={
            name: Markup(histogram(column.to_numpy(dtype=float)))
            for name, column in (target.numbers(report.usable).items() if target.numbers is not None else ())
        },
        widths=Markup(histogram(frame.loc[frame["width"] > 0, "width"].to_numpy())),
        heights=Markup(histogram(frame.loc[frame["height"] > 0, "height"].to_numpy())),
    )
    write_text(path, text.encode("utf-8", "replace").decode("utf-8"))


def _sample(usable: pd.DataFrame, name: str | None) -> list[int]:
    """Indices of some images of a class (None: of all), evenly over their ids."""
    if name is not None:
        usable = usable[usable["classes"].map(lambda classes: name in classes)]
    indices = usable.index.to_numpy()
    chosen = np.linspace(0, len(indices) - 1, min(SAMPLES, len(indices))).round().astype(int)
    return [int(index) for index in indices[chosen]]


def _classes(findings: Audit, samples: dict[str, list[int]], images: PageImages) -> list[dict[str, Any]]:
    """The rows of the table of classes; one row "all" where there are no classes."""
    names = list(findings.counts["train"])
    by_split = findings.counts if names else {split: {"all": count} for split, count in findings.sizes_of.items()}
    colours = ["#" + bytes(colour).hex() for colour in palette()]
    rows: list[dict[str, Any]] = []
    for i, name in enumerate(names or ["all"]):
        counts = {split: by_split[split][name] for split in SPLITS}
        rows.append(
            {
                "name": name,
                **counts,
                "all": sum(counts.values()),
                "samples": [images[index] for index in samples.get(name, [])],
                "pixels": sum(by_class.get(name, 0) for by_class in findings.pixels.values()),
                "colour": colours[i % len(colours)] if findings.pixels else "",
            }
        )
    return rows


def _pairs(pairs: pd.DataFrame, frame: pd.DataFrame, images: PageImages) -> list[dict[str, Any]]:
    rows = []
    for pair in pairs.to_dict("records"):
        both = [int(pair["first"]), int(pair["second"])]
        splits = " / ".join(dict.fromkeys(frame.loc[both, "split"].astype(str)))
        numbers = {"likeness": pair["likeness"], "bits": pair["bits"], "splits": splits}
        rows.append({"pictures": [images[index] for index in both], **numbers})
    return rows


def _images(prepared: Prepared, indices: list[int]) -> PageImages:
    """Prepared images of the spool with their targets; of a video frames side by side, of an image in tiles one."""
    config, card, target, frame = prepared.config, prepared.card, prepared.target, prepared.report.frame
    images: PageImages = {}
    if config.clip is not None:
        for index, content in spool.load(prepared.parts, indices, "image").items():
            image = frame_strip(clip_rows.some_frames(content, config.encoding, card.height, FRAMES))
            images[index] = {"src": _src(image, FRAMES * SIDE), "id": frame.at[index, "id"]}
        return images
    names = [column.name for column in target.stored(config, card.classes) if column.is_map]
    for index, parts in spool.load(prepared.parts, indices, "parts").items():
        values = np.frombuffer(parts[0]["image"], dtype=np.uint8)
        if config.encoding == "jpeg":
            image = np.asarray(cv2.imdecode(values, cv2.IMREAD_COLOR_RGB), dtype=np.uint8)
        else:
            image = values.reshape(card.height, card.width, -1)
        if names:
            stored = target.store(frame.loc[index], parts[0], card.classes, config).values
            maps = {name: decode_map(stored[name], config.encoding, card.height, card.width) for name in names}
            image = target.draw(image, maps)
        images[index] = {"src": _src(image), "id": frame.at[index, "id"]}
    return images


def _thumb(content: bytes, frame: pd.DataFrame, index: int) -> dict[str, Any]:
    image = np.frombuffer(content, dtype=np.uint8).reshape(THUMB, THUMB, 1)
    return {"src": _src(image), "id": frame.at[index, "id"], "reason": kind(str(frame.at[index, "reason"]))}


def _src(image: Pixels, longest: int = SIDE) -> str:
    """An image (uint8 H, W, C) for an <img>: JPEG, PNG when it is tiny, at most `longest` px."""
    side = max(image.shape[:2])
    if side > longest:
        scale = longest / side
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8).reshape(
            size[1], size[0], -1
        )
    ending, media = (".png", "png") if side <= 32 else (".jpg", "jpeg")
    return f"data:image/{media};base64,{base64.b64encode(encode_image(image, ending)).decode()}"


def histogram(values: NDArray[Any], bins: int = 24) -> str:
    """A small SVG histogram of sizes in px (integers) or of other numbers."""
    if not len(values):
        return '<p class="soft">nothing was decoded</p>'
    sizes = bool(np.issubdtype(values.dtype, np.integer))
    low, high, unit, digits = values.min(), values.max(), " px" if sizes else "", ",.0f" if sizes else ",.4g"
    if low == high:
        return f'<p class="soft">all {len(values):,} images: {low:{digits}}{unit}</p>'
    # each size is a whole number of px: no bin is narrower than one
    bins, end = (min(bins, int(high - low) + 1), high + 1) if sizes else (bins, high)
    counts, edges = np.histogram(values, bins=bins, range=(low, end))
    width, height, edge = 320, 90, ".0f" if sizes else digits
    step = width / len(counts)
    bars = "".join(
        f'<rect x="{i * step:.1f}" y="{height - count / counts.max() * height:.1f}" width="{max(step - 1, 1):.1f}" '
        f'height="{count / counts.max() * height:.1f}" fill="var(--blue)"><title>'
        f"{html.escape(f'{edges[i]:{edge}} to {edges[i + 1]:{edge}}{unit}: {count:,}')}</title></rect>"
        for i, count in enumerate(counts)
    )
    ends = f'<text x="0" y="{height + 14}">{low:{digits}}</text>'
    ends += f'<text x="{width}" y="{height + 14}" text-anchor="end">{high:{digits}}</text>'
    return f'<svg viewBox="0 0 {width} {height + 18}" role="img" style="width:100%;max-width:360px">{bars}{ends}</svg>'
