"""Opens the model that a name means: a file, a folder of the train stage, or an artifact of an MLflow run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stillframe.config import read_params
from stillframe.inference.onnx_model import OnnxModel
from stillframe.paths import EXPORT, PREPARED, TRAIN, WORK

if TYPE_CHECKING:
    from stillframe.inference.trained_model import TrainedModel

FILE = EXPORT / "model.onnx"


def open_model(name: str | None, *, threads: int) -> OnnxModel | TrainedModel:
    """Open a model.

    Args:
        name: an `.onnx` file; a folder with one, or with a trained network (`artifacts/train`, `validate` beside it);
            `runs:/<run id>`, `models:/<name>/<version>`, `models:/<name>@<alias>`; None: what this checkout exported.
        threads: of one call; 0: all cores.

    Raises:
        FileNotFoundError: there is no such model. ValueError: it is not one of ours, or damaged.
    """
    if name is not None and name.startswith(("runs:/", "models:/")):
        from stillframe.tracking.record import download

        (tracking,) = read_params("tracking")
        return OnnxModel(download(name, tracking, WORK / "models"), threads=threads, spin=False)
    path = FILE if name is None else Path(name)
    if (path / "model.onnx").is_file():
        path = path / "model.onnx"
    if not path.is_dir():
        return OnnxModel(path, threads=threads, spin=False)
    if not (path / "model.safetensors").is_file():
        raise FileNotFoundError(
            f"--model {path}: the folder holds neither model.onnx nor model.safetensors (see {TRAIN})"
        )
    from stillframe.inference.trained_model import TrainedModel, read_metadata

    metadata = read_metadata(path, path.parent / "validate", PREPARED / "card.json", *read_params("data"))
    return TrainedModel(path, metadata, threads=threads)
