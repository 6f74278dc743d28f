"""Stage 7: the test split, used here and nowhere else: scores with intervals, tables, the gallery, explanations."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from stillframe.config import Evaluate, Tracking, Trainer, read_params
from stillframe.paths import EVALUATE, PREPARED, TRAIN, VALIDATE, fresh_folder, read_json
from stillframe.sample import Card


def run(
    task: str,
    seed: int,
    trainer: Trainer,
    evaluate: Evaluate,
    tracking: Tracking,
    *,
    trained: Path = TRAIN,
    validated: Path = VALIDATE,
    test: Path = PREPARED / "test",
    card: Path = PREPARED / "card.json",
    evaluated: Path = EVALUATE,
) -> None:
    """Score the test split with the frozen choices and write `evaluated`."""
    from stillframe.fit.infer import predict_split
    from stillframe.measure.decide import with_decisions
    from stillframe.measure.tables import write_tables

    facts, choices = Card.read(card), read_json(validated / "choices.json")
    predictions = predict_split(trained, test, trainer, tta=choices["tta"], batch_size=evaluate.batch_size)
    predictions = with_decisions(predictions, choices)
    out = fresh_folder(evaluated)
    predictions.to_parquet(out / "predictions.parquet", index=False)
    metrics, gallery = write_tables(
        predictions,
        facts,
        out,
        bins=choices["bins"],
        seed=seed,
        bootstrap=evaluate.bootstrap,
        slices=list(dict.fromkeys([*facts.slices, *evaluate.slices])),
        gallery=evaluate.gallery,
    )
    draw_gallery(gallery, test, out)
    draw_explanations(predictions, facts, trained, test, evaluate.explain, out / "explain")
    record(trained, tracking, metrics)
    shown = "  ".join(
        f"{name} {metrics[name]:.4f}"
        for name in ("accuracy", "f1_macro", "recall_macro", "ece")
        if name in metrics
    )
    print(f"test: {shown}")


def draw_gallery(gallery: pd.DataFrame, test: Path, out: Path) -> None:
    """The pictures of the gallery, under the names of its column `file` (relative to `out`)."""
    import cv2

    from stillframe.data.store import Split

    split = Split(test)
    for file, index in zip(gallery["file"], gallery["index"], strict=True):
        path = out / str(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), split.images([int(index)])[0][..., ::-1])


def chosen_rows(predictions: pd.DataFrame, count: int) -> pd.DataFrame:
    """The most confident errors and as many right answers, spread over the classes; column `kind` says which."""
    wrong = predictions[predictions["predicted"] != predictions["label"]]
    right = predictions[predictions["predicted"] == predictions["label"]]
    errors = (
        wrong.sort_values(["confidence", "index"], ascending=[False, True]).head(count).assign(kind="error")
    )
    turn = right.sort_values(["confidence", "index"], ascending=[False, True])
    turn = turn.assign(turn=turn.groupby("label").cumcount()).sort_values(["turn", "label"]).head(count)
    return pd.concat([errors, turn.drop(columns="turn").assign(kind="right")], ignore_index=True)


def draw_explanations(
    predictions: pd.DataFrame, card: Card, trained: Path, test: Path, count: int, out: Path
) -> None:
    """Heat maps of what decided, on errors and on right answers, and explain.csv that lists them."""
    import cv2
    import torch

    from stillframe.data.store import Split
    from stillframe.fit.infer import load_net
    from stillframe.measure.tables import write_csv
    from stillframe.nets.explain import explain, overlay

    out.mkdir(parents=True, exist_ok=True)
    rows = chosen_rows(predictions, count)
    columns = ["file", "index", "id", "actual", "predicted", "confidence", "kind", "method"]
    if rows.empty:
        write_csv(out / "explain.csv", pd.DataFrame(columns=columns))
        return
    net, _ = load_net(trained)
    image_BHWC = Split(test).images(rows["index"].to_numpy())
    image_BCHW = torch.from_numpy(image_BHWC).permute(0, 3, 1, 2)
    heat_BHW, method = explain(net, image_BCHW, torch.tensor(rows["predicted"].to_numpy(), dtype=torch.int64))
    listed = rows.assign(
        file=[f"{number:02d}.png" for number in range(len(rows))],
        actual=[card.classes[label] for label in rows["label"]],
        predicted=[card.classes[label] for label in rows["predicted"]],
        method=method,
    )
    for name, image_HWC, heat_HW in zip(listed["file"], image_BHWC, heat_BHW, strict=True):
        cv2.imwrite(str(out / name), overlay(image_HWC, heat_HW)[..., ::-1])
    write_csv(out / "explain.csv", listed[columns])


def record(trained: Path, tracking: Tracking, metrics: dict[str, float]) -> None:
    """Send the test scores to the model's MLflow run."""
    from stillframe.fit.tracking import attach

    run_record = attach(trained / "run.json", tracking)
    run_record.metrics({f"test/{name}": value for name, value in metrics.items()})
    run_record.close()


if __name__ == "__main__":
    try:
        run(*read_params("task", "seed", "trainer", "evaluate", "tracking"))
    except (ValueError, OSError) as problem:
        sys.exit(f"evaluate: {problem}")
