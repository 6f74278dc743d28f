"""A model in service: bytes of images or videos in, predictions as they are sent out."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile
from threading import Lock
from typing import Any

import numpy as np

from stillframe.drawing.encode import encode_image
from stillframe.drawing.frame_strip import frame_strip
from stillframe.drawing.heatmap import draw_heatmap
from stillframe.inference.expand_paths import InputFile
from stillframe.inference.heatmaps import explain_prediction
from stillframe.inference.onnx_model import OnnxModel
from stillframe.inference.predictor import Predictor, predict_images, preprocess
from stillframe.inference.video_windows import check_video, read_whole
from stillframe.ingest.decode import DecodedImage, InvalidImage, Pixels, decode
from stillframe.ingest.workers import cores
from stillframe.serving.batching import Batcher
from stillframe.serving.errors import ApiError
from stillframe.serving.prometheus import ServiceMetrics
from stillframe.serving.requests import UploadedFile
from stillframe.serving.settings import ServingSettings
from stillframe.tasks import find_task


@dataclass(frozen=True, slots=True)
class DecodedInput:
    """An image as the model gets it, and what its file was."""

    image: Pixels  # uint8: preprocessed (S, S, C), or at its own size; of a video its views (V, T, S, S, C)
    file: dict[str, Any]


def describe_file(image: DecodedImage, seconds: float | None = None) -> dict[str, Any]:
    """What a response says of the file."""
    facts = {name: getattr(image, name) for name in ("format", "mode", "width", "height", "frames")}
    return {**facts, "seconds": seconds}


class Service:
    """One model and its requests.

    Attributes:
        metadata: of the model.
        task: of the model.
        metrics: what was counted.
        ready: whether requests are taken.
        draining: whether the server is ending.
        in_hand: requests that are being received or answered.
        bytes_in_hand: of their bodies.
        dropped: requests that the end of the server cut off.
    """

    def __init__(self, model: Predictor, settings: ServingSettings, digest: str) -> None:
        self.model, self.settings, self.digest, self.metadata = model, settings, digest, model.metadata
        self.task = find_task(self.metadata.task)
        self.metrics = ServiceMetrics(self.metadata, digest)
        self.ready = self.draining = False
        self.in_hand = self.bytes_in_hand = self.dropped = 0
        # an exported file may be run by several threads; hooks of a heat map on a network would see the others' images
        self._lock: AbstractContextManager[Any] = nullcontext() if isinstance(model, OnnxModel) else Lock()
        self.batcher = Batcher(
            self._predict,
            batch_size=1 if self.task.output.full_size else settings.batch,
            wait_s=settings.wait_ms / 1e3,
            calls=settings.calls,
            observe=self.metrics.call,
        )
        self._readers = ThreadPoolExecutor(cores(), thread_name_prefix="read")  # bounds the pixels that are decoded
        self._explainer = ThreadPoolExecutor(1, thread_name_prefix="explain")
        self.metrics.watch("requests_in_hand", "Requests being received or answered", lambda: float(self.in_hand))
        self.metrics.watch("waiting_images", "Images that no model call has taken", lambda: float(self.batcher.waiting))

    @property
    def origin(self) -> dict[str, Any]:
        """What every response says of the model."""
        names = ("net", "variant", "run_id", "git_commit", "data_hash")
        return {"digest": f"sha256:{self.digest}", **{name: getattr(self.metadata, name) for name in names}}

    @property
    def description(self) -> dict[str, Any]:
        """The metadata of the model, and the server's limits."""
        names = ("max_images", "max_body_mb", "max_seconds", "max_requests", "max_explained", "timeout_s", "batch")
        limits = {name: getattr(self.settings, name) for name in names} | {"max_megapixels": self.max_megapixels}
        return {"model": {**self.metadata.to_json(), "digest": f"sha256:{self.digest}"}, "limits": limits}

    @property
    def max_megapixels(self) -> float:
        """Of one image."""
        return min(self.settings.max_megapixels or self.metadata.max_megapixels, self.metadata.max_megapixels)

    async def start(self) -> None:
        """Run the model once with one and once with a whole batch, so that no request pays for its first call."""
        metadata = self.metadata
        image = (metadata.size, metadata.size, metadata.channels)
        black = np.zeros(image if metadata.frames == 1 else (metadata.frames, *image), dtype=np.uint8)
        for images in sorted({1, self.batcher.batch_size}):
            await asyncio.to_thread(self._predict, [black] * images)
        self.batcher.start()
        self.ready = True

    async def stop(self) -> None:
        """End the threads."""
        self.ready = False
        await self.batcher.stop()
        for pool in (self._readers, self._explainer):
            pool.shutdown(wait=True, cancel_futures=True)

    async def in_reader(self, work: Any, *arguments: Any) -> Any:
        """Run work on a body beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, partial(work, *arguments))

    async def predict(self, files: list[UploadedFile], *, explain: bool) -> dict[str, Any]:
        """The response about some images, in their order.

        Raises:
            ApiError: no image, too many, or any of them is refused; then none is predicted.
        """
        if not files:
            raise ApiError("bad request", "no image was sent")
        if explain and len(files) > self.settings.max_explained:
            reason = f"{len(files)} images, more than {self.settings.max_explained} to explain (serve: max_explained)"
            raise ApiError("too large", reason)
        inputs = await self._read_all(files)
        predictions = await asyncio.gather(*(self.batcher.predict(decoded.image) for decoded in inputs))
        rows = []
        for file, decoded, prediction in zip(files, inputs, predictions, strict=True):
            explanation = await self._explanation(decoded, prediction, explain)
            names, confidence = self.task.output.counted(prediction, self.metadata)
            self.metrics.count(names, confidence)
            fields = self.task.output.response(prediction, self.metadata)
            rows.append({"name": file.name, **fields, "file": decoded.file, **explanation})
        return {"predictions": rows, "model": self.origin}

    async def _read_all(self, files: list[UploadedFile]) -> list[DecodedInput]:
        """All images, decoded; they count as coming until they are."""
        self.batcher.announce(len(files))
        try:
            reading = (self.in_reader(self._read, file.content) for file in files)
            results = await asyncio.gather(*reading, return_exceptions=True)
        finally:
            self.batcher.announce(-len(files))
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, InvalidImage):
                raise result
        refused = {index: result for index, result in enumerate(results) if isinstance(result, InvalidImage)}
        if refused:
            raise self._refusal(files, refused)
        return [result for result in results if isinstance(result, DecodedInput)]

    def _refusal(self, files: list[UploadedFile], refused: dict[int, InvalidImage]) -> ApiError:
        for invalid in refused.values():
            self.metrics.refused.labels(invalid.kind).inc()
        code = "too large" if all(invalid.kind == "too large" for invalid in refused.values()) else "refused"
        count = f"{len(refused)} of {len(files)} images refused, none answered; " if len(files) > 1 else ""
        images = [
            {"index": index, "name": files[index].name, "reason": str(reason)} for index, reason in refused.items()
        ]
        return ApiError(code, count + str(next(iter(refused.values()))), images)

    def _read(self, content: bytes) -> DecodedInput:
        """By preprocessing's own rules (InvalidImage: with the reason that quarantine.csv would have)."""
        metadata = self.metadata
        if metadata.frames > 1:
            return self._read_video(content)
        image = decode(content, min_px=metadata.min_px, max_megapixels=self.max_megapixels)
        pixels = image.image if self.task.output.full_size else preprocess(image.image, metadata)
        return DecodedInput(pixels, describe_file(image))

    def _read_video(self, content: bytes) -> DecodedInput:
        """From a file: videos are sought in."""
        limit, metadata = self.settings.max_seconds, replace(self.metadata, max_megapixels=self.max_megapixels)
        with NamedTemporaryFile(prefix="stillframe-") as file:
            file.write(content)
            file.flush()
            info = check_video(InputFile(file.name), metadata)
            if info.seconds > limit:
                reason = f"{info.seconds:.1f} s, more than {limit:g} (serve: max_seconds)"
                raise InvalidImage(f"too large: {reason}; `stillframe predict` gives a long video a timeline")
            video = read_whole(Path(file.name), metadata)
        return DecodedInput(video.image, describe_file(video, round(info.seconds, 3)))

    def _predict(self, images: Sequence[Pixels]) -> list[Any]:
        with self._lock:
            return predict_images(self.model, images)

    async def _explanation(self, decoded: DecodedInput, prediction: Any, wanted: bool) -> dict[str, Any]:
        """The field heat_map or overlay of a prediction, if it has one; null where it was not wanted."""
        fields = self.task.output.schema.model_fields
        draw = {"heat_map": self._heatmap, "overlay": self._overlay}
        for name in (name for name in draw if name in fields):
            if not wanted:
                return {name: None}
            loop = asyncio.get_running_loop()
            return {name: await loop.run_in_executor(self._explainer, draw[name], decoded, prediction)}
        return {}

    def _heatmap(self, decoded: DecodedInput, prediction: Any) -> dict[str, str]:
        start = time.perf_counter()
        with self._lock:
            explained = self.task.output.explained(prediction)
            image, heatmap, method = explain_prediction(self.model, decoded.image, explained)
        height, width = frame_strip(image).shape[:2]
        drawn = draw_heatmap(image, heatmap)[-height:, -width:]  # without the image beside it
        self.metrics.heat.observe(time.perf_counter() - start)
        return {"method": method, "png": base64.b64encode(encode_image(drawn)).decode()}

    def _overlay(self, decoded: DecodedInput, prediction: Any) -> str:
        drawn = self.task.output.draw(decoded.image, prediction)
        return base64.b64encode(encode_image(drawn)).decode()
