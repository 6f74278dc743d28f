"""The sections of params.yaml, as frozen dataclasses without default values."""

from stillframe.config.data import (
    AugmentConfig,
    ClipConfig,
    ColumnsConfig,
    DataConfig,
    FetchConfig,
    TargetFilesConfig,
    TemporalConfig,
)
from stillframe.config.evaluation import EvaluateConfig, ValidateConfig
from stillframe.config.export import ExportConfig, ParityBound, PruneConfig
from stillframe.config.reading import (
    TYPES,
    build,
    cautions,
    check_all,
    check_sections,
    checked,
    flat,
    nearest,
    read_params,
    transform_names,
)
from stillframe.config.tracking import TrackingConfig
from stillframe.config.training import (
    DistillConfig,
    EarlyStoppingConfig,
    ModelConfig,
    OptimConfig,
    ScheduleConfig,
    TrainerConfig,
)
from stillframe.config.values import STRICT, AtLeast0, Fraction, Positive

__all__ = [
    "AtLeast0",
    "AugmentConfig",
    "ParityBound",
    "ClipConfig",
    "ColumnsConfig",
    "DataConfig",
    "DistillConfig",
    "EarlyStoppingConfig",
    "EvaluateConfig",
    "ExportConfig",
    "FetchConfig",
    "Fraction",
    "TargetFilesConfig",
    "ModelConfig",
    "OptimConfig",
    "Positive",
    "PruneConfig",
    "STRICT",
    "ScheduleConfig",
    "TYPES",
    "TemporalConfig",
    "TrackingConfig",
    "TrainerConfig",
    "ValidateConfig",
    "build",
    "cautions",
    "check_all",
    "check_sections",
    "checked",
    "flat",
    "nearest",
    "read_params",
    "transform_names",
]
