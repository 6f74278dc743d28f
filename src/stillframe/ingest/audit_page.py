"""The audit as one self-contained HTML page with pictures, readable by someone who was not there."""

from __future__ import annotations

import base64
import html
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stillframe.drawing.class_map import overlay_class_map, palette
from stillframe.drawing.encode import encode_image
from stillframe.drawing.frame_strip import frame_strip
from stillframe.ingest import prepare
from stillframe.ingest.audit import Audit
from stillframe.ingest.chunks import Chunk, IngestConfig
from stillframe.ingest.decode import Pixels
from stillframe.ingest.image_hash import THUMB
from stillframe.ingest.validate import DatasetReport, kind
from stillframe.ingest.video import clip_rows
from stillframe.paths import write_text
from stillframe.store.columns import NO_VALUE as IGNORE
from stillframe.store.encoding import decode_map
from stillframe.types import SPLITS, DatasetCard

HERE = Path(__file__).parent
SAMPLES, CLASSES, PAIRS, REJECTED, REFUSED = 9, 30, 24, 48, 20  # pictures or lines, at most
SIDE, FRAMES = 128, 4  # px, of a picture on the page; frames of a clip


def write_page(
    path: Path, findings: Audit, verdict: DatasetReport, card: DatasetCard, parts: list[Chunk], rule: IngestConfig
) -> None:
    """Write audit.html; the pictures come from the spool, so it must still be there."""
    from jinja2 import Environment, FileSystemLoader
    from markupsafe import Markup

    frame, pairs = verdict.frame, verdict.near.head(PAIRS)
    samples = {name: _sample(verdict.kept, name) for name in verdict.classes[:CLASSES]}
    wanted = [place for places in samples.values() for place in places]
    show = _masked_pictures if rule.masks else _pictures if rule.clip is None else _clip_pictures
    pictures = show(parts, frame, [*wanted, *pairs["first"], *pairs["second"]], rule, card)
    rejected = verdict.quarantined[verdict.quarantined["pixels"] != ""].head(REJECTED)
    thumbs = prepare.load(parts, rejected.index, "thumb")
    environment = Environment(loader=FileSystemLoader(HERE), autoescape=True)
    text = environment.get_template("audit.html").render(
        audit=findings,
        card=card,
        css=Markup((HERE / "audit.css").read_text(encoding="utf-8")),
        things="images" if rule.clip is None else "clips",
        classes=_classes(findings, samples, pictures),
        largest=max(sum(findings.counts[split][name] for split in SPLITS) for name in verdict.classes),
        all_pixels=sum(sum(found.values()) for found in findings.pixels.values()),
        near_off=findings.near["rule"] == "off",
        pairs=_pairs(pairs, frame, pictures),
        rejected=[_thumb(thumbs[place], frame, place) for place in rejected.index],
        refused=verdict.quarantined[verdict.quarantined["pixels"] == ""].head(REFUSED).to_dict("records"),
        widths=Markup(histogram(frame.loc[frame["width"] > 0, "width"].to_numpy())),
        heights=Markup(histogram(frame.loc[frame["height"] > 0, "height"].to_numpy())),
    )
    write_text(path, text.encode("utf-8", "replace").decode("utf-8"))


def _sample(kept: pd.DataFrame, name: str) -> list[int]:
    """Positions of some images of a class, evenly over its ids."""
    places = kept.index[kept["holds"].map(lambda held: name in held)].to_numpy()
    picked = np.linspace(0, len(places) - 1, min(SAMPLES, len(places))).round().astype(int)
    return [int(place) for place in places[picked]]


def _classes(
    findings: Audit, samples: dict[str, list[int]], pictures: dict[int, dict[str, Any]]
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    classes = len(findings.counts["train"])
    shades = ["#" + bytes(one).hex() for one in palette()] if findings.pixels else [""] * classes
    for name in findings.counts["train"]:
        counts = {split: findings.counts[split][name] for split in SPLITS}
        shown = [pictures[place] for place in samples.get(name, [])]
        pixels = sum(found.get(name, 0) for found in findings.pixels.values())
        rows.append(
            {
                "name": name,
                **counts,
                "all": sum(counts.values()),
                "samples": shown,
                "pixels": pixels,
                "colour": shades[len(rows)],
            }
        )
    return rows


def _pairs(pairs: pd.DataFrame, frame: pd.DataFrame, pictures: dict[int, dict[str, Any]]) -> list[dict[str, Any]]:
    out = []
    for row in pairs.to_dict("records"):
        both = [int(row["first"]), int(row["second"])]
        splits = " / ".join(dict.fromkeys(frame.loc[both, "split"].astype(str)))
        out.append(
            {
                "pictures": [pictures[place] for place in both],
                "likeness": row["likeness"],
                "bits": row["bits"],
                "splits": splits,
            }
        )
    return out


def _decoded(content: bytes, rule: IngestConfig, card: DatasetCard) -> Pixels:
    """A prepared image of the spool, uint8 (H, W, C)."""
    values = np.frombuffer(content, dtype=np.uint8)
    if rule.encoding != "jpeg":
        return values.reshape(card.height, card.width, -1)
    decoded = cv2.imdecode(values, cv2.IMREAD_COLOR_RGB)
    assert decoded is not None, "an image of the spool does not decode"
    return np.asarray(decoded, dtype=np.uint8)


def _pictures(
    parts: list[Chunk], frame: pd.DataFrame, wanted: list[int], rule: IngestConfig, card: DatasetCard
) -> dict[int, dict[str, Any]]:
    """Prepared images of the spool as data URIs, by position."""
    out = {}
    for place, content in prepare.load(parts, wanted, "image").items():
        out[place] = {"src": data_uri(_decoded(content, rule, card)), "id": frame.at[place, "id"]}
    return out


def _clip_pictures(
    parts: list[Chunk], frame: pd.DataFrame, wanted: list[int], rule: IngestConfig, card: DatasetCard
) -> dict[int, dict[str, Any]]:
    """The same of clips: frames side by side."""
    out = {}
    for place, content in prepare.load(parts, wanted, "image").items():
        image = frame_strip(clip_rows.some_frames(content, rule.encoding, card.height, FRAMES))
        out[place] = {"src": data_uri(image, FRAMES * SIDE), "id": frame.at[place, "id"]}
    return out


def _masked_pictures(
    parts: list[Chunk], frame: pd.DataFrame, wanted: list[int], rule: IngestConfig, card: DatasetCard
) -> dict[int, dict[str, Any]]:
    """The same with the masks over them; of a picture in tiles the first tile."""
    out = {}
    for place, cuts in prepare.load(parts, wanted, "cuts").items():
        cut, table = cuts[0], np.full(256, IGNORE, dtype=np.uint8)
        lut: Any = frame.at[place, "lut"]
        table[: len(lut)] = lut
        mask_HW = table[decode_map(cut["mask"], rule.encoding, card.height, card.width)]
        image = overlay_class_map(_decoded(cut["image"], rule, card), mask_HW)
        out[place] = {"src": data_uri(image), "id": frame.at[place, "id"]}
    return out


def _thumb(content: bytes, frame: pd.DataFrame, place: int) -> dict[str, Any]:
    image = np.frombuffer(content, dtype=np.uint8).reshape(THUMB, THUMB, 1)
    return {"src": data_uri(image), "id": frame.at[place, "id"], "reason": kind(str(frame.at[place, "reason"]))}


def data_uri(image: Pixels, most: int = SIDE) -> str:
    """A picture (uint8 H, W, C) for an <img>: JPEG, PNG when it is tiny, at most `most` px."""
    side = max(image.shape[:2])
    if side > most:
        scale = most / side
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8).reshape(
            size[1], size[0], -1
        )
    suffix, kind_ = (".png", "png") if side <= 32 else (".jpg", "jpeg")
    return f"data:image/{kind_};base64,{base64.b64encode(encode_image(image, suffix)).decode()}"


def histogram(values: NDArray[np.int64], bins: int = 24) -> str:
    """A small SVG histogram of sizes in px."""
    if not len(values):
        return '<p class="soft">nothing was decoded</p>'
    low, high = int(values.min()), int(values.max())
    if low == high:
        return f'<p class="soft">all {len(values):,} images: {low:,} px</p>'
    counts, edges = np.histogram(values, bins=min(bins, high - low + 1), range=(low, high + 1))
    width, height = 320, 90
    step = width / len(counts)
    bars = "".join(
        f'<rect x="{slot * step:.1f}" y="{height - count / counts.max() * height:.1f}" width="{max(step - 1, 1):.1f}" '
        f'height="{count / counts.max() * height:.1f}" fill="var(--blue)"><title>'
        f"{html.escape(f'{edges[slot]:.0f} to {edges[slot + 1]:.0f} px: {count:,}')}</title></rect>"
        for slot, count in enumerate(counts)
    )
    ends = f'<text x="0" y="{height + 14}">{low:,}</text>'
    ends += f'<text x="{width}" y="{height + 14}" text-anchor="end">{high:,}</text>'
    return f'<svg viewBox="0 0 {width} {height + 18}" role="img" style="width:100%;max-width:360px">{bars}{ends}</svg>'
