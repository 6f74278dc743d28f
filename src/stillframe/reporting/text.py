"""The sentences of the report: what the scores mean, and what must be known before trusting them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from stillframe.evaluation.requirements import bound_of
from stillframe.reporting.inputs import ReportInputs
from stillframe.tasks.base import Metric

IMAGES = re.compile(r"(“[^”]*”|'[^']*')|\b(an )?image(s?)\b")
LONG_RUN_S = 120
WORSE_CALIBRATION = 0.01  # a smaller difference of the calibration error is noise


def percent(value: float) -> str:
    """0.9101 -> "91.0 %", with a space that does not break."""
    return f"{100 * value:.1f}\u00a0%"


def number(value: float) -> str:
    """Three decimals; one of a value from 1000 on."""
    return f"{value:.3f}" if abs(value) < 1000 else f"{value:,.1f}"


def score(value: float | None, as_percent: bool) -> str:
    """A score for a table; a dash when there is none."""
    if value is None or value != value:
        return "–"
    return percent(value) if as_percent else number(value)


def interval(bounds: Sequence[float] | None, as_percent: bool) -> str:
    """[0.881, 0.937] -> "88.1 to 93.7"."""
    if not bounds or any(bound is None or bound != bound for bound in bounds):
        return "–"
    low, high = bounds
    return f"{100 * low:.1f} to {100 * high:.1f}\u00a0%" if as_percent else f"{number(low)} to {number(high)}"


def brackets(bounds: Sequence[float] | None, as_percent: bool) -> str:
    """[0.881, 0.937] -> " [88.1, 93.7]", to stand after a score; "" when there is no interval."""
    if not bounds:
        return ""
    return " [" + ", ".join(f"{100 * bound:.1f}" if as_percent else number(bound) for bound in bounds) + "]"


def duration(seconds: float) -> str:
    """Seconds, or minutes of a long run."""
    return f"{seconds:.0f} s" if seconds < LONG_RUN_S else f"{seconds / 60:.1f} min"


def fill(template: str, inputs: ReportInputs, metric: Metric | None = None, **values: Any) -> str:
    """A sentence of the task's `ReportText`, with the words for its samples and for a metric."""
    named = {"metric": metric.noun} if metric is not None else {}
    return template.format(sample=inputs.sample, samples=inputs.samples, **named, **values)


def headline(inputs: ReportInputs) -> str:
    """The result in one sentence."""
    lead, report = inputs.lead, inputs.task.report
    value = score(inputs.metrics[lead.name], lead.percent)
    value += brackets(inputs.intervals.get(lead.name), lead.percent)
    text = f"On {test_count(inputs):,} test {inputs.samples} {fill(report.headline, inputs, lead, value=value)}"
    if lead.name in inputs.baseline:
        trivial, answer = score(inputs.baseline[lead.name], lead.percent), inputs.baseline.get("class", "")
        text += f"; {fill(report.baseline, inputs, lead, value=trivial, answer=answer)}"
    return f"{text}."


def title(inputs: ReportInputs) -> str:
    """The page's title."""
    value = score(inputs.metrics[inputs.lead.name], inputs.lead.percent)
    brief = fill(inputs.task.report.brief, inputs, inputs.lead, value=value)
    return f"{inputs.card.name}: {brief} on {test_count(inputs):,} test {inputs.samples}"


def test_count(inputs: ReportInputs) -> int:
    """Samples in the test split."""
    return inputs.test_rows if inputs.test_rows is not None else sum(inputs.card.counts.get("test", {}).values())


def verdict(inputs: ReportInputs) -> tuple[str, str]:
    """Whether the model is better than the trivial prediction: ("good" | "doubt" | "bad", sentence)."""
    lead, report = inputs.lead, inputs.task.report
    if lead.name not in inputs.baseline:
        return "doubt", "There is no baseline to compare with."
    sign = 1 if lead.maximize else -1
    bounds = inputs.intervals.get(lead.name) or [inputs.metrics[lead.name]] * 2
    worst, best = sorted(sign * bound for bound in bounds)
    trivial = sign * float(inputs.baseline[lead.name])
    if best < trivial:
        return "bad", "The model is worse than always giving the same answer: do not use it."
    if worst <= trivial:
        return "doubt", "It cannot be said that the model is better than always giving the same answer."
    text = "The model is better than the trivial answer, beyond chance."
    if report.correct:
        wrong, trivial_wrong = (1 - float(scores[report.correct]) for scores in (inputs.metrics, inputs.baseline))
        if wrong < trivial_wrong:
            text += f" {fill(report.fewer_errors, inputs, share=percent(1 - wrong / trivial_wrong))}"
    return "good", text


def caveats(inputs: ReportInputs, params: dict[str, Any]) -> list[str]:
    """What a reader must know before trusting the scores, the gravest first."""
    notes = [
        f"The quality bar is not met: validation {rule['metric']} is {rule['value']:.4f}, {bound_of(rule)} is required."
        for rule in inputs.choices.get("verdict", {}).get("rules", [])
        if not rule["passed"]
    ]
    leaks = inputs.audit.get("leaks", {})
    across = leaks.get("near_pairs_across_splits", 0) + leaks.get("exact_across_splits", 0)
    if across:
        notes.append(
            f"{across} pairs of equal or nearly equal {inputs.samples} lie in different splits: "
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
            f"The data names no groups (data.columns.group), so {inputs.samples} of one physical object may fall on "
            "both sides of the split; then the scores are better than on objects never seen."
        )
    notes += inputs.notes + inputs.choices.get("notes", []) + inputs.audit.get("warnings", [])
    if inputs.origin.get("dirty"):
        notes.append(
            "The checkout had uncommitted changes when this model was trained; the MLflow run holds the difference."
        )
    after, before = (inputs.metrics.get(name) for name in inputs.task.report.calibration or ("", ""))
    if before is not None and after is not None and after > before + WORSE_CALIBRATION:
        notes.append(
            f"Calibration on the validation split made the confidence worse on the test split "
            f"(ECE {before:.3f} before, {after:.3f} after)."
        )
    sentences = [about_samples(note, inputs) for note in notes]
    sentences = [note[:1].upper() + note[1:] + ("" if note.endswith((".", "!", "?")) else ".") for note in sentences]
    return list(dict.fromkeys(sentences))


def about_samples(text: str, inputs: ReportInputs) -> str:
    """A sentence of ours about images, for clips where the data are clips; text in quotes is the user's and stays."""
    if inputs.sample == "image":
        return text
    return IMAGES.sub(lambda hit: hit[1] or f"{'a ' if hit[2] else ''}{inputs.sample}{hit[3]}", text)


def audit_facts(inputs: ReportInputs) -> list[tuple[str, str]]:
    """The audit of the data in rows of (what, how many)."""
    audit = inputs.audit
    if not audit:
        return []
    facts = [("listed in the source", f"{audit.get('listed', 0):,}"), ("used", f"{audit.get('kept', 0):,}")]
    excluded = audit.get("left_out", {})
    if excluded:
        facts.append(
            ("left out on purpose, by label", ", ".join(f"“{name}” {count:,}" for name, count in excluded.items()))
        )
    invalid = audit.get("quarantined", {})
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in invalid.items())
    facts.append(("refused (quarantine)", f"{sum(invalid.values()):,}" + (f": {reasons}" if invalid else "")))
    for kind, name in (("exact", "exact duplicates"), ("near", "near duplicates")):
        pairs = audit.get(kind, {})
        facts.append((name, f"{pairs.get('images', 0):,} {inputs.samples} in {pairs.get('groups', 0):,} groups"))
    if audit.get("conflicts"):
        facts.append((f"one {inputs.sample} under two labels", f"{audit['conflicts']:,}"))
    modes = "codecs" if inputs.card.frames > 1 else "colour modes"
    for key, name in (("modes", modes), ("formats", "file formats"), ("sizes", "sizes, px")):
        if audit.get(key):
            most = sorted(audit[key].items(), key=lambda item: -item[1])
            more = f", {len(most) - 5} more" if len(most) > 5 else ""
            facts.append((name, ", ".join(f"{value} ({count:,})" for value, count in most[:5]) + more))
    return facts


def training(inputs: ReportInputs) -> str:
    """How the network was trained, in a sentence or two."""
    facts = inputs.summary
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


def training_facts(inputs: ReportInputs) -> list[tuple[str, str]]:
    """Size, precision and speed of the training, for a table."""
    facts, rows = inputs.summary, []
    if "parameters" in facts:
        trained = facts.get("trainable_parameters", facts["parameters"])
        rows.append(("parameters", f"{facts['parameters']:,}, of which {trained:,} trained"))
    rows += [(name.replace("_", " "), str(facts[name])) for name in ("precision", "batch_size") if name in facts]
    if "lr" in facts:
        rows.append(("peak learning rate", str(facts["lr"])))
    if "images_per_s" in facts:
        rows.append((f"{inputs.samples} per second", f"{facts['images_per_s']:,.0f}"))
    return rows


def augmentation(inputs: ReportInputs) -> list[tuple[str, str]]:
    """The augmentation in rows of (what, which)."""
    policy = inputs.policy
    if not policy:
        return []
    rows = [("policy", str(policy.get("name", "–")))]
    for key, name in (("offline", "offline, on stored copies"), ("online", "online, drawn anew each epoch")):
        if isinstance(policy.get(key), list):
            rows.append((name, ", ".join(transform for entry in policy[key] for transform in entry) or "none"))
    for key, name in (
        ("copies", f"copies of each train {inputs.sample}"),
        ("balance", "balancing"),
        ("where", "applied on"),
    ):
        if key in policy and not isinstance(policy[key], (dict, list)):
            rows.append((name, str(policy[key])))
    return rows


def exported(inputs: ReportInputs) -> str:
    """Whether the exported file predicts what the model predicts, in a sentence or two."""
    facts, lead = inputs.export, inputs.lead
    if not facts:
        return ""
    first, changed = facts["variants"][0], facts["variants"][0]["changed_decisions"]
    of_file, of_model = (score(row["metrics"][lead.name], lead.percent) for row in (first, facts["model"]))
    # "max_probability_difference" of classes, "max_value_difference" of numbers
    ((noun, largest),) = [(key[4:-11], row) for key, row in first.items() if re.fullmatch("max_.*_difference", key)]
    decisions = "1 decision differs" if changed == 1 else f"{changed or 'no'} decisions differ"
    counted = f" of {facts[inputs.unit]:,} {inputs.unit}" if inputs.unit in facts else ""
    return (
        f"On the {facts['images']:,} raw test files the {lead.noun} of {first['file']} is {of_file}, that of the model "
        f"{of_model}. The largest difference of a {noun} is {largest:.1g} (at most "
        f"{facts['bound']['probability']:g} is allowed); {decisions}{counted}."
    )


def variant_rows(inputs: ReportInputs) -> list[dict[str, Any]]:
    """The exported files, one a row; `scores`: (score, interval) of each metric that was measured."""
    metrics = export_metrics(inputs)
    return [
        {
            "name": row["name"],
            "chosen": row["name"] == inputs.export["chosen"],
            "size": f"{row['bytes'] / 1e6:.2f} MB",
            "p50": f"{row['latency_ms_p50']:.1f}",
            "p99": f"{row['latency_ms_p99']:.1f}",
            "rate": f"{row['images_per_s']:,.0f}",
            "scores": [
                (
                    score(row["metrics"].get(metric.name), metric.percent),
                    interval(row["intervals"].get(metric.name), metric.percent),
                )
                for metric in metrics
            ],
            "changed": f"{row['changed_decisions']:,}",
        }
        for row in inputs.export.get("variants", [])
    ]


def export_metrics(inputs: ReportInputs) -> list[Metric]:
    """The metrics by which exported files were measured."""
    rows = inputs.export.get("variants", [])
    return [inputs.task.metric(name) for name in rows[0]["metrics"]] if rows else []
