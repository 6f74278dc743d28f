"""Which images share a model call, and what becomes of calls that fail and of requests that went away."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np
import pytest

from stillframe.serving.batching import Batcher


class Model:
    """Answers an image by its first pixel; can be held up; remembers its calls."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.free = threading.Event()
        self.free.set()
        self.fails = False

    def __call__(self, images: Sequence[Any]) -> list[int]:
        self.calls.append([int(one[0, 0, 0]) for one in images])
        assert self.free.wait(20)
        if self.fails:
            raise RuntimeError("model")
        return self.calls[-1]


def image(value: int) -> np.ndarray:
    return np.full((2, 2, 1), value, dtype=np.uint8)


def run(use: Callable[[Batcher, Model], Awaitable[None]], **settings: Any) -> Model:
    """Use a batcher in an event loop of its own."""
    model = Model()

    async def inside() -> None:
        batcher = Batcher(model, **{"batch_size": 4, "wait_s": 20.0, "calls": 1, **settings})
        batcher.start()
        try:
            async with asyncio.timeout(60):
                await use(batcher, model)
        finally:
            model.free.set()
            await batcher.stop()

    asyncio.run(inside())
    return model


def test_each_gets_its_own_answer_in_calls_of_at_most_a_batch() -> None:
    async def use(batcher: Batcher, model: Model) -> None:
        said = await asyncio.gather(*(batcher.predict(image(at)) for at in range(11)))
        assert said == list(range(11))

    model = run(use)
    assert [len(call) for call in model.calls] == [4, 4, 3]


def test_one_alone_does_not_wait_although_it_might() -> None:
    """With wait_s of 20 s and nothing announced this would run into the time limit of `run` if it waited."""

    async def use(batcher: Batcher, model: Model) -> None:
        for at in range(5):
            await batcher.predict(image(at))

    assert [len(call) for call in run(use).calls] == [1] * 5


def test_it_waits_for_those_that_are_announced_and_no_longer() -> None:
    async def use(batcher: Batcher, model: Model) -> None:
        batcher.announce(3)
        first = asyncio.create_task(batcher.predict(image(1)))
        await asyncio.sleep(0.05)
        assert not model.calls
        second = asyncio.create_task(batcher.predict(image(2)))
        await asyncio.sleep(0)
        batcher.announce(-2)
        await asyncio.sleep(0.05)
        assert not model.calls
        batcher.announce(-1)  # the third was refused
        await asyncio.gather(first, second)

    assert run(use).calls == [[1, 2]]


def test_it_does_not_wait_longer_than_told() -> None:
    async def use(batcher: Batcher, model: Model) -> None:
        batcher.announce(1)
        assert await batcher.predict(image(7)) == 7

    assert run(use, wait_s=0.01).calls == [[7]]


def test_a_call_that_fails_is_told_to_its_requests_only() -> None:
    async def use(batcher: Batcher, model: Model) -> None:
        model.fails = True
        failed = await asyncio.gather(*(batcher.predict(image(at)) for at in range(2)), return_exceptions=True)
        assert [str(one) for one in failed] == ["model", "model"]
        model.fails = False
        assert await batcher.predict(image(3)) == 3

    run(use)


def test_the_model_is_not_asked_for_requests_that_went_away() -> None:
    async def use(batcher: Batcher, model: Model) -> None:
        model.free.clear()
        first = asyncio.create_task(batcher.predict(image(0)))
        while not model.calls:
            await asyncio.sleep(0.005)
        others = [asyncio.create_task(batcher.predict(image(at))) for at in (1, 2, 3)]
        await asyncio.sleep(0)
        others[1].cancel()
        first.cancel()  # while it is being answered
        await asyncio.sleep(0)
        model.free.set()
        assert list(await asyncio.gather(others[0], others[2])) == [1, 3]

    assert run(use).calls == [[0], [1, 3]]


def test_several_calls_run_at_once() -> None:
    async def use(batcher: Batcher, model: Model) -> None:
        model.free.clear()
        tasks = [asyncio.create_task(batcher.predict(image(at))) for at in range(4)]
        while len(model.calls) < 2:
            await asyncio.sleep(0.005)
        model.free.set()
        await asyncio.gather(*tasks)

    assert sorted(len(call) for call in run(use, calls=2, batch_size=2).calls) == [2, 2]


def test_ending_cancels_what_waits() -> None:
    async def use(batcher: Batcher, model: Model) -> None:
        batcher.announce(1)
        waiting = asyncio.create_task(batcher.predict(image(0)))
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    assert run(use).calls == []
