"""Images of several requests in one model call.

A call begins as soon as the model is free and either enough images wait, or no other is on its way (being received
and decoded), or the first has waited long enough. So a single client never waits for company that is not coming.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from stillframe.ingest.decode import Pixels

Predict = Callable[[Sequence[Pixels]], Sequence[Any]]


@dataclass
class QueuedImage:
    """An image that waits for its prediction since `since` (`time.monotonic`)."""

    image: Pixels
    prediction: asyncio.Future[Any]
    since: float


class Batcher:
    """Runs a model on images that arrive one by one.

    Attributes:
        coming: images that were announced and have not arrived yet.
    """

    def __init__(
        self,
        predict: Predict,
        *,
        batch_size: int,
        wait_s: float,
        calls: int,
        observe: Callable[[int, float], None] = lambda images, seconds: None,
    ) -> None:
        """Set up; `start` begins.

        Args:
            predict: the model; called in threads of its own.
            batch_size: images a call, at most.
            wait_s: the longest that a call is put off for images that are coming.
            calls: at the same time.
            observe: called with the images and seconds of each call.
        """
        self.model, self.batch_size, self.wait_s = predict, batch_size, wait_s
        self.calls, self.observe = calls, observe
        self.coming = 0
        self._queue: asyncio.Queue[QueuedImage] = asyncio.Queue()
        self._collecting = asyncio.Lock()
        self._arrived = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._pool = ThreadPoolExecutor(calls, thread_name_prefix="model")

    @property
    def waiting(self) -> int:
        """Images that no call has taken yet."""
        return self._queue.qsize()

    def start(self) -> None:
        """Begin (in a running event loop)."""
        self._tasks = [asyncio.create_task(self._work()) for _ in range(self.calls)]

    async def stop(self) -> None:
        """End; what still waits is cancelled."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._pool.shutdown(wait=True, cancel_futures=True)

    def announce(self, images: int) -> None:
        """So many images are on their way; a negative number: so many arrived, or will not."""
        self.coming += images
        self._arrived.set()

    async def predict(self, image: Pixels) -> Any:
        """The prediction for an image (raises what the model raises)."""
        prediction: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait(QueuedImage(image, prediction, time.monotonic()))
        self._arrived.set()
        return await prediction

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            async with self._collecting:
                batch = await self._collect()
            if not batch:
                continue
            start = time.perf_counter()
            try:
                predictions = await loop.run_in_executor(self._pool, self.model, [queued.image for queued in batch])
            except Exception as error:  # whatever it was, the requests must hear of it and the next call must come
                for queued in batch:
                    if not queued.prediction.done():
                        queued.prediction.set_exception(error)
                continue
            self.observe(len(batch), time.perf_counter() - start)
            for queued, prediction in zip(batch, predictions, strict=True):
                if not queued.prediction.done():  # else its request has timed out meanwhile
                    queued.prediction.set_result(prediction)

    async def _collect(self) -> list[QueuedImage]:
        batch = [await self._queue.get()]
        deadline = batch[0].since + self.wait_s
        while len(batch) < self.batch_size:
            if not self._queue.empty():
                batch.append(self._queue.get_nowait())
                continue
            left = deadline - time.monotonic()
            if self.coming <= 0 or left <= 0:
                break
            self._arrived.clear()
            try:
                async with asyncio.timeout(left):
                    await self._arrived.wait()
            except TimeoutError:
                break
        return [queued for queued in batch if not queued.prediction.done()]
