"""The gate on masks: two models paired image by image, and rules that do not fit what is answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segmented import Made, card, evaluate, logits, write_split
from stillframe.paths import write_json
from stillframe.registry.gate import checks, evidence, rules
from stillframe.registry.gate.evidence import GateEvidence

GAIN = {"metric": "iou_macro", "least_gain": 0.0, "resamples": 2000, "not_comparable": "fail"}
NOTHING: dict[str, Any] = {"champion": None, "every_class": {}, "at_least": {}, "at_most": {}}


def model(folder: Path, noise: float) -> GateEvidence:
    """A model whose logits are as noisy as that."""
    rng = np.random.default_rng(3)

    def answer(image_BCHW: np.ndarray) -> np.ndarray:
        clean = logits(np.repeat(image_BCHW.mean(1, keepdims=True), 3, axis=1))
        return clean + noise * rng.normal(size=clean.shape).astype(np.float32)

    split = write_split(folder / "test", 12)
    (folder / "evaluate").mkdir()
    evaluate(Made(split, answer=answer), folder / "evaluate")
    card().write(folder / "card.json")
    write_json(folder / "run.json", {"dvc": {}})
    write_json(folder / "model.json", {"task": "segmentation"})
    return evidence.of_checkout(folder / "evaluate", folder, folder, folder / "none.json")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[GateEvidence, GateEvidence]:
    return model(tmp_path_factory.mktemp("good"), 0.3), model(tmp_path_factory.mktemp("bad"), 3.0)


def asked(**values: Any) -> rules.GateRules:
    known = {**NOTHING, "export": None, "slices": None, **values}
    champion = rules.ChampionRule(**known["champion"]) if known["champion"] else None
    slices = rules.SlicesRule(**known["slices"]) if known["slices"] else None
    return rules.GateRules(**{**known, "champion": champion, "slices": slices})


@pytest.mark.parametrize("metric", ["iou_macro", "f1_macro", "accuracy", "boundary_f1"])
def test_the_better_of_two_models_is_found_on_the_same_images(
    models: tuple[GateEvidence, GateEvidence], metric: str
) -> None:
    good, bad = models
    for new, old, passed in ((good, bad, True), (bad, good, False), (good, good, False)):
        (found,) = checks.judge(asked(champion={**GAIN, "metric": metric}), new, old, "")
        assert found.passed == passed, found
        assert found.numbers["gain"] == pytest.approx(new.metrics[metric] - old.metrics[metric], abs=1e-9)
    assert "higher on 12 images" in checks.judge(asked(champion=GAIN), good, bad, "")[0].why


def test_classes_and_slices_have_their_rules(models: tuple[GateEvidence, GateEvidence]) -> None:
    good, bad = models
    sections = {"every_class": {"iou": 0.5}, "slices": {"metric": "iou_macro", "worse_by": 0.05, "least_images": 5}}
    assert [one.passed for one in checks.judge(asked(**sections), good, bad, "")] == [True, True]
    assert [one.passed for one in checks.judge(asked(**sections), bad, good, "")] == [False, False]


def test_a_rule_about_labels_is_refused(models: tuple[GateEvidence, GateEvidence]) -> None:
    with pytest.raises(ValueError, match=r"champion\.metric = balanced_accuracy: no score of this model's answers"):
        checks.judge(asked(champion={**GAIN, "metric": "balanced_accuracy"}), *models, "")
