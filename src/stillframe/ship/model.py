"""An exported file, opened with ONNX Runtime: decoded images in, probabilities and decisions out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stillframe.ship.facts import Facts

Image = NDArray[np.uint8]  # (H, W, C), C = 1 or 3, upright; as `data.decode` gives it
INPUT = "image"


@dataclass(frozen=True)
class Answers:
    """What a file says of some images.

    Attributes:
        probability_NK: float32 (float64 of the model itself), rows summing to 1; calibrated.
        decision_N: int64, class indices, by the frozen threshold.
    """

    probability_NK: NDArray[np.floating[Any]]
    decision_N: NDArray[np.int64]


class Exported:
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
        self.facts = Facts.read(self.session.get_modelmeta().custom_metadata_map, str(path))

    def __call__(self, images: Sequence[Image]) -> Answers:
        """Answer images of any sizes; those of one size are asked together.

        Raises:
            ValueError: an array that is no image.
        """
        by_shape: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for at, image in enumerate(images):
            check(image)
            by_shape[image.shape].append(at)
        probability_NK = np.empty((len(images), len(self.facts.classes)), dtype=np.float32)
        decision_N = np.empty(len(images), dtype=np.int64)
        for places in by_shape.values():
            answers = self.batch(np.stack([images[at] for at in places]))
            probability_NK[places], decision_N[places] = answers.probability_NK, answers.decision_N
        return Answers(probability_NK, decision_N)

    def batch(self, image_NHWC: NDArray[np.uint8]) -> Answers:
        """Answer images of one size, uint8 (N, H, W, C), in one call."""
        probability_NK, decision_N = self.session.run(None, {INPUT: image_NHWC})
        return Answers(probability_NK, decision_N)


def check(image: Any) -> None:
    """Raise ValueError for what is not a decoded image: uint8 (H, W, 1 or 3)."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        raise ValueError(f"an image is an array of uint8, not {getattr(image, 'dtype', type(image).__name__)}")
    if image.ndim != 3 or image.shape[2] not in (1, 3) or 0 in image.shape:
        raise ValueError(f"an image has the shape (height, width, 1 or 3), not {image.shape}")
