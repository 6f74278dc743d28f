"""The model card (Mitchell et al. 2019): what the record says of a model; nothing in it is typed by hand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stillframe.models.licence import licence_of
from stillframe.paths import write_text
from stillframe.reporting import text
from stillframe.reporting.inputs import ReportInputs
from stillframe.reporting.templates import environment, thousands

NAME = "MODEL_CARD.md"
UNKNOWN = "not recorded"


def recipe(found: ReportInputs, params: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How the model was made, in rows of (what, which); only what the parameters and the training's summary say."""
    model, optim, trainer = (dict(params.get(name) or {}) for name in ("model", "optim", "trainer"))
    rows = [("task", str(params["task"]))] if "task" in params else []
    if model:
        encoder = f" on {model['encoder']}" if model.get("encoder") else ""
        rows += [
            ("net", str(model.get("name", UNKNOWN)) + encoder),
            ("pretrained weights", str(model.get("weights") or "none")),
        ]
        licence = licence_of(model.get("weights"), str(model.get("encoder") or model.get("name")))
        rows.append(("licence of the weights", licence))
        rows.append(("frozen parts", ", ".join(model.get("freeze") or []) or "none"))
    if optim:
        schedule = dict(optim.get("schedule") or {}).get("name", UNKNOWN)
        settings = f"{optim.get('name')}, rate {optim.get('lr')}, weight decay {optim.get('weight_decay')}, {schedule}"
        rows.append(("optimizer", settings))
        rows.append(("loss", _loss(optim)))
    rows += [(title, value) for title, value in text.augmentation(found) if title != "policy"]
    if trainer:
        rows.append(("batch size", f"{trainer.get('batch_size')} a device"))
    if "seed" in params:
        rows.append(("seed", str(params["seed"])))
    if found.summary:
        rows.append(("training", text.training(found)))
    known = {title for title, _ in rows}
    return rows + [row for row in text.training_facts(found) if row[0] not in known]


def _loss(optim: Mapping[str, Any]) -> str:
    parts = [str(optim.get("loss", UNKNOWN))]
    for key in ("label_smoothing", "mixup", "cutmix", "l1"):
        if optim.get(key):
            parts.append(f"{key} {optim[key]}")
    for key in ("class_weights", "sampler"):
        if optim.get(key) not in (None, "none", "shuffle"):
            parts.append(f"{key} {optim[key]}")
    return ", ".join(parts)


def source(params: Mapping[str, Any]) -> str:
    """Where the images came from."""
    data = dict(params.get("data") or {})
    fetch = data.get("fetch")
    if fetch:
        return f"{fetch['kind']} {fetch['name']}" + (f", sha256 {fetch['sha256']}" if fetch.get("sha256") else "")
    return f"the user's own folder {data['path']}" if data.get("path") else UNKNOWN


def weak_points(found: ReportInputs) -> list[str]:
    """Where the test images show the model to be weakest: a class, a slice, a pair of classes."""
    notes, kind = [], found.kind
    if len(found.per_class) > 1:
        row = found.per_class.sort_values(kind.weakest, kind="stable").iloc[0]
        support = f"{int(row['support']):,} test {kind.support}"
        notes.append(
            f"The class with the lowest IoU is “{row['class']}”: {text.percent(row['iou'])}, on {support}."
            if found.masked
            else f"The class found least often is “{row['class']}”: {text.percent(row['recall'])} of its {support}."
        )
    if len(found.slices) > 1:
        row = found.slices.sort_values(kind.lead, kind="stable").iloc[0]
        bounds = text.interval((row["low"], row["high"]), True)
        what = (
            f"{kind.lead_title} {text.percent(row[kind.lead])}"
            if found.masked
            else (f"{text.percent(row[kind.lead])} right")
        )
        notes.append(
            f"The weakest slice is {row['slice']} = {row['value']}: {what} [{bounds}] on "
            f"{int(row['n']):,} {found.things}."
        )
    if len(found.confusion):
        wrong = found.confusion[found.confusion["actual"] != found.confusion["predicted"]]
        wrong = wrong.assign(times=wrong.get("pixels", 1))
        pairs = wrong.groupby(["actual", "predicted"], sort=True)["times"].sum().reset_index()
        for actual, predicted, times in pairs.nlargest(1, "times").itertuples(index=False):
            often = f"{times:,} pixels" if found.masked else f"{times} times" if times > 1 else "once"
            notes.append(f"The most frequent mistake: “{actual}” taken for “{predicted}”, {often}.")
    return notes


def write(context: Mapping[str, Any], out: Path) -> Path:
    """Write `MODEL_CARD.md` into `out` from what the page shows; the path."""
    content = environment(autoescape=False, cell=cell, thousands=thousands).get_template("card.md").render(**context)
    write_text(out / NAME, content.replace("\u00a0", " "))
    return out / NAME


def cell(value: Any) -> str:
    """Text that stays text in Markdown: no HTML, no end of a table's cell, no link of its own."""
    out = " ".join(str(value).split())
    for mark in "\\`*_[]|":
        out = out.replace(mark, f"\\{mark}")
    return out.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
