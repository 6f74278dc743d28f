"""Write an exported file as a model of MLflow's (the flavour python_function), and put it on a run.

    python -m stillframe.serving.mlflow_flavor artifacts/export/model.onnx FOLDER

The folder holds the ONNX file, MLmodel with signature and input example, the exact versions of the packages that it
needs, `mlflow_model.py`, and the few files of stillframe that this imports, as the package `stillframe_served`:
stillframe need not be installed where the model is served, and where it is, neither hides the other. No pickle is
written.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import stillframe
from stillframe.drawing.encode import encode_image
from stillframe.inference.masks import MASK
from stillframe.inference.model_metadata import ModelMetadata, digest_of
from stillframe.inference.onnx_model import OnnxModel

CODE = Path(__file__).with_name("mlflow_model.py")
SERVED = "stillframe_served"
CARRIED = (
    *("__init__", "paths", "types", "ingest/__init__", "ingest/decode"),
    *(f"ingest/video/{name}" for name in ("__init__", "reader", "decode", "views")),
    *(
        "drawing/__init__",
        "drawing/encode",
        "drawing/class_map",
        "store/__init__",
        "store/columns",
        "store/frame_times",
        "ingest/tiles",
    ),
    *(f"inference/{name}" for name in ("__init__", "model_metadata", "onnx_model", "masks")),
    *("tasks/__init__", "tasks/base", "tasks/segmentation/__init__", "tasks/segmentation/pixel_scores"),
)
NEEDED = ("numpy", "onnxruntime", "opencv-python-headless", "pandas", "pillow", "simplejpeg")
FOLDER = "serving"  # among the artifacts of a run; below it one folder a file, by its digest


def write(file: Path, to: Path) -> Path:
    """Write the model of an exported file into the folder `to`; the folder.

    Raises:
        FileNotFoundError, ValueError: as of `OnnxModel`; or `to` is there already.
    """
    facts = OnnxModel(file, threads=1, spin=False).facts
    if to.exists():
        raise ValueError(f"{to} is there already: name a folder that is not")
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
    os.environ |= quiet | {name: os.environ[name] for name in quiet if name in os.environ}
    logging.getLogger("mlflow").setLevel(logging.ERROR)  # advice on how else to name the requirements
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), _importing_from(folder):
        warnings.simplefilter("ignore")  # MLflow's remarks on types of its own
        made = Path(folder) / "model"
        _save(file, facts, Path(folder), made)
        shutil.copytree(made, to)
    return to


@contextmanager
def _importing_from(folder: str) -> Iterator[None]:
    """MLflow runs the code and tries the input example; what that adds to the imports goes at the end."""
    known = list(sys.path)
    sys.path = [folder, *known]
    try:
        yield
    finally:
        sys.path = known
        for name in [name for name in sys.modules if name.partition(".")[0] == SERVED]:
            del sys.modules[name]


def _save(file: Path, facts: ModelMetadata, work: Path, to: Path) -> None:
    import pandas as pd
    from mlflow import pyfunc

    picture, column = np.full((facts.size, facts.size, 3), 128, dtype=np.uint8), _column(facts)
    example = encode_image(picture) if facts.frames == 1 else _mp4(picture, facts.frames)
    needed = NEEDED if facts.frames == 1 else (*NEEDED, "av")
    pyfunc.save_model(
        str(to),
        python_model=str(_renamed(CODE, work / CODE.name)),
        artifacts={"file": str(file.resolve())},
        code_paths=[str(_carried(work / SERVED))],
        signature=_signature(facts),
        input_example=pd.DataFrame({column: [example]}),
        pip_requirements=[f"{name}=={version(name)}" for name in ("mlflow", *needed)],
        metadata={"stillframe": facts.metadata(), "digest": f"sha256:{digest_of(file)}"},
    )


def log(client: Any, run_id: str, file: Path) -> str:
    """Put the model of an exported file among the artifacts of a run, once; its place there.

    The place has the file's digest in its name: what a registered version points at does not change with the next
    export of the same run. Raises what MLflow raises.
    """
    place = f"{FOLDER}/{digest_of(file)[:16]}"
    listed = {Path(one.path).name for one in client.list_artifacts(run_id, place)}
    if "MLmodel" not in listed:
        with tempfile.TemporaryDirectory() as folder:
            client.log_artifacts(run_id, str(write(file, Path(folder) / "model")), place)
    return place


def _carried(package: Path) -> Path:
    """The files of stillframe that `mlflow_model.py` needs, as a package of another name."""
    home = Path(stillframe.__file__).parent
    for name in CARRIED:
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        _renamed(home / f"{name}.py", package / f"{name}.py")
    return package


def _renamed(source: Path, to: Path) -> Path:
    text = source.read_text(encoding="utf-8")
    to.write_text(text.replace("from stillframe.", f"from {SERVED}."), encoding="utf-8")
    return to


def _column(facts: ModelMetadata) -> str:
    return "image" if facts.frames == 1 else "video"


def _mp4(picture_HWC: NDArray[np.uint8], frames: int) -> bytes:
    """A video that stands still."""
    import av

    side = 2 * max(8, picture_HWC.shape[0] // 2)  # codecs want even sides
    picture = np.resize(picture_HWC, (side, side, 3))
    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
        with av.open(file.name, "w", format="mp4") as container:
            film = container.add_stream("mpeg4", rate=10)
            film.width, film.height, film.pix_fmt = side, side, "yuv420p"
            for _ in range(frames):
                container.mux(film.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
            container.mux(film.encode())
        return Path(file.name).read_bytes()


def _signature(facts: ModelMetadata) -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    masks = facts.answer == MASK
    sure, share = ("confidence", "share") if masks else ("probability", "probability")
    shares = [sure, *(f"{share}/{name}" for name in facts.classes)]
    answer = [ColSpec("binary", "mask") if masks else ColSpec("string", "decision")]
    answer += [ColSpec("double", name) for name in shares]
    return ModelSignature(Schema([ColSpec("binary", _column(facts))]), Schema(answer))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("python -m stillframe.serving.mlflow_flavor FILE.onnx FOLDER")
    try:
        print(write(Path(sys.argv[1]), Path(sys.argv[2])))
    except (ValueError, OSError) as problem:
        sys.exit(f"flavour: {problem}")
