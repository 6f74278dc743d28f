"""Sections about a trained net: what is tuned, how it is scored, exported and recorded."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from stillframe.config.values import STRICT, AtLeast0, Fraction, Positive


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
    explain: Annotated[int, AtLeast0]  # Grad-CAM pictures of errors, and as many of right answers


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


@dataclass(frozen=True, config=STRICT)
class TrackingConfig:
    """Section `tracking`: the MLflow record; `MLFLOW_TRACKING_URI` goes before `uri`."""

    experiment: str
    uri: str | None  # null: sqlite in the repository
    timeout_s: Annotated[float, Positive]  # of one request
    flush_s: Annotated[float, Positive]  # how long the end of a stage waits for metrics that are still to be sent
