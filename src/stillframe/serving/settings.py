"""Settings of a server: settings.yaml of this folder, changed by the user's file and flags."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field
from pydantic.dataclasses import dataclass

from stillframe.config import STRICT, AtLeast0, Positive, checked

DEFAULTS = Path(__file__).with_name("settings.yaml")
KEY_VARIABLE = "STILLFRAME_API_KEY"


@dataclass(frozen=True, config=STRICT)
class ServingSettings:
    """The settings; settings.yaml says what each is, docs/serve.md why."""

    host: str
    port: Annotated[int, Field(ge=0, le=65535)]
    threads: Annotated[int, AtLeast0]
    calls: Annotated[int, Field(ge=1)]
    batch: Annotated[int, Field(ge=1)]
    wait_ms: Annotated[float, Field(ge=0.0)]
    max_body_mb: Annotated[float, Positive]
    max_images: Annotated[int, Field(ge=1)]
    max_megapixels: Annotated[float, Positive] | None
    max_seconds: Annotated[float, Positive]
    max_requests: Annotated[int, Field(ge=1)]
    max_explained: Annotated[int, AtLeast0]
    timeout_s: Annotated[float, Positive]
    drain_s: Annotated[float, Positive]
    access_log: bool

    @property
    def max_body(self) -> int:
        """Bytes of one request's body."""
        return int(self.max_body_mb * 1e6)


def read(file: Path | None = None, **flags: Any) -> ServingSettings:
    """The settings: those of settings.yaml, then those of `file`, then the flags that are not None.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not YAML, or an unknown or ill-typed key, with the nearest right one.
    """
    values, origin = _mapping(DEFAULTS), "serve"
    if file is not None:
        if not file.is_file():
            raise FileNotFoundError(f"--config {file} is not a file")
        values |= _mapping(file)
        origin = str(file)
    values |= {name: value for name, value in flags.items() if value is not None}
    settings: ServingSettings = checked("serve", ServingSettings, values, origin)
    return settings


def _mapping(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not plain YAML: {str(error).splitlines()[0]}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ValueError(f"{path}: keys and values are expected, as in {DEFAULTS}")
    return values


def keys(text: str | None) -> tuple[bytes, ...]:
    """The API keys of the environment variable, several between commas (so that one can be replaced); none: open.

    Raises:
        ValueError: the variable is set and holds no key: a server that was meant to be locked must not stand open.
    """
    if text is None:
        return ()
    api_keys = tuple(part.strip().encode() for part in text.split(",") if part.strip())
    if not api_keys:
        raise ValueError(f"{KEY_VARIABLE} is set and holds no key: give it one, or unset it")
    return api_keys
