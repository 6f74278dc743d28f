"""Made videos, and a model of clips that needs no training: it says how bright a clip is."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import onnx.parser

from stillframe.export.onnx_graph import save, with_preprocessing
from stillframe.inference.predictor import preprocess
from stillframe.model_metadata import ModelMetadata

FACTS = ModelMetadata(
    task="classification",
    classes=["dark", "bright"],
    size=16,
    channels=3,
    resize="squash",
    min_px=8,
    max_megapixels=1.0,
    tta="none",
    temperature=1.0,
    threshold=None,
    net="brightness",
    variant="made",
    data="made",
    data_hash="0" * 64,
    run_id=None,
    git_commit=None,
    frames=4,
    fps=4.0,
    sampling="uniform",
    views=1,
)


def film(path: Path, levels: Iterable[int], *, fps: int = 8, width: int = 48, height: int = 32) -> Path:
    """An mp4 of gray frames, one a level."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for at, level in enumerate(levels):
            frame = av.VideoFrame.from_ndarray(np.full((height, width, 3), level, dtype=np.uint8), "rgb24")
            frame.pts, frame.time_base = at, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


NET = """
<ir_version: 10, opset_import: ["" : 18]>
brightness (float[batch, {frames}, 3, {size}, {size}] pixels)
        => (float[batch, 2] probabilities, int64[batch] decisions) {{
        axes = Constant<value_ints = [1, 2, 3, 4]>()
        mean = ReduceMean<keepdims = 0>(pixels, axes)
        most = Constant<value_float = 255.0>()
        bright = Div(mean, most)
        one = Constant<value_float = 1.0>()
        dark = Sub(one, bright)
        last = Constant<value_ints = [-1]>()
        dark_column = Unsqueeze(dark, last)
        bright_column = Unsqueeze(bright, last)
        probabilities = Concat<axis = 1>(dark_column, bright_column)
        decisions = ArgMax<axis = 1, keepdims = 0>(probabilities)
}}
"""


def write_file(path: Path, facts: ModelMetadata = FACTS) -> Path:
    """An exported file that answers as `Brightness`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    net = onnx.parser.parse_model(NET.format(frames=facts.frames, size=facts.size))
    save(with_preprocessing(net, facts), path)
    return path


class Brightness:
    """Predicts as an exported file does: P(bright) is the mean level of the clip, of 255."""

    def __init__(self, metadata: ModelMetadata = FACTS) -> None:
        self.metadata = metadata
        self.largest = 0  # clips of one call

    def run(self, image_NHWC: np.ndarray) -> dict[str, np.ndarray]:
        self.largest = max(self.largest, len(image_NHWC))
        bright_N = np.array([preprocess(image, self.metadata).mean() / 255 for image in image_NHWC])
        probability_NK = np.stack([1 - bright_N, bright_N], axis=1).astype(np.float32)
        return {"probabilities": probability_NK, "decisions": probability_NK.argmax(1)}
