"""Made inputs of the report: the files that the stages before it write."""

import json

import cv2
import numpy as np
import pandas as pd

from stillframe.evaluation.write_tables import write_evaluation, write_validation
from stillframe.paths import write_json
from stillframe.tasks import find_task
from stillframe.tasks.calibration import softmax
from stillframe.types import DatasetCard


def predictions(samples, classes, seed, strength=3.0, temperature=1.4):
    rng = np.random.default_rng(seed)
    label = rng.choice(classes, samples, p=np.linspace(2, 1, classes) / np.linspace(2, 1, classes).sum())
    label[:classes] = np.arange(classes)
    logits = (1.3 * rng.normal(size=(samples, classes)) + strength * np.eye(classes)[label]).astype(np.float32)
    probabilities = softmax(logits, temperature)
    return pd.DataFrame(
        {
            "index": np.arange(samples),
            "id": [f"images/cell{at:04d}.png" for at in range(samples)],
            "label": label.astype(np.int32),
            "predicted": probabilities.argmax(1).astype(np.int32),
            "confidence": probabilities.max(1),
            "logits": list(logits),
            "probabilities": list(probabilities),
            "source_width": rng.choice([40, 300], samples),
            "source_height": 300,
            "source_mode": "L",
            "slices": [json.dumps({"maker": ["mono", "poly"][at % 3 == 0]}) for at in range(samples)],
        }
    )


def picture(path, side, seed, width=None):
    rng = np.random.default_rng(seed)
    image = cv2.resize(rng.integers(40, 220, (6, 6), dtype=np.uint8), (width or side, side))
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def make_stages(root, classes, samples=334, side=96, gallery=6):
    """Write what preprocess, augment, train, validate and evaluate leave; returns the folders, in that order."""
    folders = [root / name for name in ("prepared", "augmented", "train", "validate", "evaluate")]
    prepared, augmented, trained, validated, evaluated = folders
    test, val = predictions(samples, len(classes), 1), predictions(samples, len(classes), 2)
    counts = {
        "train": {name: samples * 4 // (at + 2) for at, name in enumerate(classes)},
        "val": {name: int((val["label"] == at).sum()) for at, name in enumerate(classes)},
        "test": {name: int((test["label"] == at).sum()) for at, name in enumerate(classes)},
    }
    card = DatasetCard("elpv", classes, counts, 1, side, side, [0.5], [0.2], ["maker"], "3f" * 32)
    card.write(prepared / "card.json")
    write_json(
        prepared / "audit.json",
        {
            "listed": 2624,
            "kept": 2223,
            "left_out": {"0.333": 295, "0.667": 106},
            "quarantined": {"truncated": 3, "conflict": 2},
            "exact": {"groups": 2, "images": 4},
            "near": {"groups": 5, "images": 11},
            "conflicts": 2,
            "modes": {"L": 2223},
            "formats": {"PNG": 2000, "JPEG": 223},
            "sizes": {"300 x 300": 2223},
            "leaks": {"exact_removed": 1, "exact_across_splits": 0, "near_pairs_across_splits": 0},
            "warnings": ["class folder 'unsorted' is empty and is no class"],
        },
    )
    bad = pd.DataFrame({"path": ["images/a <b>.png", "images/ü.jpg"], "reason": ["truncated: 12 bytes", "conflict"]})
    bad.assign(sha256="00", label="x").to_csv(prepared / "quarantine.csv", index=False)
    transforms = [{"HorizontalFlip": {"p": 0.5}}, {"RandomBrightnessContrast": {"brightness_limit": [-0.15, 0.15]}}]
    policy = {"name": "light", "offline": [], "copies": 0, "balance": "none", "online": transforms, "where": "auto"}
    write_json(augmented / "policy.json", policy)
    picture(augmented / "preview.png", 300, 0, width=900)
    make_training(trained)
    write_validation(find_task("classification"), val, card, {"bins": 15}, validated)
    rules = [{"metric": "f1_macro", "least": 0.6, "value": 0.88, "passed": True}]
    choices = {"temperature": 1.4, "threshold": None, "tta": "none", "bins": 15, "notes": []}
    write_json(validated / "choices.json", {**choices, "verdict": {"passed": True, "rules": rules}})
    options = {"seed": 0, "bootstrap": 200, "slices": ["maker", "size"], "gallery": gallery}
    _, errors = write_evaluation(find_task("classification"), test, card, {"bins": 15}, evaluated, **options)
    for file in errors["file"]:
        picture(evaluated / file, side, int(file[-7:-4]))
    explained = errors.head(2).assign(kind="error", method="Grad-CAM")
    right = explained.assign(kind="right", predicted=explained["actual"])
    explained = pd.concat([explained, right], ignore_index=True)
    explained["file"] = [f"{at:02d}.png" for at in range(len(explained))]
    for file in explained["file"]:
        picture(evaluated / "explain" / file, side, 7, width=2 * side)
    columns = ["file", "index", "id", "actual", "predicted", "confidence", "kind", "method"]
    explained[columns].to_csv(evaluated / "explain" / "explain.csv", index=False)
    return folders


def make_training(trained, task="classification"):
    """history.csv, summary.json, run.json, and the task of model.json."""
    epoch = np.arange(8)
    history = {
        "epoch": epoch,
        "val/loss": 0.3 + 0.4 * np.exp(-epoch / 2) + 0.01 * epoch,
        "val/accuracy": 0.92 - 0.2 * np.exp(-epoch / 2),
        "val/f1_macro": 0.90 - 0.25 * np.exp(-epoch / 2),
        "train/loss": 0.15 + 0.5 * np.exp(-epoch / 3),
        "lr": 1e-3 * np.sin(np.linspace(0.3, 3.1, 8)),
    }
    trained.mkdir(parents=True)
    pd.DataFrame(history).to_csv(trained / "history.csv", index=False)
    summary = {"best_epoch": 6, "epochs": 8, "stopped_early": False, "monitor": "f1_macro", "best_value": 0.8876}
    summary |= {"seconds": 157.2, "parameters": 3_373_250, "trainable_parameters": 3_200_000, "device": "cpu"}
    write_json(trained / "summary.json", {**summary, "devices": 1, "precision": "fp32", "images_per_s": 79.3})
    origin = {"run_id": "57c2a007a87f4bd9a7cbb01f151945bc", "experiment": "stillframe", "dirty": True}
    origin |= {"tracking_uri": "sqlite:///mlflow.db", "git_commit": "265fa07" + "0" * 33, "git_branch": "main"}
    write_json(trained / "model.json", {"task": task})
    write_json(trained / "run.json", {**origin, "versions": {"python": "3.11.2", "torch": "2.15.0"}, "dvc": {}})
