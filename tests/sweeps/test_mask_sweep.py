"""The page about a sweep of models that answer masks: intervals over images, and the images that tell them apart."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
import yaml

from segmented import VALIDATE, Made, card, logits, validate, write_split
from stillframe.sweeps.comparison import write_page
from stillframe.sweeps.comparison.candidates import SweepComparison
from stillframe.sweeps.store import Repeat, Sweep, Trial


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """Two trials: the second one's logits are noisier."""
    folder = tmp_path_factory.mktemp("sweep")
    known = {"name": "made", "root": str(folder), "command": "sweep", "head": "0" * 40, "commit": "0" * 40}
    known |= {
        "task": "segmentation",
        "objectives": ["val/iou_macro"],
        "directions": ["maximize"],
        "seeds": 1,
        "folds": 0,
        "repeats": 1,
    }
    known |= {"tracking_uri": "none", "started": 1.7e9, "parent_run": "p", "state": "finished"}
    made = Sweep(folder / "sweeps/made", known).write()
    split = write_split(folder / "data/prepared/val", 12)
    card().write(folder / "data/prepared/card.json")
    for number, noise in enumerate((0.5, 3.0)):
        rng = np.random.default_rng(number)
        place = made.trial_folder(number) / "r0"
        place.mkdir(parents=True)

        def answer(image: np.ndarray, noise: float = noise, rng: np.random.Generator = rng) -> np.ndarray:
            return logits(image) + noise * rng.normal(size=(len(image), 3, *image.shape[2:])).astype(np.float32)

        metrics, _ = validate(Made(split, answer=answer), VALIDATE, card(), place)
        shutil.move(place / "predictions.parquet", place / "val_predictions.parquet")
        (place / "params.yaml").write_text(
            yaml.safe_dump({"task": "segmentation", "data": {"name": "made"}}), encoding="utf-8"
        )
        values = {f"val/{name}": value for name, value in metrics.items()}
        values |= {"train/seconds": 10.0, "train/parameters": 100.0, "test/iou_macro": 0.5, "test/accuracy": 0.5}
        run = Repeat(0, 0, None, "finished", f"run{number}", f"made-{number}", "f" * 40, values)
        made.save(Trial(number, [f"optim.lr=1e-{number + 2}"], "finished", [metrics["iou_macro"]], [run]))
    return made


def test_candidates_are_ranked_with_intervals_over_the_images(sweep: Sweep) -> None:
    first, second = SweepComparison(sweep).ranked
    scores = [json.loads((sweep.trial_folder(at) / "r0/metrics.json").read_text())["iou_macro"] for at in (0, 1)]
    assert (first.trial.number, second.trial.number) == (0, 1)
    assert [first.score.mean, second.score.mean] == pytest.approx(scores, abs=1e-9)
    assert first.score.low < first.score.mean < first.score.high
    assert second.gap is not None and second.gap.mean == pytest.approx(scores[1] - scores[0], abs=1e-9)
    assert second.verdict == "worse"


def test_the_page_shows_the_images_that_tell_them_apart(sweep: Sweep) -> None:
    page = write_page.write(sweep)[0].read_text(encoding="utf-8")
    words = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    assert "Numbers: pixels" in words and words.count(" IoU ") >= 24
    assert "labelled" not in words and "both right" not in words
    assert "3.png" in words and page.count('class="tiny"') == 12
