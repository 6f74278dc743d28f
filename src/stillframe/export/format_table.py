"""The table of the variants, for a terminal."""

from __future__ import annotations

from typing import Any

from stillframe.tasks.base import Task


def _size(count: float) -> str:
    """Bytes as "13.4 MB"."""
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"


def _score(row: dict[str, Any], name: str) -> str:
    """A score with its interval."""
    text = f"{row['metrics'][name]:.4f}"
    bounds = row["intervals"].get(name)
    return f"{text} [{bounds[0]:.3f}, {bounds[1]:.3f}]" if bounds else text


def format_table(table: dict[str, Any], task: Task) -> str:
    """All variants, one a line, the chosen one marked; the model above them."""
    model, output = table["model"]["metrics"], task.output
    difference, titles = f"max_{output.difference}_difference", [task.metric(name).noun for name in model]
    rate = "clips/s" if "frames" in table else "images/s"
    head = ("variant", "size", "p50 ms", "p99 ms", rate, *titles, "largest dp", "changed")
    lines = [head, ("the model", "", "", "", "", *(f"{value:.4f}" for value in model.values()), "", "")]
    compared = f"{table[output.unit]:,}" + (" px" if output.unit == "pixels" else "")
    for row in table["variants"]:
        mark = " *" if row["name"] == table["chosen"] and len(table["variants"]) > 1 else ""
        speed = (f"{row['latency_ms_p50']:.1f}", f"{row['latency_ms_p99']:.1f}", f"{row['images_per_s']:,.0f}")
        distance = (f"{row[difference]:.1e}", f"{row['changed_decisions']} of {compared}")
        scores = tuple(_score(row, name) for name in model)
        lines.append((row["name"] + mark, _size(row["bytes"]), *speed, *scores, *distance))
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
