"""A model in service: bytes of images or videos in, answers as they are sent out."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from stillframe.drawing.encode import encode_image
from stillframe.drawing.frame_strip import frame_strip
from stillframe.drawing.heatmap import draw_heatmap
from stillframe.inference.expand_paths import InputFile
from stillframe.inference.heatmaps import heat_of
from stillframe.inference.onnx_model import ModelOutputs, OnnxModel, shown
from stillframe.inference.video_windows import judged, read_whole
from stillframe.ingest.decode import DecodedImage, InvalidImage, Pixels, decode
from stillframe.ingest.workers import cores
from stillframe.serving.batching import BatchedPrediction, Batcher
from stillframe.serving.errors import ApiError
from stillframe.serving.prometheus import ServiceMetrics
from stillframe.serving.requests import UploadedFile
from stillframe.serving.settings import ServingSettings

if TYPE_CHECKING:
    from stillframe.inference.trained_model import TrainedModel


@dataclass(frozen=True, slots=True)
class DecodedInput:
    """An image as the net is shown it, and what its file was."""

    picture: Pixels  # uint8 (S, S, C); of a video its views (V, T, S, S, C)
    file: dict[str, Any]


def file_of(picture: DecodedImage, seconds: float | None = None) -> dict[str, Any]:
    """What an answer says of the file."""
    known = {name: getattr(picture, name) for name in ("format", "mode", "width", "height", "frames")}
    return {**known, "seconds": seconds}


class Service:
    """One model and what is in hand.

    Attributes:
        facts: of the model.
        metrics: what was counted.
        ready: whether requests are taken.
        draining: whether the server is ending.
        in_hand: requests that are being received or answered.
        bytes_in_hand: of their bodies.
        dropped: requests that the end of the server cut off.
    """

    def __init__(self, model: OnnxModel | TrainedModel, settings: ServingSettings, digest: str) -> None:
        self.model, self.settings, self.digest, self.facts = model, settings, digest, model.facts
        self.metrics = ServiceMetrics(self.facts, digest)
        self.ready = self.draining = False
        self.in_hand = self.bytes_in_hand = self.dropped = 0
        # an exported file answers several threads at once; hooks of a heat map on a net would see the others' images
        self._alone: AbstractContextManager[Any] = nullcontext() if isinstance(model, OnnxModel) else Lock()
        self.batcher = Batcher(
            self._answers,
            batch=settings.batch,
            wait_s=settings.wait_ms / 1e3,
            calls=settings.calls,
            seen=self.metrics.call,
        )
        self._readers = ThreadPoolExecutor(cores(), thread_name_prefix="read")  # bounds the pixels that are decoded
        self._explainer = ThreadPoolExecutor(1, thread_name_prefix="explain")
        self.metrics.watch("requests_in_hand", "Requests being received or answered", lambda: float(self.in_hand))
        self.metrics.watch("waiting_images", "Images that no model call has taken", lambda: float(self.batcher.waiting))

    @property
    def origin(self) -> dict[str, Any]:
        """What every answer says of the model."""
        facts = self.facts
        known = {"run_id": facts.run_id, "git_commit": facts.git_commit, "data_hash": facts.data_hash}
        return {"net": facts.net, "variant": facts.variant, "digest": f"sha256:{self.digest}", **known}

    @property
    def description(self) -> dict[str, Any]:
        """All facts of the model, and the server's limits."""
        limits = ("max_images", "max_body_mb", "max_seconds", "max_requests", "max_explained", "timeout_s", "batch")
        own = {name: getattr(self.settings, name) for name in limits} | {"max_megapixels": self.max_megapixels}
        return {"model": {**asdict(self.facts), "digest": f"sha256:{self.digest}"}, "limits": own}

    @property
    def max_megapixels(self) -> float:
        """Of one image."""
        return min(self.settings.max_megapixels or self.facts.max_megapixels, self.facts.max_megapixels)

    async def start(self) -> None:
        """Ask the model once with one and once with a whole batch, so that no request pays for its first call."""
        facts = self.facts
        picture = (facts.size, facts.size, facts.channels)
        black = np.zeros(picture if facts.frames == 1 else (facts.frames, *picture), dtype=np.uint8)
        for images in (1, self.settings.batch):
            await asyncio.to_thread(self._answers, [black] * images)
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

    async def predict(self, sent: list[UploadedFile], *, explain: bool) -> dict[str, Any]:
        """The response about some images, in their order.

        Raises:
            ApiError: no image, too many, or any of them is refused; then none is answered.
        """
        self.check(sent, explain=explain)
        read = await self._read_all(sent)
        answers = await asyncio.gather(*(self.batcher.ask(one.picture) for one in read))
        heat = [await self._heat(one, said) if explain else None for one, said in zip(read, answers, strict=True)]
        rows = zip(sent, read, answers, heat, strict=True)
        return {"predictions": [self._row(*row) for row in rows], "model": self.origin}

    def check(self, sent: list[UploadedFile], *, explain: bool) -> None:
        """Rejected: no image, or too many to explain."""
        if not sent:
            raise ApiError("bad request", "no image was sent")
        if explain and len(sent) > self.settings.max_explained:
            more = f"{len(sent)} images, more than {self.settings.max_explained} to explain (serve: max_explained)"
            raise ApiError("too large", more)

    async def _read_all(self, sent: list[UploadedFile]) -> list[DecodedInput]:
        self.batcher.announce(len(sent))
        try:
            reading = (self.in_reader(self._read, one.content) for one in sent)
            found = await asyncio.gather(*reading, return_exceptions=True)
        finally:
            self.batcher.announce(-len(sent))
        failures = [one for one in found if isinstance(one, BaseException) and not isinstance(one, InvalidImage)]
        if failures:
            raise failures[0]
        refused = {at: one for at, one in enumerate(found) if isinstance(one, InvalidImage)}
        if refused:
            raise self._refusal(sent, refused)
        return [one for one in found if isinstance(one, DecodedInput)]

    def _refusal(self, sent: list[UploadedFile], refused: dict[int, InvalidImage]) -> ApiError:
        for one in refused.values():
            self.metrics.refused.labels(one.kind).inc()
        word = "too large" if all(one.kind == "too large" for one in refused.values()) else "refused"
        number = f"{len(refused)} of {len(sent)} images refused, none answered; " if len(sent) > 1 else ""
        listed = [{"index": at, "name": sent[at].name, "reason": str(one)} for at, one in refused.items()]
        return ApiError(word, number + str(next(iter(refused.values()))), listed)

    def _read(self, content: bytes) -> DecodedInput:
        """By preprocessing's own rules (InvalidImage: with the reason that quarantine.csv would have)."""
        facts = self.facts
        if facts.frames > 1:
            return self._read_video(content)
        picture = decode(content, min_px=facts.min_px, max_megapixels=self.max_megapixels)
        return DecodedInput(shown(picture.image, facts), file_of(picture))

    def _read_video(self, content: bytes) -> DecodedInput:
        """From a file: videos are sought in."""
        most, limits = self.settings.max_seconds, replace(self.facts, max_megapixels=self.max_megapixels)
        with NamedTemporaryFile(prefix="stillframe-") as file:
            file.write(content)
            file.flush()
            about = judged(InputFile(file.name), limits)
            if about.seconds > most:
                long = f"{about.seconds:.1f} s, more than {most:g} (serve: max_seconds)"
                raise InvalidImage(f"too large: {long}; `stillframe predict` gives a long video a timeline")
            picture = read_whole(Path(file.name), limits)
        return DecodedInput(picture.image, file_of(picture, round(about.seconds, 3)))

    def _answers(self, pictures: Sequence[Pixels]) -> ModelOutputs:
        with self._alone:
            return self.model(pictures)

    async def _heat(self, read: DecodedInput, said: BatchedPrediction) -> dict[str, str]:
        return await asyncio.get_running_loop().run_in_executor(self._explainer, self._draw, read, said)

    def _draw(self, read: DecodedInput, said: BatchedPrediction) -> dict[str, str]:
        begun = time.perf_counter()
        with self._alone:
            picture, heat, method = heat_of(self.model, read.picture, said.decision)
        height, width = frame_strip(picture).shape[:2]
        under = draw_heatmap(picture, heat)[-height:, -width:]  # without the picture beside it
        self.metrics.heat.observe(time.perf_counter() - begun)
        return {"method": method, "png": base64.b64encode(encode_image(under)).decode()}

    def _row(
        self, sent: UploadedFile, read: DecodedInput, said: BatchedPrediction, heat: dict[str, str] | None
    ) -> dict[str, Any]:
        values = [round(float(value), 6) for value in said.probability_K]
        name = self.facts.classes[said.decision]
        self.metrics.answers.labels(name).inc()
        self.metrics.confidence.observe(values[said.decision])
        answer = {"decision": name, "index": said.decision, "probability": values[said.decision]}
        shares = dict(zip(self.facts.classes, values, strict=True))
        return {"name": sent.name, **answer, "probabilities": shares, "file": read.file, "heat_map": heat}
