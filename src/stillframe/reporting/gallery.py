"""Images of single test samples: the error gallery, and heat maps of what decided."""

from __future__ import annotations

from pathlib import Path

import cv2
import pandas as pd
import torch

from stillframe.drawing.heatmap import draw_heatmap
from stillframe.evaluation.write_tables import write_csv
from stillframe.models.build import Network
from stillframe.models.explain import explain
from stillframe.store.split import Split
from stillframe.tasks.base import Task


def draw_gallery(task: Task, gallery: pd.DataFrame, predictions: pd.DataFrame, test: Path, out: Path) -> None:
    """Draw each row of the gallery into the file that its column `file` names, relative to `out`."""
    split, by_index = Split(test), predictions.set_index("index", drop=False)
    for file, index in zip(gallery["file"], gallery["index"], strict=True):
        path = out / str(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        image_HWC = task.evaluation.gallery_image(split, by_index.loc[index], out)
        if not cv2.imwrite(str(path), image_HWC[..., ::-1]):
            raise OSError(f"{path} cannot be written")


def draw_explanations(net: Network, rows: pd.DataFrame, test: Path, out: Path) -> None:
    """Heat maps of what decided, and explain.csv that lists them.

    Args:
        net: the trained network.
        rows: of `tasks.base_evaluation.Evaluation.explained`.
        test: the split.
        out: folder of the images, relative to which explain.csv names them.
    """
    out.mkdir(parents=True, exist_ok=True)
    listed = rows.drop(columns="output")
    listed.insert(0, "file", [f"{number:02d}.png" for number in range(len(rows))])
    method = ""
    if len(rows):
        image_BHWC = Split(test).images(rows["index"].to_numpy())
        image_BCHW = torch.from_numpy(image_BHWC).movedim(-1, -3)
        heat_BHW, method = explain(net, image_BCHW, torch.tensor(rows["output"].to_numpy(), dtype=torch.int64))
        for name, image_HWC, heat_HW in zip(listed["file"], image_BHWC, heat_BHW, strict=True):
            cv2.imwrite(str(out / name), draw_heatmap(image_HWC, heat_HW)[..., ::-1])
    listed.insert(list(listed.columns).index("kind") + 1, "method", method)
    write_csv(out / "explain.csv", listed)
