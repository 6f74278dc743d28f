"""An exported file, opened with ONNX Runtime: decoded images or clips in, probabilities and decisions out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stillframe.inference.model_metadata import ModelMetadata
from stillframe.ingest.decode import prepare

# An image (H, W, C), C = 1 or 3, upright, as `data.decode` gives it. Where the model answers clips of T frames: a clip
# (T, H, W, C), or V views of one video (V, T, H, W, C), which get one answer.
Image = NDArray[np.uint8]
INPUT = "image"


@dataclass(frozen=True)
class ModelOutputs:
    """What a file says of some images or videos.

    Attributes:
        probability_NK: float32 (float64 of the model itself), rows summing to 1; calibrated.
        decision_N: int64, class indices, by the frozen threshold.
    """

    probability_NK: NDArray[np.floating[Any]]
    decision_N: NDArray[np.int64]


class OnnxModel:
    """A file of the export stage; safe to call from several threads at once.

    Attributes:
        path: of the file.
        facts: what it says of itself: classes, size, threshold, temperature, run id, git commit, data hash.
    """

    def __init__(self, path: Path, *, threads: int = 0, spin: bool = True) -> None:
        """Open a file.

        Args:
            path: an `.onnx` file that the export stage wrote.
            threads: of one call; 0: all cores.
            spin: whether waiting threads burn their core, which shortens a single call; not for a busy machine.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not a model, or not one that stillframe exported.
        """
        import onnxruntime

        self.path = path
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: run `dvc repro export` to make it")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors; warnings there are about the library's own optimisation passes
        options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spin else "0")
        try:
            self.session: Any = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own kinds: a damaged file, an unknown operator, a wrong graph
            raise ValueError(f"{path} cannot be opened with ONNX Runtime: {str(error).splitlines()[0]}") from None
        self.facts = ModelMetadata.read(self.session.get_modelmeta().custom_metadata_map, str(path))

    def __call__(self, images: Sequence[Image]) -> ModelOutputs:
        """Answer images (or clips, see `Image`) of any sizes; those of one size are asked together.

        Raises:
            ValueError: an array that is no image, or no clip of as many frames as the model takes.
        """
        no_masks(self.facts)
        parts, of_N = unfold(images, self.facts.frames)
        by_shape: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for at, part in enumerate(parts):
            by_shape[part.shape].append(at)
        probability_NK = np.empty((len(parts), len(self.facts.classes)), dtype=np.float32)
        decision_N = np.empty(len(parts), dtype=np.int64)
        for places in by_shape.values():
            answers = self.batch(np.stack([parts[at] for at in places]))
            probability_NK[places], decision_N[places] = answers.probability_NK, answers.decision_N
        return together(ModelOutputs(probability_NK, decision_N), of_N, self.facts.threshold)

    def batch(self, image_NHWC: NDArray[np.uint8]) -> ModelOutputs:
        """Answer images of one size, uint8 (N, H, W, C), or clips (N, T, H, W, C), in one call.

        Of masks the probabilities are (N, K, S, S), the decisions (N, S, S): see `ship.masks`.
        """
        probability_NK, decision_N = self.session.run(None, {INPUT: image_NHWC})
        return ModelOutputs(probability_NK, decision_N)


def no_masks(facts: ModelMetadata) -> None:
    """Refuse a model that answers masks where one class an image is wanted (ValueError)."""
    if facts.answer != "label":
        raise ValueError(
            f"{facts.net} answers a class for each pixel: ask with stillframe.inference.masks.mask_of(file, image)"
        )


def check(image: Any, frames: int = 1) -> None:
    """Raise ValueError for what is no decoded image, uint8 (H, W, 1 or 3); no clip or views where `frames` is not 1."""
    what = "an image" if frames == 1 else "a clip"
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        raise ValueError(f"{what} is an array of uint8, not {getattr(image, 'dtype', type(image).__name__)}")
    right = image.ndim == 3 if frames == 1 else image.ndim in (4, 5) and image.shape[-4] == frames
    if not right or image.shape[-1] not in (1, 3) or 0 in image.shape:
        wanted = "height, width, 1 or 3" if frames == 1 else f"{frames} frames, height, width, 1 or 3"
        raise ValueError(f"{what} has the shape ({wanted}), not {image.shape}")


def shown(image: Image, facts: ModelMetadata) -> Image:
    """What the net is shown of an image, a clip or views of any size: (..., S, S, channels)."""
    if image.ndim == 3:
        return prepare(image, facts.size, facts.resize, facts.channels)
    frames = image.reshape(-1, *image.shape[-3:])
    made = np.stack([prepare(frame, facts.size, facts.resize, facts.channels) for frame in frames])
    return made.reshape(*image.shape[:-3], *made.shape[1:])


def unfold(images: Sequence[Image], frames: int) -> tuple[list[Image], NDArray[np.int64]]:
    """All images or clips, views one by one, and of each the place of what it is a view of (ValueError: `check`)."""
    parts: list[Image] = []
    counts = []
    for image in images:
        check(image, frames)
        views = list(image) if image.ndim == 5 else [image]
        parts += views
        counts.append(len(views))
    return parts, np.repeat(np.arange(len(images)), counts)


def together(said: ModelOutputs, of_N: NDArray[np.int64], threshold: float | None) -> ModelOutputs:
    """One answer for all views of a video: that of the mean of their logits, as in evaluate.

    Up to a constant for each view its logits divided by the temperature are the logarithms of its probabilities.

    Args:
        said: of the views.
        of_N: the place of the video of each view, ascending from 0.
        threshold: of the facts.
    """
    first_M = np.flatnonzero(np.diff(of_N, prepend=-1))
    if len(first_M) == len(of_N):
        return said
    least = np.finfo(np.float32).tiny
    log_NK = np.log(np.maximum(said.probability_NK.astype(np.float64), least))
    log_MK = np.add.reduceat(log_NK, first_M) / np.diff(first_M, append=len(of_N))[:, None]
    shares_MK = np.exp(log_MK - log_MK.max(1, keepdims=True))
    probability_MK = shares_MK / shares_MK.sum(1, keepdims=True)
    decision_M = probability_MK.argmax(1) if threshold is None else (probability_MK[:, 1] >= threshold).astype(np.int64)
    return ModelOutputs(probability_MK.astype(said.probability_NK.dtype), decision_M)
