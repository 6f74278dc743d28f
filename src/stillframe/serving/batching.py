"""Images of several requests in one model call.

A call begins as soon as the model is free and either enough images wait, or no other is on its way (being received
into pictures), or the first has waited long enough. So a single client never waits for company that is not coming.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stillframe.inference.onnx_model import ModelOutputs

Pixels = NDArray[np.uint8]
Ask = Callable[[Sequence[Pixels]], ModelOutputs]


@dataclass(frozen=True)
class BatchedPrediction:
    """The answer about one image: float32 (K,), and the class index."""

    probability_K: NDArray[np.floating]
    decision: int


@dataclass
class QueuedImage:
    """An image that waits for its answer since `since` (`time.monotonic`)."""

    image: Pixels
    answer: asyncio.Future[BatchedPrediction]
    since: float


class Batcher:
    """Asks a model about images that arrive one by one.

    Attributes:
        coming: images that were announced and have not arrived yet.
    """

    def __init__(
        self,
        ask: Ask,
        *,
        batch: int,
        wait_s: float,
        calls: int,
        seen: Callable[[int, float], None] = lambda images, seconds: None,
    ) -> None:
        """Set up; `start` begins.

        Args:
            ask: the model; called in threads of its own.
            batch: images a call, at most.
            wait_s: the longest that a call is put off for images that are coming.
            calls: at the same time.
            seen: told the images and seconds of each call.
        """
        self.model, self.batch, self.wait_s, self.calls, self.seen = ask, batch, wait_s, calls, seen
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
        """Begin to answer (in a running event loop)."""
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

    async def ask(self, image: Pixels) -> BatchedPrediction:
        """The answer about an image, all images of one shape (raises what the model raises)."""
        answer: asyncio.Future[BatchedPrediction] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait(QueuedImage(image, answer, time.monotonic()))
        self._arrived.set()
        return await answer

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            async with self._collecting:
                taken = await self._collect()
            if not taken:
                continue
            begun = time.perf_counter()
            try:
                said = await loop.run_in_executor(self._pool, self.model, [one.image for one in taken])
            except Exception as error:  # whatever it was, the requests must hear of it and the next call must come
                for one in taken:
                    if not one.answer.done():
                        one.answer.set_exception(error)
                continue
            self.seen(len(taken), time.perf_counter() - begun)
            for at, one in enumerate(taken):
                if not one.answer.done():  # else its request has timed out meanwhile
                    one.answer.set_result(BatchedPrediction(said.probability_NK[at], int(said.decision_N[at])))

    async def _collect(self) -> list[QueuedImage]:
        taken = [await self._queue.get()]
        last = taken[0].since + self.wait_s
        while len(taken) < self.batch:
            if not self._queue.empty():
                taken.append(self._queue.get_nowait())
                continue
            left = last - time.monotonic()
            if self.coming <= 0 or left <= 0:
                break
            self._arrived.clear()
            try:
                async with asyncio.timeout(left):
                    await self._arrived.wait()
            except TimeoutError:
                break
        return [one for one in taken if not one.answer.done()]
