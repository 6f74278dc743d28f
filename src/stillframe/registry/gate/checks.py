"""Each rule with its numbers and its verdict; plain functions of two models' evidence."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from stillframe.config import nearest
from stillframe.evaluation.bootstrap import LEVEL, make_scorer
from stillframe.evaluation.comparison import comparable_metrics, mcnemar, paired_difference
from stillframe.evaluation.slices import slice_table
from stillframe.registry.gate import rules as given
from stillframe.registry.gate.evidence import EXPORT, GateEvidence, known_metrics
from stillframe.registry.gate.rules import GateRules

SEED = 0  # of the paired bootstrap: the same two models get the same verdict
SHOWN = 4  # names in a sentence


@dataclass(frozen=True)
class RuleResult:
    """One rule.

    Attributes:
        rule: its key in the file.
        value: what was measured, as text; "" when nothing could be.
        bound: what the rule asks.
        why: a sentence where the two do not speak for themselves.
        numbers: all that was measured, for verdict.json.
    """

    rule: str
    value: str
    bound: str
    passed: bool
    why: str = ""
    numbers: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def judge(rules: GateRules, new: GateEvidence, champion: GateEvidence | None, why_none: str) -> list[RuleResult]:
    """Every rule of a file, in its order.

    Args:
        rules: of conf/gate.
        new: the model that wants to be the champion.
        champion: the one that is; None: there is none to compare with.
        why_none: why there is none; begins with "no champion" or "the champion itself" where that is no fault of the
            new model, else the champion cannot be compared with and `champion.not_comparable` decides.

    Raises:
        ValueError: a rule names a metric that does not exist.
    """
    found: list[RuleResult] = []
    _can_be_asked(rules, new)
    if rules.champion is not None:
        found.append(_champion(rules.champion, new, champion, why_none))
    found += [_every_class(kind, least, new) for kind, least in rules.every_class.items()]
    found += [_metric("at_least", name, bound, new) for name, bound in rules.at_least.items()]
    found += [_metric("at_most", name, bound, new) for name, bound in rules.at_most.items()]
    if rules.export is not None:
        found += _export(rules.export, new.export)
    if rules.slices is not None:
        lenient = rules.champion is not None and rules.champion.not_comparable == "pass"
        found.append(_slices(rules.slices, new, champion, why_none, lenient))
    return found


def _can_be_asked(rules: GateRules, new: GateEvidence) -> None:
    """ValueError: a rule names a score that answers of this kind do not have."""
    known = comparable_metrics(new.task, new.predictions, new.classes)
    asked = [("champion", rules.champion.metric)] if rules.champion is not None else []
    asked += [("slices", rules.slices.metric)] if rules.slices is not None else []
    for key, name in asked:
        if name not in known:
            raise ValueError(f"gate: {key}.metric = {name}: no score of this model's answers: {nearest(name, known)}")


def no_fault(why_none: str) -> bool:
    """Whether there is no champion to be measured against, as opposed to one that cannot be compared with."""
    return why_none.startswith(("no champion", "the champion itself"))


def _champion(rule: given.ChampionRule, new: GateEvidence, champion: GateEvidence | None, why_none: str) -> RuleResult:
    bound = f"gain > {rule.least_gain:g}, beyond chance"
    key = f"champion.{rule.metric}"
    why = why_none or (new.incomparable(champion) if champion is not None else "")
    if champion is None or why:
        passed = no_fault(why_none) or rule.not_comparable == "pass"
        return RuleResult(key, "", bound, passed, why if no_fault(why_none) else f"not comparable: {why}")
    task, count = new.task, len(new.predictions)
    first, second = (make_scorer(task, model.predictions, new.classes) for model in (new, champion))
    gap = paired_difference(first, second, count, rule.metric, resamples=rule.resamples, seed=SEED)
    apart = mcnemar(*(task.evaluation.sample_scores(model.predictions) for model in (new, champion)))
    numbers = {
        "new": new.metrics[rule.metric],
        "champion": champion.metrics[rule.metric],
        "gain": gap.mean,
        "gain_low": gap.low,
        "gain_high": gap.high,
        "only_new_right": apart.first,
        "only_champion_right": apart.second,
        "mcnemar_p": apart.p,
        "images": count,
    }
    # McNemar's test decides where the metric is the share of samples that are right
    score = task.evaluation.SAMPLE_SCORE
    tested = score is None and rule.metric == task.lead
    sentence = f"the new one's {score} is higher on {apart.first} images, the champion's on {apart.second}"
    if score is None:
        sentence = f"only the new one is right on {apart.first} images, only the champion on {apart.second}"
    by_test = tested and rule.least_gain == 0.0
    passed = gap.mean > 0 and apart.p < 1 - LEVEL if by_test else gap.low > rule.least_gain
    value = f"{numbers['new']:.4f} against {numbers['champion']:.4f}: {gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]"
    said = [sentence, *([f"McNemar p = {apart.p:.3g}"] if tested else [])]
    return RuleResult(
        key, value, bound, bool(passed), "; ".join([*said, *filter(None, [new.doubt(champion)])]), numbers
    )


def _every_class(kind: str, least: float, new: GateEvidence) -> RuleResult:
    """The lowest of all classes; a class without test images cannot be judged, and that is a failure."""
    scores = {name: new.metrics.get(f"{kind}/{name}") for name in new.classes}
    known = {name: value for name, value in scores.items() if value is not None}
    without = [name for name in new.classes if name not in known]
    below = sorted((name for name, value in known.items() if value < least), key=lambda name: known[name])
    why = []
    if below:
        why.append(f"below it: {_listed(below)}")
    if without:
        why.append(f"no {kind} on the test images: {_listed(without)}")
    worst = min(known, key=lambda name: known[name]) if known else ""
    value = f"{known[worst]:.4f} ({worst}, the lowest of {len(known)})" if known else ""
    return RuleResult(
        f"every_class.{kind}", value, f">= {least:g}", not below and not without, "; ".join(why), dict(scores)
    )


def _metric(section: str, name: str, bound: float, new: GateEvidence) -> RuleResult:
    if name not in known_metrics(new):
        raise ValueError(f"gate: {section}.{name} = {bound}: no such metric: {nearest(name, known_metrics(new))}")
    sign = ">=" if section == "at_least" else "<="
    if name not in new.metrics:
        return RuleResult(f"{section}.{name}", "", f"{sign} {bound:g}", False, "not defined on these test images")
    value = new.metrics[name]
    passed = value >= bound if section == "at_least" else value <= bound
    return RuleResult(f"{section}.{name}", f"{value:.4f}", f"{sign} {bound:g}", passed, "", {name: value})


def _export(rule: given.ExportRule, export: dict[str, Any]) -> list[RuleResult]:
    """Bounds of the chosen file; a rule about a file that is not there is not met."""
    chosen: dict[str, Any] = next(
        (one for one in export.get("variants", []) if one.get("name") == export.get("chosen")), {}
    )
    found = []
    for name in ("megabytes", "latency_ms_p50", "latency_ms_p99", "changed_decisions"):
        bound = getattr(rule, name)
        if bound is None:
            continue
        value = chosen.get("bytes", None) if name == "megabytes" else chosen.get(name)
        if value is None:
            why = f"{EXPORT} does not say it" if chosen else f"nothing was exported: {EXPORT} is missing"
            found.append(RuleResult(f"export.{name}", "", f"<= {bound:g}", False, f"{why}: run `dvc repro`"))
            continue
        value = value / 1e6 if name == "megabytes" else value
        why = f"the file {chosen.get('file', '')} ({chosen['name']})"
        found.append(RuleResult(f"export.{name}", f"{value:.4g}", f"<= {bound:g}", value <= bound, why, {name: value}))
    return found


def _slices(
    rule: given.SlicesRule, new: GateEvidence, champion: GateEvidence | None, why_none: str, lenient: bool
) -> RuleResult:
    bound = f"no slice worse by more than {rule.worse_by:g}"
    key = f"slices.{rule.metric}"
    why = why_none or (new.incomparable(champion) if champion is not None else "")
    if champion is None or why:
        said = why if no_fault(why_none) else f"not comparable: {why}"
        return RuleResult(key, "", bound, no_fault(why_none) or lenient, said)
    if not new.slices:
        return RuleResult(key, "", bound, True, "the test images have no slices (evaluate.slices)")
    options: dict[str, Any] = {"resamples": 0, "seed": SEED, "source": new.predictions}
    ours, theirs = (
        slice_table(new.task, model.predictions, new.slices, new.classes, metrics=[rule.metric], **options)
        for model in (new, champion)
    )
    rows = ours.assign(champion=theirs[rule.metric], gain=ours[rule.metric] - theirs[rule.metric]).to_dict("records")
    numbers = {
        f"{row['slice']}={row['value']}": {
            "images": row["n"],
            "new": row[rule.metric],
            "champion": row["champion"],
            "gain": row["gain"],
        }
        for row in rows
    }
    judged = {name: row for name, row in numbers.items() if row["images"] >= rule.least_images}
    if not judged:
        return RuleResult(key, "", bound, True, f"no slice has {rule.least_images} images", numbers)
    order = sorted(judged, key=lambda name: judged[name]["gain"])
    worse = [name for name in order if judged[name]["gain"] < -rule.worse_by - 1e-12]
    low = judged[order[0]]
    value = f"{low['gain']:+.4f} ({order[0]}: {low['new']:.4f} against {low['champion']:.4f}, {low['images']} images)"
    small = len(numbers) - len(judged)
    notes = [f"worse: {_listed(worse)}"] if worse else []
    notes += [f"{small} slices have fewer than {rule.least_images} images"] if small else []
    return RuleResult(key, value, bound, not worse, "; ".join(notes), numbers)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
