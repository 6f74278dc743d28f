"""An exported file, opened with ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from stillframe.ingest.decode import Pixels
from stillframe.model_metadata import ModelMetadata

INPUT = "image"


class OnnxModel:
    """A file of the export stage, a `Predictor`; safe to call from several threads at once.

    Attributes:
        path: of the file.
        metadata: classes, size, threshold, temperature, run id, git commit, data hash.
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
        self.metadata = ModelMetadata.read(self.session.get_modelmeta().custom_metadata_map, str(path))
        self.outputs = [output.name for output in self.session.get_outputs()]

    def run(self, image_NHWC: Pixels) -> dict[str, NDArray[Any]]:
        """The outputs by name for images (N, H, W, C) or clips (N, T, H, W, C), uint8, of any one size."""
        return dict(zip(self.outputs, self.session.run(self.outputs, {INPUT: image_NHWC}), strict=True))
