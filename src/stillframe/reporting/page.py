"""The report: figures as PNG, and one self-contained HTML page for someone who was not there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from stillframe.paths import fresh_folder, write_text
from stillframe.reporting import figures, model_card, text
from stillframe.reporting.inputs import ReportInputs, data_uri, picture, read_inputs
from stillframe.reporting.templates import environment, thousands

HERE = Path(__file__).parent
MOST_CONFUSIONS = 10
MOST_REFUSED = 30
WIDE_TABLE = 25  # classes up to which the table of counts and scores is open


def build_report(
    prepared: Path,
    augmented: Path,
    trained: Path,
    validated: Path,
    evaluated: Path,
    reported: Path,
    *,
    exported: Path | None = None,
    params: Path | None = None,
    hashes: Mapping[str, str] | None = None,
) -> Path:
    """Write report.html, the model card and the figures (*.png) into `reported`, from scratch.

    Args:
        prepared: data/prepared.
        augmented: data/augmented.
        trained: artifacts/train.
        validated: artifacts/validate.
        evaluated: artifacts/evaluate.
        reported: artifacts/report.
        exported: artifacts/export; None: no section about it.
        params: params.yaml, shown at the end and asked whether the data has groups.
        hashes: DVC's md5 of stage inputs and outputs, by "<stage>/deps|outs/<path>".

    Returns:
        The path of report.html.

    Raises:
        FileNotFoundError: card.json or the test metrics are missing.
        ValueError: a file of a stage is damaged.
    """
    found = read_inputs(prepared, augmented, trained, validated, evaluated, exported=exported)
    out = fresh_folder(reported)
    drawn = draw(found, out)
    text = params.read_text(encoding="utf-8") if params is not None and params.exists() else ""
    shown = context(found, drawn, evaluated, augmented, text, hashes or {})
    write_text(out / "report.html", render(shown))
    model_card.write(shown, out)
    return out / "report.html"


def draw(found: ReportInputs, out: Path) -> dict[str, str]:
    """Write the figures for which there is data; name -> data URI."""
    classes, drawn = found.card.classes, {}
    if len(found.history):
        best = found.summary.get("best_epoch")
        drawn["learning_curves"] = figures.learning_curves(found.history, best)
    if len(found.confusion):
        drawn["confusion"] = figures.confusion_matrix(counts(found), classes, found.kind.confusion)
    if len(found.roc) and len(found.pr):
        order = classes
        if len(found.per_class):
            order = list(found.per_class.sort_values("f1", kind="stable")["class"])
        drawn["roc_pr"] = figures.roc_and_pr(found.roc, found.pr, order)
    if len(found.reliability):
        drawn["reliability"] = figures.reliability(found.reliability, found.kind.unit)
    if len(found.per_class):
        drawn["per_class"] = figures.per_class_bars(found.per_class, found.kind.bars)
    if any(found.card.counts.get(split) for split in found.card.counts):
        drawn["class_balance"] = figures.class_balance(found.card.counts, classes, found.things)
    paths = {name: figures.save(figure, out / f"{name}.png") for name, figure in drawn.items()}
    return {name: data_uri(path.read_bytes(), "png") for name, path in paths.items()}


def counts(found: ReportInputs) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The confusion matrix (K, K) of confusion.csv, one row a sample, or of pixel_confusion.csv; rows actual."""
    place = {name: at for at, name in enumerate(found.card.classes)}
    unknown = (set(found.confusion["actual"]) | set(found.confusion["predicted"])) - set(place)
    if unknown:
        raise ValueError(
            f"confusion.csv has the class {min(unknown)!r}, which card.json does not: `dvc repro evaluate`"
        )
    matrix = np.zeros((len(place), len(place)), dtype=np.int64)
    rows, columns = (found.confusion[side].map(place).to_numpy(dtype=np.int64) for side in ("actual", "predicted"))
    np.add.at(matrix, (rows, columns), found.confusion.get("pixels", 1))
    return matrix


def render(shown: Mapping[str, Any]) -> str:
    """The page as HTML."""
    return environment(percent=text.percent, thousands=thousands).get_template("template.html").render(**shown)


def context(
    found: ReportInputs,
    drawn: dict[str, str],
    evaluated: Path,
    augmented: Path,
    params: str,
    hashes: Mapping[str, str],
) -> dict[str, Any]:
    """What the page and the model card show."""
    from markupsafe import Markup

    mood, verdict = text.judgement(found)
    loaded = yaml.safe_load(params) if params else {}
    wide = 960 if found.masked or found.card.frames > 1 else 360  # px: several pictures side by side
    values: dict[str, Any] = loaded if isinstance(loaded, dict) else {}
    return dict(
        css=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        found=found,
        card=found.card,
        drawn=drawn,
        title=text.title(found),
        headline=text.headline(found),
        mood=mood,
        verdict=verdict,
        caveats=text.caveats(found, values),
        weak=model_card.weak_points(found),
        recipe=model_card.recipe(found, values),
        source=model_card.source(values),
        audit=text.audit_facts(found),
        refused=_refused(found.quarantine),
        splits=_split_rows(found),
        augmentation=text.augmentation(found),
        policy=_as_yaml({key: found.policy[key] for key in ("offline", "online") if found.policy.get(key)}),
        preview=picture(augmented / "preview.png", most_px=1400),
        training=text.training(found),
        training_facts=text.training_facts(found),
        tiles=_tiles(found),
        scores=_score_rows(found),
        classes=_class_rows(found),
        wide=WIDE_TABLE,
        confusions=_confusions(found) if len(found.confusion) else [],
        slices=_slice_rows(found),
        gallery=_pictures(found.gallery, evaluated, evaluated / "gallery", most_px=wide),
        legend=_legend(found),
        explained=_pictures(found.explain, evaluated / "explain", most_px=wide if found.card.frames > 1 else 360),
        shipped=text.shipped(found),
        variants=text.variant_rows(found),
        params=params,
        hashes=dict(hashes or found.origin.get("dvc", {})),
    )


def _as_yaml(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True) if value else ""


def _tiles(found: ReportInputs) -> list[dict[str, str]]:
    """The figures at the top of the page."""
    tiles = []
    for name in found.kind.tiles:
        if name in found.metrics:
            title, _, as_percent = text.METRICS[name]
            bounds = found.intervals.get(name)
            note = f"95 %: {text.interval(bounds, as_percent)}" if bounds else ""
            tiles.append({"title": title, "value": text.shown(found.metrics[name], as_percent), "note": note})
    if found.kind.lead in found.baseline:
        note = f"always “{found.baseline['class']}”"
        value = text.percent(found.baseline[found.kind.lead])
        tiles.append({"title": "Trivial answer", "value": value, "note": note})
    return tiles


def _score_rows(found: ReportInputs) -> list[dict[str, str]]:
    """All scores that are not of one class: test with interval, validation, the trivial answer."""
    rows = []
    for name, (title, meaning, as_percent) in text.METRICS.items():
        if name in found.metrics:
            rows.append(
                {
                    "title": title,
                    "meaning": found.kind.meanings.get(name, text.spoken(meaning, found)),
                    "test": text.shown(found.metrics[name], as_percent),
                    "interval": text.interval(found.intervals.get(name), as_percent),
                    "val": text.shown(found.val_metrics.get(name), as_percent),
                    "trivial": text.shown(found.baseline.get(name), as_percent),
                }
            )
    return rows


def _class_rows(found: ReportInputs) -> list[dict[str, Any]]:
    rows = []
    for row in found.per_class.to_dict("records"):
        cells: dict[str, Any] = {"class": str(row["class"])}
        cells |= {"support": f"{row['support']:,}", "predicted": f"{row['predicted']:,}", "scores": []}
        for kind, _ in found.kind.bars:
            bounds = (row[f"{kind}_low"], row[f"{kind}_high"])
            cells["scores"].append((text.shown(row[kind], True), text.interval(bounds, True)))
        rows.append(cells)
    return rows


def _split_rows(found: ReportInputs) -> list[dict[str, Any]]:
    """One row a class: its images in each split; the last row the sums.

    An image with a mask shows several classes: there a row with the share of the pixels follows, and no sums.
    """
    splits, pixels = list(found.card.counts), found.card.pixels
    rows = [
        {"class": name, "counts": [found.card.counts[split].get(name, 0) for split in splits]}
        for name in found.card.classes
    ]
    if not found.masked:
        return [*rows, {"class": "all", "counts": [sum(found.card.counts[split].values()) for split in splits]}]
    if not pixels:
        return rows
    total = {split: max(1, sum(pixels.get(split, {}).values())) for split in splits}
    shares = [
        [text.percent(pixels.get(split, {}).get(name, 0) / total[split]) for split in splits]
        for name in found.card.classes
    ]
    return [
        *rows,
        *(
            {"class": f"{name}, of the pixels", "counts": share}
            for name, share in zip(found.card.classes, shares, strict=True)
        ),
    ]


def _confusions(found: ReportInputs) -> list[dict[str, Any]]:
    """The most frequent mistakes."""
    matrix, names = counts(found), found.card.classes
    total = matrix.sum(1)
    np.fill_diagonal(matrix, 0)
    order = np.argsort(-matrix, axis=None, kind="stable")[:MOST_CONFUSIONS]
    pairs = [(int(at) // len(names), int(at) % len(names)) for at in order]
    return [
        {"actual": names[row], "predicted": names[column], "count": int(matrix[row, column]), "of": int(total[row])}
        for row, column in pairs
        if matrix[row, column]
    ]


def _slice_rows(found: ReportInputs) -> list[dict[str, Any]]:
    rows, lead = [], found.kind.lead
    for row in found.slices.to_dict("records"):
        low, high = (row[end] if row[end] == row[end] else row[lead] for end in ("low", "high"))
        rows.append(
            {
                "slice": row["slice"],
                "value": row["value"],
                "n": f"{row['n']:,}",
                "lead": text.percent(row[lead]),
                "interval": text.interval((row["low"], row["high"]), True),
                "f1_macro": text.percent(row["f1_macro"]),
                "at": (round(100 * low, 2), round(100 * (high - low), 2), round(100 * row[lead], 2)),
            }
        )
    return rows


def _pictures(table: pd.DataFrame, *folders: Path, most_px: int = 360) -> list[dict[str, Any]]:
    """The rows of a table of pictures, with those pictures that are there."""
    rows: list[dict[str, Any]] = []
    for row in table.to_dict("records"):
        inside = [found for folder in folders if (found := picture(folder / str(row["file"]), most_px)) is not None]
        suspected = str(row.get("suspected_label_error", False)) == "True"
        known = {str(name): value for name, value in row.items()}
        known["timeline"] = _timeline(
            str(row.get("timeline", "")), answered_right=row.get("actual") == row.get("predicted")
        )
        rows.append({**known, "picture": inside[0] if inside else None, "suspected": suspected})
    return rows


def _timeline(text: str, *, answered_right: bool) -> list[tuple[str, str]]:
    """Of a clip the lines over its views, as points of an SVG of 100 x 24 and a CSS class; [] of a single view."""
    if not text:
        return []
    lines = {name: share for name, share in json.loads(text).items() if name == "answer" or not answered_right}
    return [
        (" ".join(f"{100 * at / (len(share) - 1):.1f},{23 - 22 * value:.1f}" for at, value in enumerate(share)), name)
        for name, share in lines.items()
    ]


def _legend(found: ReportInputs) -> list[dict[str, str]]:
    """The colour of each class in the overlays, as CSS."""
    if not found.masked:
        return []
    from stillframe.drawing.class_map import palette

    named = zip(found.card.classes, palette(), strict=False)
    return [{"class": name, "colour": "#" + bytes(colour).hex()} for name, colour in named]


def _refused(table: pd.DataFrame) -> list[dict[str, str]]:
    return [
        {"path": str(row["path"]), "reason": str(row["reason"])} for row in table.head(MOST_REFUSED).to_dict("records")
    ]
