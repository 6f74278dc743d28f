"""One function for each rule of the gate: two models' evidence in, a verdict with its numbers out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from stillframe.config import nearest
from stillframe.evaluation.bootstrap import LEVEL, make_scorer
from stillframe.evaluation.comparison import comparable_metrics, mcnemar, paired_difference
from stillframe.evaluation.slices import slice_table
from stillframe.registry.gate.evidence import EXPORT, GateEvidence
from stillframe.registry.gate.rules import ChampionRule, ExportRule, GateRules, SlicesRule

SEED = 0  # of the paired bootstrap: the same two models get the same verdict
MOST_LISTED = 4  # names of classes or slices in a sentence; the JSON has all


@dataclass(frozen=True)
class RuleResult:
    """The outcome of one rule.

    Attributes:
        rule: its key in the file.
        value: what was measured, as text; "" when nothing could be.
        bound: what the rule requires.
        why: a sentence where the two do not speak for themselves.
        numbers: all that was measured, for verdict.json.
    """

    rule: str
    value: str
    bound: str
    passed: bool
    why: str = ""
    numbers: dict[str, Any] = field(default_factory=dict)


def judge(rules: GateRules, new: GateEvidence, champion: GateEvidence | None, why_none: str) -> list[RuleResult]:
    """Apply every rule of a file, in its order.

    Args:
        rules: of conf/gate.
        new: the model that wants to be the champion.
        champion: the one that is; None: there is none to compare with.
        why_none: why there is none; begins with "no champion" or "the champion itself" where that is no fault of the
            new model, else the champion cannot be compared with and `champion.not_comparable` decides.

    Raises:
        ValueError: a rule names a metric that does not exist.
    """
    _check_names(rules, new)
    results: list[RuleResult] = []
    if rules.champion is not None:
        results.append(_champion(rules.champion, new, champion, why_none))
    results += [_every_class(metric, least, new) for metric, least in rules.every_class.items()]
    results += [_metric("at_least", name, bound, new) for name, bound in rules.at_least.items()]
    results += [_metric("at_most", name, bound, new) for name, bound in rules.at_most.items()]
    if rules.export is not None:
        results += _export(rules.export, new.export)
    if rules.slices is not None:
        lenient = rules.champion is not None and rules.champion.not_comparable == "pass"
        results.append(_slices(rules.slices, new, champion, why_none, lenient))
    return results


def _check_names(rules: GateRules, new: GateEvidence) -> None:
    """ValueError: a rule names a metric that this model does not have, or that cannot be compared image by image."""
    comparable = comparable_metrics(new.task, new.predictions, new.classes)
    for key, rule in (("champion", rules.champion), ("slices", rules.slices)):
        if rule is not None and rule.metric not in comparable:
            hint = nearest(rule.metric, comparable)
            raise ValueError(f"gate: {key}.metric = {rule.metric}: no score of this model's answers: {hint}")
    # A metric that is undefined on this test split (a class without images) is a failure, not a wrong name.
    named = {*new.metrics, *new.task.named_metrics(new.classes)}
    for section, bounds in (("at_least", rules.at_least), ("at_most", rules.at_most)):
        for name, bound in bounds.items():
            if name not in named:
                raise ValueError(f"gate: {section}.{name} = {bound}: no such metric: {nearest(name, named)}")


def no_fault(why_none: str) -> bool:
    """Whether there is no champion to be measured against, as opposed to one that cannot be compared with."""
    return why_none.startswith(("no champion", "the champion itself"))


def _champion(rule: ChampionRule, new: GateEvidence, champion: GateEvidence | None, why_none: str) -> RuleResult:
    bound = f"gain > {rule.least_gain:g}, beyond chance"
    key = f"champion.{rule.metric}"
    why = why_none or (new.incomparable(champion) if champion is not None else "")
    if champion is None or why:
        passed = no_fault(why_none) or rule.not_comparable == "pass"
        return RuleResult(key, "", bound, passed, why if no_fault(why_none) else f"not comparable: {why}")
    task, count = new.task, len(new.predictions)
    # The gain is to be positive where the new model is better: where lower is better, the champion less the new one.
    order = (new, champion) if task.metric(rule.metric).maximize else (champion, new)
    first, second = (make_scorer(task, model.predictions, new.classes) for model in order)
    gap = paired_difference(first, second, count, rule.metric, resamples=rule.resamples, seed=SEED)
    discordant = mcnemar(*(task.evaluation.sample_scores(model.predictions) for model in (new, champion)))
    numbers = {
        "new": new.metrics[rule.metric],
        "champion": champion.metrics[rule.metric],
        "gain": gap.mean,
        "gain_low": gap.low,
        "gain_high": gap.high,
        "only_new_right": discordant.first,
        "only_champion_right": discordant.second,
        "mcnemar_p": discordant.p,
        "images": count,
    }
    # Where the metric is the share of right samples and any gain will do, McNemar's exact test on the discordant
    # samples decides; it is sharper there than the bootstrap. Everywhere else the interval of the gain does.
    score = task.evaluation.SAMPLE_SCORE
    tested = score is None and rule.metric == task.lead
    sentence = f"the new one's {score} is higher on {discordant.first} images, the champion's on {discordant.second}"
    if score is None:
        sentence = f"only the new one is right on {discordant.first} images, only the champion on {discordant.second}"
    by_test = tested and rule.least_gain == 0.0
    passed = gap.mean > 0 and discordant.p < 1 - LEVEL if by_test else gap.low > rule.least_gain
    value = f"{numbers['new']:.4f} against {numbers['champion']:.4f}: {gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]"
    notes = [sentence, f"McNemar p = {discordant.p:.3g}" if tested else "", new.doubt(champion)]
    return RuleResult(key, value, bound, bool(passed), "; ".join(filter(None, notes)), numbers)


def _every_class(metric: str, least: float, new: GateEvidence) -> RuleResult:
    """The lowest of all classes; a class without test images cannot be judged, and that is a failure."""
    scores = {name: new.metrics.get(f"{metric}/{name}") for name in new.classes}
    defined = {name: value for name, value in scores.items() if value is not None}
    without = [name for name in new.classes if name not in defined]
    below = sorted((name for name, value in defined.items() if value < least), key=lambda name: defined[name])
    why = [f"below it: {_listed(below)}"] if below else []
    why += [f"no {metric} on the test images: {_listed(without)}"] if without else []
    worst = min(defined, key=lambda name: defined[name]) if defined else ""
    value = f"{defined[worst]:.4f} ({worst}, the lowest of {len(defined)})" if defined else ""
    passed = not below and not without
    return RuleResult(f"every_class.{metric}", value, f">= {least:g}", passed, "; ".join(why), dict(scores))


def _metric(section: str, name: str, bound: float, new: GateEvidence) -> RuleResult:
    """A score of the test split against its bound."""
    sign = ">=" if section == "at_least" else "<="
    if name not in new.metrics:
        return RuleResult(f"{section}.{name}", "", f"{sign} {bound:g}", False, "not defined on these test images")
    value = new.metrics[name]
    passed = value >= bound if section == "at_least" else value <= bound
    return RuleResult(f"{section}.{name}", f"{value:.4f}", f"{sign} {bound:g}", passed, "", {name: value})


def _export(rule: ExportRule, export: dict[str, Any]) -> list[RuleResult]:
    """Bounds of the chosen file; a rule about a file that is not there is not met."""
    chosen: dict[str, Any] = next(
        (row for row in export.get("variants", []) if row.get("name") == export.get("chosen")), {}
    )
    results = []
    for name in ("megabytes", "latency_ms_p50", "latency_ms_p99", "changed_decisions"):
        bound = getattr(rule, name)
        if bound is None:
            continue
        value = chosen.get("bytes", None) if name == "megabytes" else chosen.get(name)
        if value is None:
            why = f"{EXPORT} does not say it" if chosen else f"nothing was exported: {EXPORT} is missing"
            results.append(RuleResult(f"export.{name}", "", f"<= {bound:g}", False, f"{why}: run `dvc repro`"))
            continue
        value = value / 1e6 if name == "megabytes" else value
        why = f"the file {chosen.get('file', '')} ({chosen['name']})"
        results.append(
            RuleResult(f"export.{name}", f"{value:.4g}", f"<= {bound:g}", value <= bound, why, {name: value})
        )
    return results


def _slices(
    rule: SlicesRule, new: GateEvidence, champion: GateEvidence | None, why_none: str, lenient: bool
) -> RuleResult:
    bound = f"no slice worse by more than {rule.worse_by:g}"
    key = f"slices.{rule.metric}"
    why = why_none or (new.incomparable(champion) if champion is not None else "")
    if champion is None or why:
        reason = why if no_fault(why_none) else f"not comparable: {why}"
        return RuleResult(key, "", bound, no_fault(why_none) or lenient, reason)
    if not new.slices:
        return RuleResult(key, "", bound, True, "the test images have no slices (evaluate.slices)")
    options: dict[str, Any] = {"resamples": 0, "seed": SEED, "source": new.predictions}
    ours, theirs = (
        slice_table(new.task, model.predictions, new.slices, new.classes, metrics=[rule.metric], **options)
        for model in (new, champion)
    )
    # a positive gain means that the new model is better on that slice
    sign = 1 if new.task.metric(rule.metric).maximize else -1
    gain = sign * (ours[rule.metric] - theirs[rule.metric])
    rows = ours.assign(champion=theirs[rule.metric], gain=gain).to_dict("records")
    numbers = {
        f"{row['slice']}={row['value']}": {
            "images": row["n"],
            "new": row[rule.metric],
            "champion": row["champion"],
            "gain": row["gain"],
        }
        for row in rows
    }
    # A handful of images proves nothing: small slices are reported, and decide nothing.
    large = {name: row for name, row in numbers.items() if row["images"] >= rule.least_images}
    if not large:
        return RuleResult(key, "", bound, True, f"no slice has {rule.least_images} images", numbers)
    order = sorted(large, key=lambda name: large[name]["gain"])
    worse = [name for name in order if large[name]["gain"] < -rule.worse_by - 1e-12]  # 1e-12: rounding of a difference
    low = large[order[0]]
    value = f"{low['gain']:+.4f} ({order[0]}: {low['new']:.4f} against {low['champion']:.4f}, {low['images']} images)"
    small = len(numbers) - len(large)
    notes = [f"worse: {_listed(worse)}"] if worse else []
    notes += [f"{small} slices have fewer than {rule.least_images} images"] if small else []
    return RuleResult(key, value, bound, not worse, "; ".join(notes), numbers)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    return ", ".join(names[:MOST_LISTED]) + more
