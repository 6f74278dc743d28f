"""docs/configuration.md names every key, its choices and its value in conf/, and no other."""

from __future__ import annotations

import re
import typing
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from stillframe import config
from stillframe.config import hydra_compose

ROOT = Path(__file__).parents[1]
TEXT, FETCH = (ROOT / "docs/configuration.md").read_text(encoding="utf-8").split("### `data.fetch`")
ROW = re.compile(r"^\| `([a-z0-9_.]+)` \| (.+?) \| (.*?) \| `(.+)` \|$", re.MULTILINE)
PAGE = {key: (values, conf) for key, values, _, conf in ROW.findall(TEXT)}
A_WHOLE = {"data.fetch", "data.masks", "data.clip", "augment.temporal"}  # null or all of it: a table of its own


def keys_of(name: str, kind: Any) -> dict[str, Any]:
    """Each key below a section, with its type."""
    inner = [part for part in (kind, *typing.get_args(kind)) if is_dataclass(part)]
    if not inner or name in A_WHOLE:
        return {name: kind}
    types = typing.get_type_hints(inner[0])
    found: dict[str, Any] = {}
    for field in fields(inner[0]):
        found |= keys_of(f"{name}.{field.name}", types[field.name])
    return found


KEYS = {key: kind for section, kind in config.TYPES.items() for key, kind in keys_of(section, kind).items()}
CHOICES = {key: typing.get_args(kind) for key, kind in KEYS.items() if typing.get_origin(kind) is Literal}


def test_the_page_has_every_key_and_no_other() -> None:
    assert len(KEYS) > 90
    assert sorted(PAGE) == sorted(KEYS)


@pytest.mark.parametrize("key", CHOICES)
def test_the_choices_of_a_key_are_those_of_the_page(key: str) -> None:
    assert PAGE[key][0].split(", ") == list(CHOICES[key])


def test_the_values_are_those_of_conf() -> None:
    values = hydra_compose.compose(["data=folder"], ROOT / "conf")
    shown = {key: yaml.safe_load(conf) for key, (_, conf) in PAGE.items() if conf != "see the file"}
    found = {key: value_at(values, key) for key in shown}
    assert found == shown


def value_at(values: dict[str, Any], key: str) -> Any:
    """`values["a"]["b"]` of "a.b"."""
    for part in key.split("."):
        values = values[part]
    return values


def test_the_kinds_of_a_fetch_are_named() -> None:
    head, *rows = re.findall(r"^\|(.+)\|$", FETCH, re.MULTILINE)
    assert re.findall(r"`(\w+)`", head) == [field.name for field in fields(config.FetchConfig)]
    kinds = [match[1] for row in rows if (match := re.match(r" `(\w+)`", row))]
    assert sorted(kinds) == sorted(typing.get_args(typing.get_type_hints(config.FetchConfig)["kind"]))
