"""Write an exported file as a model of MLflow's (the flavour python_function), and put it on a run.

    python -m stillframe.serving.mlflow_flavor artifacts/export/model.onnx FOLDER

The folder holds the ONNX file, MLmodel with signature and input example, the exact versions of the packages that it
needs, `mlflow_model.py`, and the files of stillframe that this imports, with the selected task's `output.py`, as the
package `stillframe_served`: stillframe need not be installed where the model is served, and where it is, neither hides
the other. No pickle is written.
"""

from __future__ import annotations

import logging
import os
import re
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

from stillframe import code_fingerprint
from stillframe.drawing.encode import encode_image
from stillframe.inference.onnx_model import OnnxModel
from stillframe.model_metadata import ModelMetadata, digest_of
from stillframe.tasks import find_task, task_module

CODE = Path(__file__).with_name("mlflow_model.py")
HOME = CODE.parents[1]
SERVED = "stillframe_served"
TYPES = {str: "string", float: "double", bytes: "binary"}  # MLflow's names
NEEDED = ("numpy", "onnxruntime", "opencv-python-headless", "pandas", "pillow", "pydantic", "simplejpeg")
FOLDER = "serving"  # among the artifacts of a run; below it one folder a file, by its digest


def write(file: Path, to: Path) -> Path:
    """Write the model of an exported file into the folder `to`; the folder.

    Raises:
        FileNotFoundError, ValueError: as of `OnnxModel`; or `to` is there already.
    """
    metadata = OnnxModel(file, threads=1, spin=False).metadata
    if to.exists():
        raise ValueError(f"{to} is there already: name a folder that is not")
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
    os.environ |= quiet | {name: os.environ[name] for name in quiet if name in os.environ}
    logging.getLogger("mlflow").setLevel(logging.ERROR)  # advice on how else to name the requirements
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), _importing_from(folder):
        warnings.simplefilter("ignore")  # MLflow's remarks on types of its own
        model = Path(folder) / "model"
        _save(file, metadata, Path(folder), model)
        shutil.copytree(model, to)
    return to


@contextmanager
def _importing_from(folder: str) -> Iterator[None]:
    """MLflow runs the code and tries the input example; what that adds to the imports goes at the end."""
    before = list(sys.path)
    sys.path = [folder, *before]
    try:
        yield
    finally:
        sys.path = before
        for name in [name for name in sys.modules if name.partition(".")[0] == SERVED]:
            del sys.modules[name]


def _save(file: Path, metadata: ModelMetadata, work: Path, to: Path) -> None:
    import pandas as pd
    from mlflow import pyfunc

    image, column = np.full((metadata.size, metadata.size, 3), 128, dtype=np.uint8), _column(metadata)
    example = encode_image(image) if metadata.frames == 1 else _mp4(image, metadata.frames)
    needed = NEEDED if metadata.frames == 1 else (*NEEDED, "av")
    pyfunc.save_model(
        str(to),
        python_model=str(_renamed(CODE, work / CODE.name)),
        artifacts={"file": str(file.resolve())},
        code_paths=[str(_copy_code(metadata, work / SERVED))],
        signature=_signature(metadata),
        input_example=pd.DataFrame({column: [example]}),
        pip_requirements=[f"{name}=={version(name)}" for name in ("mlflow", *needed)],
        metadata={"stillframe": metadata.to_text(), "digest": f"sha256:{digest_of(file)}"},
    )


def log(client: Any, run_id: str, file: Path) -> str:
    """Put the model of an exported file among the artifacts of a run, once; its path there.

    The path has the file's digest in its name: what a registered version points at does not change with the next
    export of the same run. Raises what MLflow raises.
    """
    path = f"{FOLDER}/{digest_of(file)[:16]}"
    names = {Path(artifact.path).name for artifact in client.list_artifacts(run_id, path)}
    if "MLmodel" not in names:
        with tempfile.TemporaryDirectory() as folder:
            client.log_artifacts(run_id, str(write(file, Path(folder) / "model")), path)
    return path


def code_of(metadata: ModelMetadata) -> list[Path]:
    """The files of stillframe that `mlflow_model.py` needs for a model of that task."""
    modules = [f"stillframe.{'.'.join(CODE.relative_to(HOME).with_suffix('').parts)}"]
    return [path for path in code_fingerprint.closure_files(modules, task=task_module(metadata.task)) if path != CODE]


def _copy_code(metadata: ModelMetadata, package: Path) -> Path:
    """These files as a package of another name."""
    for path in code_of(metadata):
        target = package / path.relative_to(HOME)
        target.parent.mkdir(parents=True, exist_ok=True)
        _renamed(path, target)
    for folder in (package, *(path for path in package.rglob("*") if path.is_dir())):
        (folder / "__init__.py").touch()  # those that do nothing are not listed
    return package


def _renamed(source: Path, to: Path) -> Path:
    """A copy whose imports are of the renamed package."""
    text = source.read_text(encoding="utf-8")
    text = re.sub(r"\b(from|import) stillframe\b", rf"\1 {SERVED}", text)
    text = text.replace('"stillframe.tasks.', f'"{SERVED}.tasks.')  # names of modules that are imported when needed
    to.write_text(text, encoding="utf-8")
    return to


def _column(metadata: ModelMetadata) -> str:
    return "image" if metadata.frames == 1 else "video"


def _mp4(image_HWC: NDArray[np.uint8], frames: int) -> bytes:
    """A video that stands still."""
    import av

    side = 2 * max(8, image_HWC.shape[0] // 2)  # codecs want even sides
    image = np.resize(image_HWC, (side, side, 3))
    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
        with av.open(file.name, "w", format="mp4") as container:
            stream = container.add_stream("mpeg4", rate=10)
            stream.width, stream.height, stream.pix_fmt = side, side, "yuv420p"
            for _ in range(frames):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
            container.mux(stream.encode())
        return Path(file.name).read_bytes()


def _signature(metadata: ModelMetadata) -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    columns = find_task(metadata.task).output.served_columns(metadata)
    outputs = [ColSpec(TYPES[kind], name) for name, kind in columns.items()]
    return ModelSignature(Schema([ColSpec("binary", _column(metadata))]), Schema(outputs))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("python -m stillframe.serving.mlflow_flavor FILE.onnx FOLDER")
    try:
        print(write(Path(sys.argv[1]), Path(sys.argv[2])))
    except (ValueError, OSError) as problem:
        sys.exit(f"flavour: {problem}")
