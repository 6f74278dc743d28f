"""What values may be, shared by the sections."""

from __future__ import annotations

from pydantic import ConfigDict, Field

STRICT = ConfigDict(extra="forbid", strict=True)
Fraction = Field(ge=0.0, lt=1.0)
Positive = Field(gt=0)
AtLeast0 = Field(ge=0)
