"""Order, refusals and bounded reading of `predict_all`, with a model that answers with the first pixel."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from stillframe.inference import stream
from stillframe.inference.stream import predict_all
from stillframe.ingest.decode import DecodedImage, InvalidImage


def picture(value: int, side: int = 2) -> DecodedImage:
    image = np.full((side, side, 1), value % 256, dtype=np.uint8)
    return DecodedImage(image, "L", "PNG", side, side)


def ask(images: Sequence[np.ndarray]) -> list[int]:
    return [int(image[0, 0, 0]) for image in images]


@pytest.mark.parametrize(("batch", "threads"), [(1, 1), (7, 3), (64, 2)])
def test_answers_come_in_the_order_of_the_names(batch: int, threads: int) -> None:
    def read(number: int) -> DecodedImage:
        time.sleep(0.002 * (number % 3))
        if number % 10 == 9:
            raise InvalidImage("damaged: on purpose")
        return picture(number)

    found = list(predict_all(range(100), read, ask, batch_size=batch, threads=threads))
    assert [one.name for one in found] == list(range(100))
    for one in found:
        bad = one.name % 10 == 9
        assert one.reason == ("damaged: on purpose" if bad else "")
        assert one.prediction == (None if bad else one.name) and (one.image is None) == bad


def test_only_refused_images_are_answered_too() -> None:
    def read(number: int) -> DecodedImage:
        raise InvalidImage("empty file: 0 bytes")

    assert [one.reason for one in predict_all(range(5), read, ask, batch_size=2, threads=2)] == [
        "empty file: 0 bytes"
    ] * 5
    assert list(predict_all([], read, ask, batch_size=2, threads=2)) == []


def test_reading_runs_ahead_by_no_more_than_it_must(monkeypatch: pytest.MonkeyPatch) -> None:
    """In images, and of large ones in bytes."""
    lock, state = threading.Lock(), {"read": 0, "most": 0, "done": 0}

    def read(number: int) -> DecodedImage:
        with lock:
            state["read"] += 1
            state["most"] = max(state["most"], state["read"] - state["done"])
        return picture(number, side=100)

    def consumed(batch: int) -> Iterator[int]:
        for one in predict_all(range(400), read, ask, batch_size=batch, threads=2):
            with lock:
                state["done"] += 1
            yield one.name

    assert list(consumed(10)) == list(range(400))
    assert state["most"] <= 5 * 10
    state.update(read=0, most=0, done=0)
    monkeypatch.setattr(stream, "WAITING_BYTES", 40_000)  # four of them
    names = consumed(10)
    for _ in range(60):
        next(names)
    state["most"] = 0
    assert len(list(names)) == 340
    assert state["most"] <= 8


def test_a_fault_of_ours_is_not_an_answer() -> None:
    def read(number: int) -> DecodedImage:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(predict_all(range(5), read, ask, batch_size=2, threads=2))
