"""Where a model looked: Grad-CAM for a trained net, occlusion for an exported file.

A file has no gradients. Occlusion (Zeiler and Fergus 2014) asks the very file that answered, whatever its variant and
wherever it came from: how much less probable is its answer when a part of the picture is covered? Of a clip a part is a
place during some of its frames.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stillframe.drawing.encode import encode_image
from stillframe.drawing.heatmap import draw_heatmap
from stillframe.inference.onnx_model import OnnxModel, shown
from stillframe.ingest.decode import Pixels
from stillframe.paths import replacing

OCCLUSION = "occlusion"
CELLS = 8  # a side: the grid on which covers lie
COVER = 2  # cells a side that are covered at a time
CLIP_CELLS, CLIP_SPANS = 4, 4  # of clips, which cost more to ask about: a side, and in time
CLIPS = 4  # asked about at a time


def occlusion(file: OnnxModel, picture_HWC: Pixels, decision: int) -> NDArray[np.float32]:
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


def occlusion_of_clip(file: OnnxModel, clip_THWC: Pixels, decision: int) -> NDArray[np.float32]:
    """The same of a clip, where a place is covered during a part of its frames: (T, H, W), 0..1.

    Args:
        file: asked `CLIP_CELLS` + 1 squared times for each of `CLIP_SPANS` parts.
        clip_THWC: uint8, prepared.
        decision: class index.
    """
    import cv2

    frames, height, width = clip_THWC.shape[:3]
    spans = np.array_split(np.arange(frames), min(CLIP_SPANS, frames))
    edges = [np.linspace(0, side, CLIP_CELLS + 1).round().astype(int) for side in (height, width)]
    colour = clip_THWC.reshape(-1, clip_THWC.shape[3]).mean(0).round().astype(np.uint8)
    starts = range(1 - COVER, CLIP_CELLS)
    cells = [slice(max(start, 0), min(start + COVER, CLIP_CELLS)) for start in starts]
    covers = [(span, rows, columns) for span in range(len(spans)) for rows in cells for columns in cells]
    fall_thw, times_hw = np.zeros((len(spans), CLIP_CELLS, CLIP_CELLS)), np.zeros((CLIP_CELLS, CLIP_CELLS))
    before = float(file([clip_THWC]).probability_NK[0, decision])
    for some in np.array_split(np.arange(len(covers)), -(-len(covers) // CLIPS)):
        covered = np.repeat(clip_THWC[None], len(some), axis=0)
        for clip, at in zip(covered, some, strict=True):
            span, rows, columns = covers[at]
            place = (
                slice(edges[0][rows.start], edges[0][rows.stop]),
                slice(edges[1][columns.start], edges[1][columns.stop]),
            )
            clip[(spans[span], *place)] = colour
        for at, value in zip(some, file.batch(covered).probability_NK[:, decision], strict=True):
            fall_thw[covers[at]] += max(0.0, before - float(value))
    for rows in cells:
        for columns in cells:
            times_hw[rows, columns] += 1
    maps = [cv2.resize((fall / times_hw).astype(np.float32), (width, height)) for fall in fall_thw]
    heat = np.repeat(np.stack(maps), [len(span) for span in spans], axis=0)
    top = float(heat.max())
    return np.asarray(heat / top if top > 0 else heat, dtype=np.float32)


def heat_of(model: Any, image: Pixels, decision: int) -> tuple[Pixels, NDArray[np.float32], str]:
    """What the net was shown, its heat map in 0..1, and the method, which the model decides.

    Of an image (H, W, C) the map is (H, W), of a clip (T, H, W, C) it is (T, H, W); of several views of a video the one
    in the middle is explained.
    """
    picture = shown(image if image.ndim < 5 else image[len(image) // 2], model.facts)
    if isinstance(model, OnnxModel):
        ask = occlusion if picture.ndim == 3 else occlusion_of_clip
        return picture, ask(model, picture, decision), OCCLUSION
    import torch

    from stillframe.models.explain import explain

    image_BCHW = torch.from_numpy(np.ascontiguousarray(np.moveaxis(picture, -1, -3)))[None]
    heat_BHW, method = explain(model.net, image_BCHW, torch.tensor([decision]))
    return picture, heat_BHW[0], method


def draw(model: Any, image: Pixels, decision: int, path: Path) -> None:
    """Write `under_heat` of an image, a clip or views, as PNG."""
    picture, heat, _ = heat_of(model, image, decision)
    with replacing(path) as temporary:
        temporary.write_bytes(encode_image(draw_heatmap(picture, heat)))
