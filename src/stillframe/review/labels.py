"""Answers of one class a sample: logits of all samples are kept, and all else is computed from them."""

from __future__ import annotations

from pathlib import Path

from stillframe.config import ValidateConfig
from stillframe.evaluation.choices import choose
from stillframe.evaluation.decisions import with_decisions
from stillframe.evaluation.tables import write_tables, write_validation_tables
from stillframe.inference.split_predictor import SplitPredictor
from stillframe.models.trained import load_net
from stillframe.review.base import Choices, EvaluationContext, Review
from stillframe.types import DatasetCard


def validate(
    asking: SplitPredictor, section: ValidateConfig, card: DatasetCard, out: Path
) -> tuple[dict[str, float], Choices]:
    """Tune temperature and threshold, and score the validation split with them."""
    predictions = asking()
    choices = choose(predictions, section, card, asking.tta)
    predictions = with_decisions(predictions, choices)
    predictions.to_parquet(out / "predictions.parquet", index=False)
    return write_validation_tables(predictions, card, section.bins, out), choices


def evaluate(asking: SplitPredictor, tested: EvaluationContext) -> dict[str, float]:
    """Scores with intervals, tables, the gallery of errors, explanations."""
    from stillframe.reporting.gallery import draw_explanations, draw_gallery

    card, section, out = tested.card, tested.section, tested.out
    predictions = with_decisions(asking(), tested.choices)
    predictions.to_parquet(out / "predictions.parquet", index=False)
    metrics, gallery = write_tables(
        predictions,
        card,
        out,
        bins=tested.choices["bins"],
        seed=tested.seed,
        bootstrap=section.bootstrap,
        slices=list(dict.fromkeys([*card.slices, *section.slices])),
        gallery=section.gallery,
    )
    draw_gallery(gallery, asking.split, out)
    net, _ = load_net(asking.trained)
    draw_explanations(net, predictions, card, asking.split, section.explain, out / "explain")
    return metrics


REVIEW = Review(
    validate=validate,
    evaluate=evaluate,
    shown=(("accuracy", "f1_macro", "auroc", "ece"), ("accuracy", "f1_macro", "recall_macro", "ece")),
)
