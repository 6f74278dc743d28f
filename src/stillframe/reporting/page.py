"""The report: figures as PNG, and one self-contained HTML page for someone who was not there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from stillframe.evaluation.requirements import bound_of
from stillframe.paths import fresh_folder, write_text
from stillframe.reporting import figures, model_card, text
from stillframe.reporting.inputs import ReportInputs, data_uri, page_image, read_inputs
from stillframe.reporting.templates import environment, thousands
from stillframe.tasks.base import Metric

HERE = Path(__file__).parent
MOST_CONFUSIONS = 10
MOST_REFUSED = 30
WIDE_TABLE = 25  # classes up to which the table of counts and scores is open
IMAGE_PX, WIDE_IMAGE_PX = 360, 960  # longer side of a gallery's image, and of several panels side by side


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
        params: params.yaml, shown at the end; says whether the data has groups.
        hashes: DVC's md5 of stage inputs and outputs, by "<stage>/deps|outs/<path>".

    Returns:
        The path of report.html.

    Raises:
        FileNotFoundError: card.json, the task's name or the test metrics are missing.
        ValueError: a file of a stage is damaged.
    """
    listing = params.read_text(encoding="utf-8") if params is not None and params.exists() else ""
    loaded = yaml.safe_load(listing) if listing else {}
    values: dict[str, Any] = loaded if isinstance(loaded, dict) else {}
    stages = (prepared, augmented, trained, validated, evaluated)
    inputs = read_inputs(*stages, exported=exported, task=values.get("task"))
    out = fresh_folder(reported)
    drawn = draw(inputs, out)
    content = context(inputs, drawn, evaluated, augmented, values)
    content |= {"params": listing, "hashes": dict(hashes or inputs.origin.get("dvc", {}))}
    page = environment(percent=text.percent, thousands=thousands).get_template("template.html").render(**content)
    write_text(out / "report.html", page)
    model_card.write(content, out)
    return out / "report.html"


def draw(inputs: ReportInputs, out: Path) -> dict[str, str]:
    """Write the figures for which there is data; name -> data URI."""
    card, task, drawn = inputs.card, inputs.task, {}
    if len(inputs.history):
        drawn["learning_curves"] = figures.learning_curves(
            inputs.history, inputs.summary.get("best_epoch"), task.epoch_metrics
        )
    if len(inputs.confusion):
        heading = text.fill(task.report.confusion_title, inputs)
        drawn["confusion"] = figures.confusion_matrix(confusion_counts(inputs), card.classes, heading)
    per_class = inputs.per_class
    if len(inputs.roc) and len(inputs.pr):
        # the classes with the worst scores get the strong lines
        worst = per_class.sort_values(task.report.weakest, kind="stable") if len(per_class) else None
        drawn["roc_pr"] = figures.roc_and_pr(
            inputs.roc, inputs.pr, card.classes if worst is None else list(worst["class"])
        )
    if len(inputs.reliability):
        drawn["reliability"] = figures.reliability(inputs.reliability, inputs.unit)
    if len(per_class):
        bars, weakest = _bars(inputs), task.class_metrics()[task.report.weakest]
        drawn["per_class"] = figures.per_class_bars(per_class, bars, weakest)
    if any(card.counts.get(split) for split in card.counts):
        drawn["class_balance"] = figures.class_balance(card.counts, card.classes, inputs.samples)
    drawn |= {f"plot: {name}": figures.curves(name, table) for name, table in inputs.plots.items() if len(table)}
    paths = {name: figures.save(figure, out / f"{name.removeprefix('plot: ')}.png") for name, figure in drawn.items()}
    return {name: data_uri(path.read_bytes(), "png") for name, path in paths.items()}


def confusion_counts(inputs: ReportInputs) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The confusion matrix (K, K), rows actual, from a table with one row a sample or with a column of counts."""
    index = {name: i for i, name in enumerate(inputs.card.classes)}
    unknown = (set(inputs.confusion["actual"]) | set(inputs.confusion["predicted"])) - set(index)
    if unknown:
        raise ValueError(
            f"{inputs.task.report.confusion} has the class {min(unknown)!r}, which card.json does not: "
            "`dvc repro evaluate`"
        )
    matrix = np.zeros((len(index), len(index)), dtype=np.int64)
    rows, columns = (inputs.confusion[side].map(index).to_numpy(dtype=np.int64) for side in ("actual", "predicted"))
    np.add.at(matrix, (rows, columns), inputs.confusion.get(inputs.unit, 1))
    return matrix


def context(
    inputs: ReportInputs, drawn: dict[str, str], evaluated: Path, augmented: Path, params: dict[str, Any]
) -> dict[str, Any]:
    """What the page and the model card show, apart from the parameters and DVC's hashes."""
    from markupsafe import Markup

    report, clips = inputs.task.report, inputs.card.frames > 1
    mood, verdict = text.verdict(inputs)
    gallery_px = WIDE_IMAGE_PX if report.wide or clips else IMAGE_PX
    return dict(
        css=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        inputs=inputs,
        card=inputs.card,
        report=report,
        drawn=drawn,
        title=text.title(inputs),
        headline=text.headline(inputs),
        mood=mood,
        verdict=verdict,
        caveats=text.caveats(inputs, params),
        bound=bound_of,
        predictions=text.fill(
            report.answers,
            inputs,
            count=len(inputs.card.classes),
            classes=", ".join(inputs.card.classes),
            card=inputs.card,
        ),
        weak=model_card.weak_points(inputs),
        recipe=model_card.recipe(inputs, params),
        source=model_card.source(params),
        audit=text.audit_facts(inputs),
        refused=inputs.quarantine.head(MOST_REFUSED)[["path", "reason"]].to_dict("records")
        if len(inputs.quarantine)
        else [],
        splits=_split_rows(inputs),
        augmentation=text.augmentation(inputs),
        policy=_as_yaml({key: inputs.policy[key] for key in ("offline", "online") if inputs.policy.get(key)}),
        preview=page_image(augmented / "preview.png", most_px=1400),
        training=text.training(inputs),
        training_facts=text.training_facts(inputs),
        tiles=_tiles(inputs),
        scores=_score_rows(inputs),
        calibration=_calibration_rows(inputs),
        bars=_bars(inputs),
        classes=_class_rows(inputs),
        wide=WIDE_TABLE,
        confusions=_confusions(inputs) if len(inputs.confusion) else [],
        slices=_slice_rows(inputs),
        slices_note=text.fill(report.slices, inputs),
        gallery=_images(inputs, inputs.gallery, evaluated, evaluated / "gallery", most_px=gallery_px),
        gallery_title=text.fill(report.gallery_title, inputs),
        gallery_note=text.fill(report.gallery, inputs, count=len(inputs.gallery)),
        all_correct=inputs.metrics.get(report.correct) == 1,
        legend=_legend(inputs),
        explained=_images(inputs, inputs.explain, evaluated / "explain", most_px=WIDE_IMAGE_PX if clips else IMAGE_PX),
        exported=text.exported(inputs),
        export_metrics=text.export_metrics(inputs),
        variants=text.variant_rows(inputs),
    )


def _as_yaml(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True) if value else ""


def _bars(inputs: ReportInputs) -> list[Metric]:
    """The metrics of each class that are shown."""
    return [inputs.task.class_metrics()[name] for name in inputs.task.report.bars]


def _tiles(inputs: ReportInputs) -> list[dict[str, str]]:
    """The scores at the top of the page, and the lead score of the trivial prediction."""
    tiles = []
    for name in inputs.task.highlights:
        if name in inputs.metrics:
            metric, bounds = inputs.task.metric(name), inputs.intervals.get(name)
            note = f"95 %: {text.interval(bounds, metric.percent)}" if bounds else ""
            value = text.score(inputs.metrics[name], metric.percent)
            tiles.append({"title": metric.title, "value": value, "note": note})
    if inputs.lead.name in inputs.baseline:
        note = f"always “{inputs.baseline['class']}”" if "class" in inputs.baseline else ""
        value = text.score(inputs.baseline[inputs.lead.name], inputs.lead.percent)
        tiles.append({"title": "Trivial answer", "value": value, "note": note})
    return tiles


def _score_rows(inputs: ReportInputs) -> list[dict[str, str]]:
    """All scores that are not of one class: test with interval, validation, the trivial prediction."""
    return [
        {
            "title": metric.title,
            "meaning": text.about_samples(metric.meaning, inputs),
            "test": text.score(inputs.metrics[name], metric.percent),
            "interval": text.interval(inputs.intervals.get(name), metric.percent),
            "val": text.score(inputs.val_metrics.get(name), metric.percent),
            "trivial": text.score(inputs.baseline.get(name), metric.percent),
        }
        for name, metric in inputs.task.named_metrics().items()
        if name in inputs.metrics
    ]


def _calibration_rows(inputs: ReportInputs) -> list[tuple[str, str]]:
    """The calibration error on the test split, after and before, for the model card."""
    names = inputs.task.report.calibration or ()
    titles = ("calibration error (ECE) on the test split", "the same before calibration")
    pairs = zip(names, titles, strict=False)
    return [(title, f"{inputs.metrics[name]:.3f}") for name, title in pairs if name in inputs.metrics]


def _class_rows(inputs: ReportInputs) -> list[dict[str, Any]]:
    """One row a class: how often it occurs and is predicted, and its scores as (score, interval)."""
    return [
        {
            "class": str(row["class"]),
            "support": f"{row['support']:,}",
            "predicted": f"{row['predicted']:,}",
            "scores": [
                (
                    text.score(row[metric.name], metric.percent),
                    text.interval((row[f"{metric.name}_low"], row[f"{metric.name}_high"]), metric.percent),
                )
                for metric in _bars(inputs)
            ],
        }
        for row in inputs.per_class.to_dict("records")
    ]


def _split_rows(inputs: ReportInputs) -> list[dict[str, Any]]:
    """One row a class: its samples in each split; then the sums, or each class's share of the pixels.

    Where a sample may show several classes, counts by class have no sum.
    """
    card = inputs.card
    splits, pixels = list(card.counts), card.pixels
    rows = [{"class": name, "counts": [card.counts[split].get(name, 0) for split in splits]} for name in card.classes]
    if not inputs.task.report.several_classes:
        return [*rows, {"class": "all", "counts": [sum(card.counts[split].values()) for split in splits]}]
    for name in card.classes if pixels else []:
        parts = [pixels.get(split, {}) for split in splits]
        shares = [text.percent(part.get(name, 0) / max(1, sum(part.values()))) for part in parts]
        rows.append({"class": f"{name}, of the pixels", "counts": shares})
    return rows


def _confusions(inputs: ReportInputs) -> list[dict[str, Any]]:
    """The most frequent mistakes."""
    matrix, names = confusion_counts(inputs), inputs.card.classes
    total = matrix.sum(1)
    np.fill_diagonal(matrix, 0)
    order = np.argsort(-matrix, axis=None, kind="stable")[:MOST_CONFUSIONS]
    pairs = [divmod(int(cell), len(names)) for cell in order]
    return [
        {"actual": names[row], "predicted": names[column], "count": int(matrix[row, column]), "of": int(total[row])}
        for row, column in pairs
        if matrix[row, column]
    ]


def _slice_rows(inputs: ReportInputs) -> list[dict[str, Any]]:
    """One row a slice; `bar`: left end, width and mark of its interval, in % of 1 or of the largest value."""
    if not len(inputs.slices):
        return []
    lead, others = inputs.slice_metrics[0], inputs.slice_metrics[1:]
    values = inputs.slices[[lead.name, "high"]].to_numpy(dtype=float)
    scale = 1.0 if lead.percent else float(np.nanmax(values)) or 1.0
    rows = []
    for row in inputs.slices.to_dict("records"):
        low, high = (row[end] if row[end] == row[end] else row[lead.name] for end in ("low", "high"))
        rows.append(
            {
                "slice": row["slice"],
                "value": row["value"],
                "n": f"{row['n']:,}",
                "lead": text.score(row[lead.name], lead.percent),
                "interval": text.interval((row["low"], row["high"]), lead.percent),
                "others": [text.score(row[metric.name], metric.percent) for metric in others],
                "bar": [round(100 * value / scale, 2) for value in (low, high - low, row[lead.name])],
            }
        )
    return rows


class _Share(float):
    """A number that `{:%}` shows as the page's other percentages."""

    def __format__(self, spec: str) -> str:
        return text.percent(self) if spec == "%" else super().__format__(spec)


def _images(inputs: ReportInputs, table: pd.DataFrame, *folders: Path, most_px: int = IMAGE_PX) -> list[dict[str, Any]]:
    """The rows of gallery.csv or explain.csv for the page, each with its image where the file is there."""
    from markupsafe import Markup

    report, rows = inputs.task.report, list[dict[str, Any]]()
    for row in table.to_dict("records"):
        images = [page_image(folder / str(row["file"]), most_px) for folder in folders]
        correct = bool(report.caption_correct) and row.get("actual") == row.get("predicted")
        cells = {str(name): _Share(value) if isinstance(value, float) else value for name, value in row.items()}
        column, flag = report.flag
        rows.append(
            {
                "id": row["id"],
                "kind": row.get("kind", ""),
                "method": row.get("method", ""),
                "image": next(filter(None, images), None),
                "caption": Markup(report.caption_correct if correct else report.caption).format(**cells),
                "flag": flag if str(row.get(column, False)) == "True" else "",
                "curves": _view_curves(row, report.curves, correct=correct),
            }
        )
    return rows


def _view_curves(row: Mapping[Any, Any], legend: Mapping[str, str], *, correct: bool) -> list[tuple[str, str, str]]:
    """Lines over the views of a video: (points of an SVG of 100 x 24, CSS class, legend); [] of a single view.

    Of a right prediction the lines are one and the same: only the first is drawn.
    """
    if not row.get("timeline"):
        return []
    lines = list(json.loads(str(row["timeline"])).items())
    lines = [line for line in lines if line[0] == next(iter(legend))] if correct else lines
    return [
        (
            " ".join(f"{100 * i / (len(shares) - 1):.1f},{23 - 22 * share:.1f}" for i, share in enumerate(shares)),
            name,
            str(row[legend[name]]),
        )
        for name, shares in lines
    ]


def _legend(inputs: ReportInputs) -> list[dict[str, str]]:
    """The colour of each class in the gallery's images, as CSS."""
    if not inputs.task.report.legend:
        return []
    from stillframe.drawing.class_map import palette

    named = zip(inputs.card.classes, palette(), strict=False)
    return [{"class": name, "colour": "#" + bytes(colour).hex()} for name, colour in named]
