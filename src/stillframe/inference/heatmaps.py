"""Where a model looked: Grad-CAM for a trained network, occlusion for an exported file.

A file has no gradients. Occlusion (Zeiler and Fergus 2014) runs the very file that predicted, whatever its variant and
wherever it came from: how much weaker is its prediction when a part of the image is covered? Of a clip a part is a
patch during some of its frames.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from stillframe.inference.onnx_model import OnnxModel
from stillframe.inference.predictor import Predictor, preprocess
from stillframe.ingest.decode import Pixels
from stillframe.tasks import find_task

OCCLUSION = "occlusion"
COVER = 2  # cells a side that are covered at a time
IMAGE_CELLS, IMAGE_BATCH = 8, 17  # a side: the grid on which covers lie; images a model call
CLIP_CELLS, CLIP_SPANS, CLIP_BATCH = 4, 4, 4  # of clips, which cost more: a side, in time, clips a model call


def occlusion(model: Predictor, image: Pixels, output: int) -> NDArray[np.float32]:
    """How much the evidence for an output falls where the image is covered by its mean colour, 0..1.

    Args:
        model: run for each position of the cover: 81 images, 100 clips.
        image: uint8 (H, W, C), or a clip (T, H, W, C), preprocessed (resizing it again changes nothing).
        output: index of the network's output, e.g. the predicted class.

    Returns:
        (H, W), of a clip (T, H, W).
    """
    evidence, clip = find_task(model.metadata.task).output.evidence, image.reshape(-1, *image.shape[-3:])
    frames, height, width = clip.shape[:3]
    cells, batch_size = (IMAGE_CELLS, IMAGE_BATCH) if image.ndim == 3 else (CLIP_CELLS, CLIP_BATCH)
    spans = np.array_split(np.arange(frames), min(CLIP_SPANS, frames))
    rows, columns = (np.linspace(0, side, cells + 1).round().astype(int) for side in (height, width))
    # covers reach beyond the border, so that each cell is covered equally often but for those at the border
    reach = [slice(max(start, 0), min(start + COVER, cells)) for start in range(1 - COVER, cells)]
    covers = list(product(range(len(spans)), reach, reach))
    color = clip.reshape(-1, clip.shape[3]).mean(0).round().astype(np.uint8)
    before = float(evidence(model.run(image[None]), output)[0])
    fall_thw, count_hw = np.zeros((len(spans), cells, cells)), np.zeros((cells, cells))
    for first in range(0, len(covers), batch_size):
        batch = covers[first : first + batch_size]
        covered = np.repeat(clip[None], len(batch), axis=0)
        for sample, (span, down, across) in zip(covered, batch, strict=True):
            top, bottom, left, right = rows[down.start], rows[down.stop], columns[across.start], columns[across.stop]
            sample[spans[span], top:bottom, left:right] = color
        after = evidence(model.run(covered.reshape(-1, *image.shape)), output)
        for cover, value in zip(batch, after, strict=True):
            fall_thw[cover] += max(0.0, before - float(value))
    for down, across in product(reach, reach):
        count_hw[down, across] += 1
    maps = [cv2.resize((fall / count_hw).astype(np.float32), (width, height)) for fall in fall_thw]
    heatmap = np.repeat(np.stack(maps), [len(span) for span in spans], axis=0).reshape(image.shape[:-1])
    top_value = float(heatmap.max())
    return np.asarray(heatmap / top_value if top_value > 0 else heatmap, dtype=np.float32)


def explain_prediction(model: Any, image: Pixels, output: int) -> tuple[Pixels, NDArray[np.float32], str]:
    """The image as the network takes it, its heat map in 0..1, and the method, which the kind of model decides.

    Of an image (H, W, C) the map is (H, W), of a clip (T, H, W, C) it is (T, H, W); of several views of a video the one
    in the middle is explained.
    """
    prepared = preprocess(image if image.ndim < 5 else image[len(image) // 2], model.metadata)
    if isinstance(model, OnnxModel):
        return prepared, occlusion(model, prepared, output), OCCLUSION
    import torch

    from stillframe.models.explain import explain

    image_BCHW = torch.from_numpy(np.ascontiguousarray(np.moveaxis(prepared, -1, -3)))[None]
    heatmap_BHW, method = explain(model.net, image_BCHW, torch.tensor([output]))
    return prepared, heatmap_BHW[0], method
