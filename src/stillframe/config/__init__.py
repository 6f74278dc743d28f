"""The parameters, as frozen dataclasses without default values, one file for each part of the way."""

from stillframe.config.answers import Bound, Evaluate, Export, Prune, Tracking, Validate
from stillframe.config.data import Augment, Clip, Columns, Data, Fetch, Masks, Temporal
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
)
from stillframe.config.training import Distill, EarlyStopping, Model, Optim, Schedule, Trainer
from stillframe.config.values import STRICT, AtLeast0, Fraction, Positive

__all__ = [
    "AtLeast0",
    "Augment",
    "Bound",
    "Clip",
    "Columns",
    "Data",
    "Distill",
    "EarlyStopping",
    "Evaluate",
    "Export",
    "Fetch",
    "Fraction",
    "Masks",
    "Model",
    "Optim",
    "Positive",
    "Prune",
    "STRICT",
    "Schedule",
    "TYPES",
    "Temporal",
    "Tracking",
    "Trainer",
    "Validate",
    "build",
    "cautions",
    "check_all",
    "check_sections",
    "checked",
    "flat",
    "nearest",
    "read_params",
]
