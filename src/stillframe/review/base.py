"""What a kind of answer is to the stages after training: one frozen bundle of functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillframe.config import EvaluateConfig, ValidateConfig
from stillframe.inference.split_predictor import SplitPredictor
from stillframe.types import DatasetCard

Choices = dict[str, Any]  # choices.json: what is tuned on the validation split and frozen


@dataclass(frozen=True)
class EvaluationContext:
    """What evaluate knows besides the net's answers.

    Attributes:
        card: of the data set.
        choices: frozen by validate.
        seed: of the bootstrap.
        section: `evaluate`.
        out: artifacts/evaluate, an empty folder.
    """

    card: DatasetCard
    choices: Choices
    seed: int
    section: EvaluateConfig
    out: Path


@dataclass(frozen=True)
class Review:
    """How answers of one kind are tuned, scored and shown.

    Attributes:
        validate: tunes what can be tuned, and writes predictions.parquet and the tables of the validation split into
            a folder -> (metrics, choices).
        evaluate: scores the test split with the frozen choices, and writes all that is shown of it -> metrics. Slices
            are those of the card and those of the section.
        shown: metrics of one line on the terminal, those of validate and those of evaluate.
    """

    validate: Callable[[SplitPredictor, ValidateConfig, DatasetCard, Path], tuple[dict[str, float], Choices]]
    evaluate: Callable[[SplitPredictor, EvaluationContext], dict[str, float]]
    shown: tuple[tuple[str, ...], tuple[str, ...]]
