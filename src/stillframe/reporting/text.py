"""The sentences of the report: figures turned into what they mean, and what must be known before trusting them."""

from __future__ import annotations

import re
from typing import Any

from stillframe.reporting.inputs import ReportInputs

METRICS = {  # name -> (title, meaning, shown as a percentage); `Kind.meanings` go before
    "iou_macro": ("Mean IoU", "overlap of answer and truth as a share of both together, mean over the classes", True),
    "iou_weighted": ("Weighted IoU", "the same, classes weighted by their pixels", True),
    "boundary_f1": ("Boundary F1", "share of the contours that lie right, within 0.75 % of the image's diagonal", True),
    "accuracy": ("Accuracy", "share of images answered right", True),
    "balanced_accuracy": ("Balanced accuracy", "mean share found of each class: a rare class counts fully", True),
    "f1_macro": ("Macro F1", "balance of precision and recall, mean over the classes", True),
    "f1_weighted": ("Weighted F1", "the same, classes weighted by their images", True),
    "precision_macro": ("Macro precision", "of the answers “X”, the share that is X; mean over the classes", True),
    "recall_macro": ("Macro recall", "of the images of X, the share found; mean over the classes", True),
    "auroc": ("AUROC", "chance that an image of a class is ranked above one of another; 0.5 is guessing", False),
    "log_loss": ("Log loss", "punishes confident wrong answers; lower is better", False),
    "brier": ("Brier score", "squared error of the probabilities; lower is better", False),
    "ece": ("Calibration error (ECE)", "gap between confidence and accuracy; lower is better", False),
    "ece_uncalibrated": ("ECE before calibration", "the same without temperature scaling", False),
    "log_loss_uncalibrated": ("Log loss before calibration", "the same without temperature scaling", False),
}
IMAGES = re.compile(r"(“[^”]*”|'[^']*')|\b(an )?image(s?)\b")
LONG_RUN_S = 120
WORSE_ECE = 0.01  # below that the difference is noise


def percent(value: float) -> str:
    """0.9101 -> "91.0 %", with a space that does not break."""
    return f"{100 * value:.1f}\u00a0%"


def shown(value: float | None, as_percent: bool) -> str:
    """A score for a table; a dash when there is none."""
    if value is None or value != value:
        return "–"
    return percent(value) if as_percent else f"{value:.3f}"


def interval(bounds: list[float] | tuple[float, float] | None, as_percent: bool) -> str:
    """[0.881, 0.937] -> "88.1 to 93.7"."""
    if not bounds or any(bound is None or bound != bound for bound in bounds):
        return "–"
    low, high = bounds
    return f"{100 * low:.1f} to {100 * high:.1f}\u00a0%" if as_percent else f"{low:.3f} to {high:.3f}"


def duration(seconds: float) -> str:
    """Seconds, or minutes of a long run."""
    return f"{seconds:.0f} s" if seconds < LONG_RUN_S else f"{seconds / 60:.1f} min"


def headline(found: ReportInputs) -> str:
    """The result in one sentence."""
    images, kind = test_images(found), found.kind
    value, bounds = found.metrics[kind.lead], found.intervals.get(kind.lead)
    span = f" [{100 * bounds[0]:.1f}, {100 * bounds[1]:.1f}]" if bounds else ""
    trivial = percent(float(found.baseline[kind.lead])) if "class" in found.baseline else ""
    if found.masked:
        text = f"On {images:,} test {found.things} this model's {kind.lead_title} is {percent(value)}{span}"
        more = f"; answering “{found.baseline['class']}” everywhere would have {trivial}" if trivial else ""
    else:
        text = f"On {images:,} test {found.things} this model is right in {percent(value)}{span} of cases"
        more = f"; always answering “{found.baseline['class']}” would be right in {trivial}" if trivial else ""
    return f"{text}{more}."


def title(found: ReportInputs) -> str:
    """The page's title."""
    value, images = percent(found.metrics[found.kind.lead]), f"{test_images(found):,} test {found.things}"
    said = f"{found.kind.lead_title} {value}" if found.masked else f"{value} right"
    return f"{found.card.name}: {said} on {images}"


def test_images(found: ReportInputs) -> int:
    """Images in the test split."""
    return found.images if found.images is not None else sum(found.card.counts.get("test", {}).values())


def judgement(found: ReportInputs) -> tuple[str, str]:
    """("good" | "doubt" | "bad", what the comparison with the trivial answer says)."""
    lead = found.kind.lead
    if lead not in found.baseline:
        return "doubt", "There is no baseline to compare with."
    bounds = found.intervals.get(lead) or [found.metrics[lead]] * 2
    trivial = float(found.baseline[lead])
    wrong, trivial_wrong = 1 - found.metrics["accuracy"], 1 - float(found.baseline["accuracy"])
    if bounds[0] > trivial:
        fewer = f"{percent(1 - wrong / trivial_wrong)} fewer" if trivial_wrong > 0 else ""
        more = f" It makes {fewer} errors than it." if fewer else ""
        if found.masked:
            more = f" It answers {fewer} pixels wrongly." if fewer and wrong < trivial_wrong else ""
        return "good", f"The model is better than the trivial answer, beyond chance.{more}"
    if bounds[1] < trivial:
        return "bad", "The model is worse than always giving the same answer: do not use it."
    return "doubt", "It cannot be said that the model is better than always giving the same answer."


def caveats(found: ReportInputs, params: dict[str, Any]) -> list[str]:
    """What a reader must know before trusting the figures, in the order of weight."""
    notes: list[str] = []
    verdict = found.choices.get("verdict", {})
    notes += [
        f"The quality bar is not met: validation {rule['metric']} is {rule['value']:.4f}, "
        f"at least {rule['least']} is required."
        for rule in verdict.get("rules", [])
        if not rule["passed"]
    ]
    leaks = found.audit.get("leaks", {})
    across = leaks.get("near_pairs_across_splits", 0) + leaks.get("exact_across_splits", 0)
    if across:
        notes.append(
            f"{across} pairs of equal or nearly equal {found.things} lie in different splits: "
            "the test scores may be too good."
        )
    if leaks.get("source_groups_across_splits"):
        notes.append(
            f"{leaks['source_groups_across_splits']} groups of the table lie in more than one split: "
            "the test scores may be too good."
        )
    columns = params.get("data", {}).get("columns") or {}
    if columns and not columns.get("group"):
        notes.append(
            f"The data names no groups (data.columns.group), so {found.things} of one physical object may fall on both "
            "sides of the split; then the scores are better than on objects never seen."
        )
    notes += found.notes + found.choices.get("notes", []) + found.audit.get("warnings", [])
    if found.origin.get("dirty"):
        notes.append(
            "The checkout had uncommitted changes when this model was trained; the MLflow run holds the difference."
        )
    before, after = found.metrics.get("ece_uncalibrated"), found.metrics.get("ece")
    if before is not None and after is not None and after > before + WORSE_ECE:
        notes.append(
            f"Calibration on the validation split made the confidence worse on the test split "
            f"(ECE {before:.3f} before, {after:.3f} after)."
        )
    return list(dict.fromkeys(_sentence(spoken(note, found)) for note in notes))


def spoken(text: str, found: ReportInputs) -> str:
    """A sentence of ours about images, said of clips where the data are clips; what stands in quotes is not ours."""
    if found.thing == "image":
        return text
    return IMAGES.sub(lambda hit: hit[1] or f"{'a ' if hit[2] else ''}{found.thing}{hit[3]}", text)


def _sentence(note: str) -> str:
    """With a capital letter and a full stop."""
    return note[:1].upper() + note[1:] + ("" if note.endswith((".", "!", "?")) else ".")


def audit_facts(found: ReportInputs) -> list[tuple[str, str]]:
    """The audit in rows of (what, how many)."""
    audit = found.audit
    if not audit:
        return []
    facts = [("listed in the source", f"{audit.get('listed', 0):,}"), ("used", f"{audit.get('kept', 0):,}")]
    left = audit.get("left_out", {})
    if left:
        labels = ", ".join(f"“{label}” {count:,}" for label, count in left.items())
        facts.append(("left out on purpose, by label", labels))
    bad = audit.get("quarantined", {})
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in bad.items())
    facts.append(("refused (quarantine)", f"{sum(bad.values()):,}" + (f": {reasons}" if bad else "")))
    exact, near = audit.get("exact", {}), audit.get("near", {})
    facts.append(
        ("exact duplicates", f"{exact.get('images', 0):,} {found.things} in {exact.get('groups', 0):,} groups")
    )
    facts.append(("near duplicates", f"{near.get('images', 0):,} {found.things} in {near.get('groups', 0):,} groups"))
    if audit.get("conflicts"):
        facts.append((f"one {found.thing} under two labels", f"{audit['conflicts']:,}"))
    modes = "codecs" if found.card.frames > 1 else "colour modes"
    for key, title in (("modes", modes), ("formats", "file formats"), ("sizes", "sizes, px")):
        if audit.get(key):
            most = sorted(audit[key].items(), key=lambda item: -item[1])
            more = f", {len(most) - 5} more" if len(most) > 5 else ""
            facts.append((title, ", ".join(f"{name} ({count:,})" for name, count in most[:5]) + more))
    return facts


def training(found: ReportInputs) -> str:
    """How the net was trained, in a sentence or two."""
    facts = found.summary
    if not facts:
        return ""
    text = f"{facts['epochs']} epochs" if facts.get("epochs") else "Trained"
    if "seconds" in facts:
        text += f" in {duration(float(facts['seconds']))}"
    if "device" in facts:
        several = facts.get("devices", 1)
        text += f" on {several} x {facts['device']}" if several != 1 else f" on {facts['device']}"
    if facts.get("stopped_early"):
        text += "; stopped early, because the validation metric no longer improved"
    text += "."
    if "best_epoch" in facts and "monitor" in facts:
        text += (
            f" Kept: epoch {facts['best_epoch'] + 1}, the best one by validation {facts['monitor']}"
            f" ({facts['best_value']:.4f})."
        )
    return text


def training_facts(found: ReportInputs) -> list[tuple[str, str]]:
    """What else is known of the training, for a table."""
    facts, rows = found.summary, []
    if "parameters" in facts:
        learnt = facts.get("trainable_parameters", facts["parameters"])
        rows.append(("parameters", f"{facts['parameters']:,}, of which {learnt:,} learnt"))
    names = {"precision": "precision", "batch_size": "batch size", "lr": "peak learning rate"}
    rows += [(title, str(facts[key])) for key, title in names.items() if key in facts]
    if "images_per_s" in facts:
        rows.append((f"{found.things} per second", f"{facts['images_per_s']:,.0f}"))
    return rows


def transform_names(policy: list[dict[str, Any]]) -> str:
    """The names of a policy's transforms, in their order."""
    return ", ".join(name for entry in policy for name in entry) or "none"


def augmentation(found: ReportInputs) -> list[tuple[str, str]]:
    """The augmentation in rows of (what, which)."""
    policy = found.policy
    if not policy:
        return []
    rows = [("policy", str(policy.get("name", "–")))]
    for key, title in (("offline", "offline, on stored copies"), ("online", "online, drawn anew each epoch")):
        if isinstance(policy.get(key), list):
            rows.append((title, transform_names(policy[key])))
    for key, title in (
        ("copies", f"copies of each train {found.thing}"),
        ("balance", "balancing"),
        ("where", "applied on"),
    ):
        if key in policy and not isinstance(policy[key], (dict, list)):
            rows.append((title, str(policy[key])))
    return rows


def shipped(found: ReportInputs) -> str:
    """Whether the exported file answers as the model does, in a sentence or two."""
    facts = found.export
    if not facts:
        return ""
    first = facts["variants"][0]
    lead = percent(first["metrics"][found.kind.lead])
    of_model = percent(facts["model"]["metrics"][found.kind.lead])
    changed, images = first["changed_decisions"], facts["images"]
    if found.masked:
        said = f"{first['file']} has a mean IoU of {lead}, the model of {of_model}"
        differ = f"{changed or 'no'} of {facts['pixels']:,} pixels differ{'s' if changed == 1 else ''}"
    else:
        said = f"{first['file']} is right in {lead} of cases, the model in {of_model}"
        differ = f"{changed or 'no'} decision{'' if changed == 1 else 's'} differ{'s' if changed == 1 else ''}"
    return (
        f"Asked about the {images:,} raw test files, {said}. The largest difference of a probability is "
        f"{first['max_probability_difference']:.1g} (at most {facts['bound']['probability']:g} is allowed); {differ}."
    )


def variant_rows(found: ReportInputs) -> list[dict[str, Any]]:
    """The exported files, one a row."""
    facts = found.export
    return [
        {
            "name": row["name"],
            "chosen": row["name"] == facts["chosen"],
            "size": f"{row['bytes'] / 1e6:.2f} MB",
            "p50": f"{row['latency_ms_p50']:.1f}",
            "p99": f"{row['latency_ms_p99']:.1f}",
            "rate": f"{row['images_per_s']:,.0f}",
            "lead": percent(row["metrics"][found.kind.lead]),
            "lead_interval": interval(row["intervals"].get(found.kind.lead), True),
            "f1": percent(row["metrics"]["f1_macro"]),
            "f1_interval": interval(row["intervals"].get("f1_macro"), True),
            "changed": f"{row['changed_decisions']:,}",
        }
        for row in facts.get("variants", [])
    ]
