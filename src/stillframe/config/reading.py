"""Reads sections of `params.yaml` into frozen dataclasses, and explains what does not fit.

`conf/` is composed into `params.yaml` by the first stage; every other stage reads the sections it needs from there.
An unknown, missing or ill-typed key is an error that names the key and the nearest right one.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from stillframe.config.data import AugmentConfig, DataConfig
from stillframe.config.evaluation import EvaluateConfig, ValidateConfig
from stillframe.config.export import ExportConfig
from stillframe.config.tracking import TrackingConfig
from stillframe.config.training import ModelConfig, OptimConfig, TrainerConfig
from stillframe.config.values import STRICT, AtLeast0
from stillframe.paths import PARAMS

TURNING = {"D4", "SquareSymmetry", "VerticalFlip", "RandomRotate90", "Transpose"}  # up does not stay up

TYPES: dict[str, Any] = {  # the sections of params.yaml
    "task": str,
    "seed": Annotated[int, AtLeast0],
    "data": DataConfig,
    "augment": AugmentConfig,
    "model": ModelConfig,
    "optim": OptimConfig,
    "trainer": TrainerConfig,
    "validate": ValidateConfig,
    "evaluate": EvaluateConfig,
    "export": ExportConfig,
    "tracking": TrackingConfig,
}


def nearest(name: str, names: Iterable[str]) -> str:
    """A hint for an error message: the nearest of `names`, or all of them when none is near."""
    names = sorted(names)
    lower = {candidate.lower(): candidate for candidate in reversed(names)}
    close = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.5)
    if close:
        return f"did you mean {lower[close[0]]!r}?"
    return "known: " + ", ".join(names[:40]) + (", ..." if len(names) > 40 else "")


def _keys_at(kind: Any, location: tuple[Any, ...]) -> list[str]:
    """The keys of the dataclass `kind`, or of the section inside it that `location` leads to."""
    for part in location:
        hint = get_type_hints(kind).get(part) if is_dataclass(kind) else None
        kind = next((inner for inner in (hint, *get_args(hint)) if is_dataclass(inner)), None)
    return [field.name for field in fields(kind)] if is_dataclass(kind) else []


def _explain(section: str, kind: Any, error: ValidationError, origin: str) -> str:
    """One line a fault: file, key, value, nearest right name."""
    lines = []
    for fault in error.errors(include_url=False):
        # pydantic's location also names the types of a union it tried, and marks the keys of a dict.
        location = tuple(part for part in fault["loc"] if part != "[key]" and not str(part)[:1].isupper())
        key = ".".join(map(str, (section, *location) if section else location))
        value = f"{key} = {fault['input']!r}"
        if fault["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            line = f"unknown key {value}: {nearest(str(location[-1]), _keys_at(kind, location[:-1]))}"
        elif fault["type"] in ("missing", "missing_argument"):
            line = f"{key} is missing"
        elif fault["type"] == "literal_error":
            options = [option.strip("'") for option in fault["ctx"]["expected"].replace(" or ", ", ").split(", ")]
            line = f"{value}: {nearest(str(fault['input']), options)}"
        else:
            line = f"{value}: {fault['msg']}"
        lines.append(f"{origin}: {line}" if origin else line)
    return "\n".join(dict.fromkeys(lines))


def build(section: str, values: Any, origin: str = str(PARAMS)) -> Any:
    """One section as its dataclass.

    Raises:
        ValueError: unknown, missing or ill-typed keys, one line each, with the nearest right name.
    """
    return checked(section, TYPES[section], values, origin)


def checked(section: str, kind: Any, values: Any, origin: str) -> Any:
    """Values as a strict dataclass, which need not be a section of params.yaml.

    Args:
        section: what stands before the keys in an error; "" for a file that is the section.
        kind: the dataclass, or a plain type.
        values: as YAML has them.
        origin: the file, for an error; "" for none.

    Raises:
        ValueError: as of `build`.
    """
    adapter = TypeAdapter(kind, config=None if is_dataclass(kind) else STRICT)
    try:
        return adapter.validate_json(json.dumps(values, default=str))  # dates, which no section has
    except ValidationError as error:
        raise ValueError(_explain(section, kind, error, origin)) from None


def read_params(*sections: str, path: Path = PARAMS) -> tuple[Any, ...]:
    """The named sections of params.yaml, in that order.

    Raises:
        FileNotFoundError: no params.yaml here.
        ValueError: not YAML, or a section with unknown, missing or ill-typed keys.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing: run `stillframe compose` in the repository's root") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not plain YAML: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds no sections: run `stillframe compose`")
    check_sections(values, origin=str(path))
    return tuple(build(section, values[section], origin=str(path)) for section in sections)


def check_sections(values: dict[str, Any], origin: str) -> None:
    """An unknown or missing top-level section is an error."""
    for name in values:
        if name not in TYPES:
            raise ValueError(f"{origin}: unknown section {name!r}: {nearest(str(name), TYPES)}")
    missing = [name for name in TYPES if name not in values]
    if missing:
        raise ValueError(f"{origin}: section {missing[0]!r} is missing: run `stillframe compose`")


def check_all(values: dict[str, Any], origin: str) -> None:
    """Check every section of a composed configuration (ValueError as in `build`)."""
    check_sections(values, origin)
    faults = []
    for section in TYPES:
        try:
            build(section, values[section], origin)
        except ValueError as error:
            faults.append(str(error))
    if faults:
        raise ValueError("\n".join(faults))


def transform_names(policy: list[Any]) -> set[str]:
    """The transforms of a policy that can come to pass, those inside OneOf and its kin included."""
    names: set[str] = set()
    for entry in policy:
        for name, arguments in entry.items():
            if arguments.get("p") != 0:
                names |= {name} | transform_names(arguments.get("transforms") or [])
    return names


def cautions(values: dict[str, Any]) -> list[str]:
    """What a checked configuration permits and hardly anybody means, one line each.

    So far: a policy that turns images upside down, for data that do not say that they have no up and no down. It is
    what `data=folder` inherits from the demo when no `augment` is named with it.
    """
    data, augment = values["data"], values["augment"]
    turning = sorted(transform_names(augment["offline"] + augment["online"]) & TURNING)
    if not turning or data["symmetry"] == "d4":
        return []
    return [
        f"augment = {augment['name']} turns images upside down ({', '.join(turning)}), but data.symmetry = "
        f"{data['symmetry']} of {data['name']}: take augment=upright, or, where an image has no up and no down, "
        "data.symmetry=d4"
    ]


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as `{"optim.lr": 0.001, ...}`; lists stay lists."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            out |= flat(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = value
    return out
