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


def recipe(inputs: ReportInputs, params: Mapping[str, Any]) -> list[tuple[str, str]]:
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
    rows += [(title, value) for title, value in text.augmentation(inputs) if title != "policy"]
    if trainer:
        rows.append(("batch size", f"{trainer.get('batch_size')} a device"))
    if "seed" in params:
        rows.append(("seed", str(params["seed"])))
    if inputs.summary:
        rows.append(("training", text.training(inputs)))
    listed = {title for title, _ in rows}
    return rows + [row for row in text.training_facts(inputs) if row[0] not in listed]


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


def weak_points(inputs: ReportInputs) -> list[str]:
    """Where the test samples show the model to be weakest: a class, a slice, a pair of classes."""
    notes, report, lead = [], inputs.task.report, inputs.lead
    if len(inputs.per_class) > 1:
        weakest = inputs.task.class_metrics()[report.weakest]
        row = inputs.per_class.sort_values(weakest.name, ascending=weakest.maximize, kind="stable").iloc[0]
        value, count = text.score(row[weakest.name], weakest.percent), f"{int(row['support']):,} test {inputs.unit}"
        notes.append(text.fill(report.weakest_class, inputs, answer=row["class"], value=value, count=count))
    if len(inputs.slices) > 1:
        row = inputs.slices.sort_values(lead.name, ascending=lead.maximize, kind="stable").iloc[0]
        brief = text.fill(report.brief, inputs, lead, value=text.score(row[lead.name], lead.percent))
        bounds = text.interval((row["low"], row["high"]), lead.percent)
        notes.append(
            f"The weakest slice is {row['slice']} = {row['value']}: {brief} [{bounds}] on {int(row['n']):,} "
            f"{inputs.samples}."
        )
    if len(inputs.confusion):
        wrong = inputs.confusion[inputs.confusion["actual"] != inputs.confusion["predicted"]]
        wrong = wrong.assign(count=wrong.get(inputs.unit, 1))
        pairs = wrong.groupby(["actual", "predicted"], sort=True)["count"].sum().reset_index()
        for actual, predicted, count in pairs.nlargest(1, "count").itertuples(index=False):
            often = f"{count:,} {report.unit}" if report.unit else f"{count} times" if count > 1 else "once"
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
