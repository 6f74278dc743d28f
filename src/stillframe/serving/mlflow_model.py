"""An exported file as a model of MLflow's, for `mlflow models serve`, its containers and its Spark functions.

MLflow keeps this very file beside the model and runs it when the model is loaded ("models from code"): nothing is
pickled. Beside it lie the modules that it imports, as a package of another name: see `mlflow_flavor`. What runs when
it is loaded must not need torch.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel, PythonModelContext

from stillframe.inference.onnx_model import OnnxModel
from stillframe.inference.predictor import predict_images, preprocess
from stillframe.ingest.decode import InvalidImage, decode
from stillframe.ingest.video.views import ClipReader
from stillframe.tasks import find_task

BATCH_SIZE = 32  # images predicted together


class StillframeModel(PythonModel):  # type: ignore[misc]
    """Takes a table with the column `image`, the bytes of image files; gives the columns of `Output.served_columns`.

    A model of clips takes the column `video`, the bytes of video files.
    """

    def load_context(self, context: PythonModelContext) -> None:
        """Open the file."""
        self.model = OnnxModel(Path(context.artifacts["file"]), spin=False)

    def predict(self, context: PythonModelContext, model_input: pd.DataFrame) -> pd.DataFrame:
        """One row an image, in the order of the images.

        Raises:
            MlflowException: an image is refused (a 400 of `mlflow models serve`); with its index and its reason.
        """
        metadata = self.model.metadata
        task, column = find_task(metadata.task), "image" if metadata.frames == 1 else "video"
        contents, rows = list(model_input[column]), list[dict[str, Any]]()
        batch_size = 1 if task.output.full_size else BATCH_SIZE
        for first in range(0, len(contents), batch_size):
            batch = enumerate(contents[first : first + batch_size], first)
            images = [self._read(column, index, content) for index, content in batch]
            predictions = predict_images(self.model, images)
            rows += [task.output.served_row(prediction, metadata) for prediction in predictions]
        return pd.DataFrame(rows)

    def _read(self, column: str, index: int, content: bytes) -> Any:
        try:
            return self._image(content) if column == "image" else self._video(content)
        except InvalidImage as refusal:
            raise MlflowException(f"{column} {index}: {refusal}", INVALID_PARAMETER_VALUE) from None

    def _image(self, content: bytes) -> Any:
        metadata = self.model.metadata
        task = find_task(metadata.task)
        image = decode(content, min_px=metadata.min_px, max_megapixels=metadata.max_megapixels).image
        return image if task.output.full_size else preprocess(image, metadata)

    def _video(self, content: bytes) -> Any:
        """All views of a video, from a file: videos are sought in."""
        metadata = self.model.metadata
        read = ClipReader(metadata.frames, metadata.fps, metadata.views, metadata.min_px, metadata.max_megapixels)
        with NamedTemporaryFile(prefix="stillframe-") as file:
            file.write(content)
            file.flush()
            return read(Path(file.name), change=partial(preprocess, metadata=metadata)).image


set_model(StillframeModel())
