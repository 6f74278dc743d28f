"""A model that answers masks, in service: one image a model call, its mask as an indexed PNG."""

from __future__ import annotations

import asyncio
import base64
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from stillframe.drawing.class_map import encode_class_map, overlay_class_map
from stillframe.inference.masks import mask_of
from stillframe.inference.onnx_model import OnnxModel
from stillframe.ingest.decode import decode
from stillframe.serving.requests import UploadedFile
from stillframe.serving.service import DecodedInput, Service, file_of
from stillframe.serving.settings import ServingSettings

if TYPE_CHECKING:
    from stillframe.inference.trained_model import TrainedModel


class MaskService(Service):
    """Images at their own size go to the model one by one: masks are as large as they are, and some come in tiles."""

    def __init__(self, model: OnnxModel | TrainedModel, settings: ServingSettings, digest: str) -> None:
        super().__init__(model, settings, digest)
        self._masks = ThreadPoolExecutor(settings.calls, thread_name_prefix="model")

    async def start(self) -> None:
        """Ask the model once, so that no request pays for its first call."""
        black = np.zeros((self.facts.size, self.facts.size, self.facts.channels), dtype=np.uint8)
        await asyncio.to_thread(mask_of, self.model, black)
        self.ready = True

    async def stop(self) -> None:
        """End the threads."""
        await super().stop()
        self._masks.shutdown(wait=True, cancel_futures=True)

    async def predict(self, sent: list[UploadedFile], *, explain: bool) -> dict[str, Any]:
        """The masks of some images, in their order; `explain`: the images under their masks, too.

        Raises:
            Rejected: no image, too many, or any of them is refused; then none is answered.
        """
        self.check(sent, explain=explain)
        read, loop = await self._read_all(sent), asyncio.get_running_loop()
        work = (partial(self._mask, one, of, explain) for one, of in zip(sent, read, strict=True))
        rows = await asyncio.gather(*(loop.run_in_executor(self._masks, one) for one in work))
        return {"predictions": list(rows), "model": self.origin}

    def _read(self, content: bytes) -> DecodedInput:
        picture = decode(content, min_px=self.facts.min_px, max_megapixels=self.max_megapixels)
        return DecodedInput(picture.image, file_of(picture))

    def _mask(self, sent: UploadedFile, read: DecodedInput, explain: bool) -> dict[str, Any]:
        begun, classes = time.perf_counter(), self.facts.classes
        with self._alone:
            mask = mask_of(self.model, read.picture)
        self.metrics.call(1, time.perf_counter() - begun)
        self.metrics.confidence.observe(mask.confidence)
        for name, share in zip(classes, mask.share_K, strict=True):
            if share > 0:
                self.metrics.answers.labels(name).inc()
        shares = {name: round(float(share), 6) for name, share in zip(classes, mask.share_K, strict=True)}
        overlay = None
        if explain:
            drawn, content = cv2.imencode(".png", overlay_class_map(read.picture, mask.answer_HW)[..., ::-1])
            assert drawn, "an image of uint8 can be encoded"
            overlay = base64.b64encode(content.tobytes()).decode()
        png = base64.b64encode(encode_class_map(mask.answer_HW, classes)).decode()
        answer = {"mask": png, "confidence": round(mask.confidence, 6), "shares": shares, "overlay": overlay}
        return {"name": sent.name, **answer, "file": read.file}


SERVICES: dict[str, type[Service]] = {"label": Service, "mask": MaskService}


def service_of(model: OnnxModel | TrainedModel, settings: ServingSettings, digest: str) -> Service:
    """The service for what a model answers."""
    return SERVICES[model.facts.answer](model, settings, digest)
