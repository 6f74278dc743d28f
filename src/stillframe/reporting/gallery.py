"""Pictures of single test images: the error gallery, and what decided."""

from __future__ import annotations

from pathlib import Path

import cv2
import pandas as pd
import torch

from stillframe.drawing.frame_strip import frame_strip
from stillframe.drawing.heatmap import draw_heatmap
from stillframe.evaluation.breakdown import timelines
from stillframe.evaluation.tables import write_csv
from stillframe.models.build import Network
from stillframe.models.explain import explain
from stillframe.store.split import Split
from stillframe.types import DatasetCard


def draw_gallery(gallery: pd.DataFrame, test: Path, out: Path) -> None:
    """The pictures of the gallery, under the names of its column `file` (relative to `out`); clips as strips."""
    split = Split(test)
    for file, index in zip(gallery["file"], gallery["index"], strict=True):
        path = out / str(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), frame_strip(split.images([int(index)])[0])[..., ::-1])


def chosen_rows(predictions: pd.DataFrame, count: int) -> pd.DataFrame:
    """The most confident errors and as many right answers, spread over the classes; column `kind` says which."""
    wrong = predictions[predictions["predicted"] != predictions["label"]]
    right = predictions[predictions["predicted"] == predictions["label"]]
    errors = wrong.sort_values(["confidence", "index"], ascending=[False, True]).head(count).assign(kind="error")
    turn = right.sort_values(["confidence", "index"], ascending=[False, True])
    turn = turn.assign(turn=turn.groupby("label").cumcount()).sort_values(["turn", "label"]).head(count)
    return pd.concat([errors, turn.drop(columns="turn").assign(kind="right")], ignore_index=True)


def draw_explanations(
    net: Network, predictions: pd.DataFrame, card: DatasetCard, test: Path, count: int, out: Path
) -> None:
    """Heat maps of what decided, on errors and on right answers, and explain.csv that lists them."""
    out.mkdir(parents=True, exist_ok=True)
    rows = chosen_rows(predictions, count)
    columns = ["file", "index", "id", "actual", "predicted", "confidence", "kind", "method"]
    if rows.empty:
        write_csv(out / "explain.csv", pd.DataFrame(columns=columns))
        return
    image_BHWC = Split(test).images(rows["index"].to_numpy())
    image_BCHW = torch.from_numpy(image_BHWC).movedim(-1, -3)
    heat_BHW, method = explain(net, image_BCHW, torch.tensor(rows["predicted"].to_numpy(), dtype=torch.int64))
    listed = rows.assign(
        file=[f"{number:02d}.png" for number in range(len(rows))],
        actual=[card.classes[label] for label in rows["label"]],
        predicted=[card.classes[label] for label in rows["predicted"]],
        method=method,
    )
    if "view_probabilities" in rows:
        listed["timeline"] = timelines(rows)
        columns = [*columns, "timeline"]
    for name, image_HWC, heat_HW in zip(listed["file"], image_BHWC, heat_BHW, strict=True):
        cv2.imwrite(str(out / name), draw_heatmap(image_HWC, heat_HW)[..., ::-1])
    write_csv(out / "explain.csv", listed[columns])
