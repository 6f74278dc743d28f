"""`validate.require`: the worst scores with which a model may go on to the test split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stillframe.config import nearest
from stillframe.tasks.base import Metric


def check_requirements(
    metrics: dict[str, float], require: dict[str, float], named: Mapping[str, Metric]
) -> dict[str, Any]:
    """Whether all requirements are met (`passed`), and each with its number (`rules`), for choices.json.

    Args:
        metrics: of the validation split.
        require: metric -> the lowest value that passes (`least`), or the highest (`most`) where lower is better.
        named: the task's metrics by name.

    Raises:
        ValueError: a requirement on a metric that does not exist; with the nearest right name.
    """
    rules = []
    for name, bound in require.items():
        if name not in metrics:
            hint = nearest(name, metrics)
            raise ValueError(f"validate.require.{name} = {bound}: no such metric on this split: {hint}")
        value, maximize = metrics[name], named[name].maximize
        passed = value >= bound if maximize else value <= bound
        rules.append({"metric": name, "least" if maximize else "most": bound, "value": value, "passed": passed})
    return {"passed": all(rule["passed"] for rule in rules), "rules": rules}


def bound_of(rule: Mapping[str, Any]) -> str:
    """The bound of a rule of choices.json, as text."""
    return f"at least {rule['least']}" if "least" in rule else f"at most {rule['most']}"


def refusal(verdict: dict[str, Any]) -> str:
    """The requirements that were not met, with their numbers."""
    lines = [
        f"  {rule['metric']}: {rule['value']:.4f}, {bound_of(rule)} is required"
        for rule in verdict["rules"]
        if not rule["passed"]
    ]
    return "the model does not pass validate.require, so it does not meet the test split:\n" + "\n".join(lines)
