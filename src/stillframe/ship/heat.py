"""Where a model looked: Grad-CAM for a trained net, occlusion for an exported file.

A file has no gradients. Occlusion (Zeiler and Fergus 2014) asks the very file that answered, whatever its variant and
wherever it came from: how much less probable is its answer when a part of the picture is covered?
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stillframe.data.decode import Pixels, prepare
from stillframe.nets.overlay import overlay
from stillframe.paths import replacing
from stillframe.ship.model import Exported

OCCLUSION = "occlusion"
CELLS = 8  # a side: the grid on which covers lie
COVER = 2  # cells a side that are covered at a time


def occlusion(file: Exported, picture_HWC: Pixels, decision: int) -> NDArray[np.float32]:
    """How much the probability of an answer falls where the picture is covered by its mean colour: (H, W), 0..1.

    Args:
        file: asked once for each place of the cover, `CELLS` + 1 squared.
        picture_HWC: uint8, prepared (resizing it again changes nothing).
        decision: class index.
    """
    import cv2

    height, width = picture_HWC.shape[:2]
    edges = [np.linspace(0, side, CELLS + 1).round().astype(int) for side in (height, width)]
    colour = picture_HWC.reshape(-1, picture_HWC.shape[2]).mean(0).round().astype(np.uint8)
    covers = [(row, column) for row in range(1 - COVER, CELLS) for column in range(1 - COVER, CELLS)]
    fall_hw, times_hw = np.zeros((CELLS, CELLS)), np.zeros((CELLS, CELLS))
    before = float(file([picture_HWC]).probability_NK[0, decision])
    covered = np.repeat(picture_HWC[None], len(covers), axis=0)
    cells = [(slice(max(row, 0), row + COVER), slice(max(column, 0), column + COVER)) for row, column in covers]
    for picture, (rows, columns) in zip(covered, cells, strict=True):
        bottom, right = min(rows.stop, CELLS), min(columns.stop, CELLS)
        picture[edges[0][rows.start] : edges[0][bottom], edges[1][columns.start] : edges[1][right]] = colour
    after = np.concatenate([file.batch(part).probability_NK[:, decision] for part in np.array_split(covered, 5)])
    for (rows, columns), value in zip(cells, after, strict=True):
        fall_hw[rows, columns] += max(0.0, before - float(value))
        times_hw[rows, columns] += 1
    heat = cv2.resize((fall_hw / times_hw).astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    top = float(heat.max())
    return np.asarray(heat / top if top > 0 else heat, dtype=np.float32)


def heat_of(model: Any, image: Pixels, decision: int) -> tuple[Pixels, NDArray[np.float32], str]:
    """The picture that the net was shown, its heat map (H, W) in 0..1, and the method, which the model decides."""
    facts = model.facts
    picture = prepare(image, facts.size, facts.resize, facts.channels)
    if isinstance(model, Exported):
        return picture, occlusion(model, picture, decision), OCCLUSION
    import torch

    from stillframe.nets.explain import explain

    image_BCHW = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))[None]
    heat_BHW, method = explain(model.net, image_BCHW, torch.tensor([decision]))
    return picture, heat_BHW[0], method


def draw(model: Any, image: Pixels, decision: int, path: Path) -> None:
    """Write the picture beside itself under its heat map, as PNG."""
    picture, heat, _ = heat_of(model, image, decision)
    with replacing(path) as temporary:
        temporary.write_bytes(png(overlay(picture, heat)))


def png(image_HW3: Pixels) -> bytes:
    """An RGB image as PNG."""
    import cv2

    done, content = cv2.imencode(".png", image_HW3[..., ::-1])
    assert done
    return content.tobytes()
