"""An exported file as a model of MLflow's, for `mlflow models serve`, its containers and its Spark functions.

MLflow keeps this very file beside the model and runs it when the model is loaded ("models from code"): nothing is
pickled. It may import only what `flavour.CARRIED` lists, by `from`: `flavour` renames the package.
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

from stillframe.drawing.class_map import encode_class_map
from stillframe.inference.masks import MASK, mask_of
from stillframe.inference.onnx_model import OnnxModel, shown
from stillframe.ingest.decode import InvalidImage, decode
from stillframe.ingest.video.views import ClipReader

BATCH = 32  # images asked at a time


class StillframeModel(PythonModel):  # type: ignore[misc]
    """Takes a table with the column `image`, the bytes of image files; gives `decision` and the probabilities.

    A model of clips takes the column `video`, the bytes of video files. One that answers masks gives `mask`, an indexed
    PNG of the image's own size, `confidence` and `share/<class>`.
    """

    def load_context(self, context: PythonModelContext) -> None:
        """Open the file."""
        self.file = OnnxModel(Path(context.artifacts["file"]), spin=False)

    def predict(self, context: PythonModelContext, model_input: pd.DataFrame) -> pd.DataFrame:
        """One row an image: decision, probability, and probability/<class> of each class, calibrated.

        Raises:
            MlflowException: an image is refused (a 400 of `mlflow models serve`); with its place and its reason.
        """
        facts = self.file.facts
        contents = list(model_input["image" if facts.frames == 1 else "video"])
        rows: list[dict[str, Any]] = []
        if facts.answer == MASK:
            return pd.DataFrame([self._mask(at, content) for at, content in enumerate(contents)])
        for first in range(0, len(contents), BATCH):
            some = enumerate(contents[first : first + BATCH], first)
            answers = self.file([self._picture(at, content) for at, content in some])
            for shares, decision in zip(answers.probability_NK, answers.decision_N, strict=True):
                named = {f"probability/{name}": float(value) for name, value in zip(facts.classes, shares, strict=True)}
                rows.append(
                    {"decision": facts.classes[decision], "probability": float(shares[decision]), **named},
                )
        return pd.DataFrame(rows)

    def _picture(self, at: int, content: bytes) -> Any:
        facts = self.file.facts
        what, read = ("image", self._image) if facts.frames == 1 else ("video", self._video)
        try:
            return read(content)
        except InvalidImage as refusal:
            raise MlflowException(f"{what} {at}: {refusal}", INVALID_PARAMETER_VALUE) from None

    def _image(self, content: bytes) -> Any:
        facts = self.file.facts
        image = decode(content, min_px=facts.min_px, max_megapixels=facts.max_megapixels).image
        return image if facts.answer == MASK else shown(image, facts)

    def _mask(self, at: int, content: bytes) -> dict[str, Any]:
        classes, mask = self.file.facts.classes, mask_of(self.file, self._picture(at, content))
        shares = {f"share/{name}": float(share) for name, share in zip(classes, mask.share_K, strict=True)}
        return {"mask": encode_class_map(mask.answer_HW, classes), "confidence": mask.confidence, **shares}

    def _video(self, content: bytes) -> Any:
        """All views of a video, from a file: videos are sought in."""
        facts = self.file.facts
        read = ClipReader(facts.frames, facts.fps, facts.views, facts.min_px, facts.max_megapixels)
        with NamedTemporaryFile(prefix="stillframe-") as file:
            file.write(content)
            file.flush()
            return read(Path(file.name), change=partial(shown, facts=facts)).image


set_model(StillframeModel())
