"""Sorting names as people do: numbers by value."""

from __future__ import annotations

import math


def natural_key(text: str) -> tuple[int, float, str]:
    """Sort key of a name: numbers by value and before words, so that "10" follows "9"."""
    try:
        number = float(text)
    except ValueError:
        return 1, 0.0, text
    return (0, number, text) if math.isfinite(number) else (1, 0.0, text)
