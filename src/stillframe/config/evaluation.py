"""Sections `validate` and `evaluate`: what is tuned on the validation split, and how the test split is scored."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from stillframe.config.values import STRICT, AtLeast0


@dataclass(frozen=True, config=STRICT)
class ValidateConfig:
    """Section `validate`: what is tuned on the validation split and frozen, and the bar a model must pass."""

    batch_size: Annotated[int, Field(ge=1)]
    tta: Literal["data", "none"]  # test-time augmentation: logits averaged over the views of data.symmetry
    calibrate: bool  # temperature scaling
    threshold: Literal[
        "auto", "f1", "argmax"
    ]  # f1 tunes a binary decision by macro F1; auto: where there are two classes
    bins: Annotated[int, Field(ge=2)]  # of the reliability curve and the ECE
    require: dict[str, float]  # metric -> the lowest value that passes; the highest where lower is better


@dataclass(frozen=True, config=STRICT)
class EvaluateConfig:
    """Section `evaluate`: how the test split is reported."""

    batch_size: Annotated[int, Field(ge=1)]
    bootstrap: Annotated[int, AtLeast0]  # resamples for the 95 % intervals
    slices: list[str]  # "size", "mode"; the columns in data.columns.slices are always reported
    gallery: Annotated[int, AtLeast0]  # images in the error gallery
    explain: Annotated[int, AtLeast0]  # explanations (Grad-CAM) of errors, and as many of right answers
