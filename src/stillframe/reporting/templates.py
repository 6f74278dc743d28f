"""One way to read a page's template: nothing undefined passes, and what is shown is escaped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment

HERE = Path(__file__).parent


def environment(*folders: Path, autoescape: bool = True, **filters: Callable[..., str]) -> Environment:
    """Templates of `folders`, and of this one, which has head.html; `autoescape=False` for what is not HTML."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    templates = Environment(
        loader=FileSystemLoader([*folders, HERE]),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= filters
    return templates


def thousands(value: float | str) -> str:
    """1234567 as 1,234,567; text stays."""
    return value if isinstance(value, str) else f"{value:,}"
