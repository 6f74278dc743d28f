"""`validate.require`: the lowest scores with which a model may go on to the test split."""

from __future__ import annotations

from typing import Any

from stillframe.config import nearest


def check_requirements(metrics: dict[str, float], require: dict[str, float]) -> dict[str, Any]:
    """Whether all requirements are met (`passed`), and each with its number (`rules`), for choices.json.

    Raises:
        ValueError: a requirement on a metric that does not exist; with the nearest right name.
    """
    rules = []
    for metric, least in require.items():
        if metric not in metrics:
            raise ValueError(
                f"validate.require.{metric} = {least}: no such metric on this split: {nearest(metric, metrics)}"
            )
        rules.append({"metric": metric, "least": least, "value": metrics[metric], "passed": metrics[metric] >= least})
    return {"passed": all(rule["passed"] for rule in rules), "rules": rules}


def refusal(verdict: dict[str, Any]) -> str:
    """The requirements that were not met, with their numbers."""
    lines = [
        f"  {rule['metric']}: {rule['value']:.4f}, at least {rule['least']} is required"
        for rule in verdict["rules"]
        if not rule["passed"]
    ]
    return "the model does not pass validate.require, so it does not meet the test split:\n" + "\n".join(lines)
