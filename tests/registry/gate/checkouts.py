"""Made checkouts for the gate: what train, evaluate and preprocess leave, with answers as wrong as is asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from predicted import classification_scores
from stillframe.paths import write_json
from stillframe.types import DatasetCard

CLASSES = ["ant", "bee", "cat"]
IMAGES = 300


def answers(wrong: int, first: int = 0, images: int = IMAGES, names: str = "made") -> pd.DataFrame:
    """Predictions that are wrong on `wrong` images from `first` on; every third image is of the camera "old"."""
    label = np.arange(images, dtype=np.int32) % len(CLASSES)
    said = label.copy()
    said[first : first + wrong] = (said[first : first + wrong] + 1) % len(CLASSES)
    probabilities = np.full((images, len(CLASSES)), 0.05)
    probabilities[np.arange(images), said] = 0.9
    return pd.DataFrame(
        {
            "index": np.arange(images),
            "id": [f"{names}/{at:03d}.png" for at in range(images)],
            "label": label,
            "predicted": said,
            "confidence": probabilities.max(1),
            "probabilities": list(probabilities),
            "source_width": 40,
            "source_height": 30,
            "source_mode": "RGB",
            "slices": [json.dumps({"camera": "old" if at >= 200 else "new"}) for at in range(images)],
        }
    )


def write_run(folder: Path, predictions: pd.DataFrame, weights: str = "weights", **origin: Any) -> None:
    """artifacts/ and data/prepared/card.json of a run with these answers."""
    evaluated, trained = folder / "artifacts/evaluate", folder / "artifacts/train"
    for path in (evaluated, trained, folder / "data/prepared"):
        path.mkdir(parents=True, exist_ok=True)
    predictions.to_parquet(evaluated / "predictions.parquet", index=False)
    probabilities = np.stack(predictions["probabilities"].to_list())
    scores, _ = classification_scores(predictions["label"], probabilities, CLASSES, 15, predictions["predicted"])
    write_json(evaluated / "metrics.json", scores)
    pd.DataFrame({"slice": ["camera"] * 2, "value": ["new", "old"]}).to_csv(evaluated / "slices.csv", index=False)
    counts = {split: {name: 10 for name in CLASSES} for split in ("train", "val", "test")}
    DatasetCard("insects", CLASSES, counts, 3, 8, 8, [0.5], [0.2], ["camera"], "5" * 64).write(
        folder / "data/prepared/card.json"
    )
    (trained / "model.safetensors").write_text(weights, encoding="utf-8")
    write_json(trained / "model.json", {"task": "classification"})
    hashes = {"preprocess/deps/data/source": "source.dir"}
    write_json(trained / "run.json", {"journal": "made", "dvc": hashes, **origin})


def write_export(folder: Path, **values: Any) -> None:
    """artifacts/export/export.json with one variant."""
    variant = {"name": "fp32", "file": "model.onnx", "bytes": 12_000_000, "latency_ms_p50": 4.0, "latency_ms_p99": 9.0}
    variants = [{**variant, "changed_decisions": 0, **values}, {**variant, "name": "int8", "bytes": 1}]
    write_json(folder / "artifacts/export/export.json", {"chosen": "fp32", "variants": variants})


def params(folder: Path) -> None:
    """The repository's params.yaml."""
    text = (Path(__file__).parents[3] / "params.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(text)["tracking"]["experiment"] == "stillframe"
    (folder / "params.yaml").write_text(text, encoding="utf-8")
