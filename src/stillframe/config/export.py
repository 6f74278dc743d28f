"""Section `export`: the exported file, the smaller ones beside it, and how they are measured."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from stillframe.config.values import STRICT, AtLeast0, Fraction, Positive


@dataclass(frozen=True, config=STRICT)
class ParityBound:
    """How far an exported file's answers over the raw test files may lie from the model's."""

    probability: Annotated[float, Field(ge=0.0, le=1.0)]  # largest difference of any probability
    decisions: Annotated[float, Field(ge=0.0, le=1.0)]  # share of the test images that may be decided otherwise


@dataclass(frozen=True, config=STRICT)
class PruneConfig:
    """How much is taken out of a net, and how it learns to do without."""

    share: Annotated[float, Fraction]  # of the weights (sparse), or of the channels of each layer (slim)
    epochs: Annotated[int, AtLeast0]
    lr: Annotated[float, Positive]


@dataclass(frozen=True, config=STRICT)
class ExportConfig:
    """Section `export`: the file, the smaller ones beside it, and how they are measured."""

    variants: list[Literal["fp32", "fp16", "int8", "sparse", "slim"]]  # fp32 is always made
    choose: Literal["fp32", "fp16", "int8", "sparse", "slim", "smallest_within"]  # what model.onnx is
    within: dict[str, float]  # smallest_within: score -> how far below fp32 on the validation split it may be
    bound: ParityBound  # of fp32
    batch_size: Annotated[int, Field(ge=1)]
    threads: Annotated[int, AtLeast0]  # of ONNX Runtime, and for reading; 0: all cores
    latency_runs: Annotated[int, Field(ge=3)]  # timed calls, at most; two seconds of them
    bootstrap: Annotated[int, AtLeast0]  # resamples for the 95 % intervals
    calibrate: Annotated[int, Field(ge=1)]  # validation images that the ranges of int8 are seen on
    sparse: PruneConfig
    slim: PruneConfig
