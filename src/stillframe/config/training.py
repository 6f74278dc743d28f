"""Sections about the net and how it learns."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from stillframe.config.values import STRICT, AtLeast0, Fraction, Positive


@dataclass(frozen=True, config=STRICT)
class ModelConfig:
    """Section `model`: which net, from which weights, which part of it learns."""

    name: str  # "plain_cnn", "textbook_cnn", any timm model; for masks "unet", "deeplabv3plus"; for clips also "r3d_18"
    encoder: str | None  # of a net for masks: any timm model with feature maps; null: for the others
    temporal: Literal["average", "gru", "lstm", "attention"] | None  # over a clip's frames; null: pictures, 3-D nets
    weights: str | None  # null, "hub", "package:<module>/<file>", or a path to .safetensors or .pth
    drop_rate: Annotated[float, Fraction]
    drop_path_rate: Annotated[float, Fraction]
    freeze: list[str]  # prefixes of parameter names that do not learn, e.g. ["conv_stem", "blocks.0"]
    unfreeze_after: int | None  # epochs after which everything learns; null: never
    normalise: Literal["auto", "weights", "data"]  # auto: the weights' mean/std if there are weights, else the data's


@dataclass(frozen=True, config=STRICT)
class ScheduleConfig:
    """Learning rate over the steps."""

    name: Literal["constant", "one_cycle", "cosine", "step"]
    warmup_fraction: Annotated[float, Fraction]  # of all steps
    final_fraction: Annotated[float, Field(ge=0.0, le=1.0)]  # of the peak rate, at the end


@dataclass(frozen=True, config=STRICT)
class DistillConfig:
    """A trained net whose probabilities are learnt beside the labels (Hinton et al. 2015)."""

    teacher: str  # a folder like artifacts/train, or runs:/<MLflow run id>
    temperature: Annotated[float, Positive]  # both nets' logits are divided by it
    weight: Annotated[float, Field(gt=0.0, le=1.0)]  # of the teacher; 1 - weight: of the labels


@dataclass(frozen=True, config=STRICT)
class OptimConfig:
    """Section `optim`: loss, optimizer, schedule, regularisation."""

    name: str  # a timm/torch optimizer: "AdamW", "SGD", "Adam", ...
    lr: Annotated[float, Positive]
    weight_decay: Annotated[float, Field(ge=0.0)]  # L2
    momentum: Annotated[float, Fraction]  # of SGD and its kin; others ignore it
    layer_decay: float | None  # each layer learns at this share of the rate of the one above it; null: all alike
    schedule: ScheduleConfig
    loss: str  # one of the task's: see tasks/<task>/README.md
    focal_gamma: Annotated[float, Field(ge=0.0)]
    label_smoothing: Annotated[float, Fraction]
    class_weights: Literal["none", "balanced"]
    sampler: Literal["shuffle", "balanced"]
    mixup: Annotated[float, Field(ge=0.0)]  # alpha of the Beta distribution; 0: off
    cutmix: Annotated[float, Field(ge=0.0)]
    l1: Annotated[float, Field(ge=0.0)]
    clip_norm: float | None  # gradient norm; null: no clipping
    accumulate: Annotated[int, Field(ge=1)]  # batches a step
    ema_decay: float | None  # exponential moving average of the weights; null: off
    distill: DistillConfig | None  # learn from a larger trained net, too; null: from the labels alone


@dataclass(frozen=True, config=STRICT)
class EarlyStoppingConfig:
    """Stop when the metric has not improved by `min_delta` for `patience` epochs."""

    metric: str
    patience: Annotated[int, Field(ge=1)]
    min_delta: Annotated[float, Field(ge=0.0)]


@dataclass(frozen=True, config=STRICT)
class TrainerConfig:
    """Section `trainer`: how long, on what, how fast."""

    max_epochs: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)]  # per device
    monitor: str  # the best epoch by this validation metric is kept
    early_stopping: EarlyStoppingConfig | None
    accelerator: Literal["auto", "cpu", "gpu"]
    devices: Annotated[int, Field(ge=0)]  # a node; 0: all GPUs, or one CPU process
    num_nodes: Annotated[int, Field(ge=1)]
    strategy: Literal["auto", "ddp", "fsdp"]
    precision: Literal["auto", "fp32", "bf16", "fp16"]  # auto: a probe of two seconds decides fp32 or bf16
    channels_last: bool
    compile: bool
    threads: Annotated[int, AtLeast0]  # CPU threads a process; 0: cores / processes
    workers: Annotated[int, AtLeast0]  # loader processes; 0: in the main process
    checkpoint_seconds: Annotated[float, Positive]  # how much work a crash may cost, at most
    max_nonfinite: Annotated[int, Field(ge=1)]  # so many NaN or infinite losses in a row stop the run
    find_lr: bool  # LR range test before training; its suggestion replaces optim.lr
    find_batch_size: bool  # the largest power of two that fits replaces trainer.batch_size
    overfit_batches: Annotated[int, AtLeast0]  # train and validate on the first so many train batches; 0: off
    limit_batches: Annotated[int, AtLeast0]  # train batches an epoch; 0: all
    resume_anyway: list[str]  # parameters ("optim.lr") that may differ from those of the interrupted run
