"""Many images through a model: decoded in threads ahead of it, asked in batches, answered in their order.

Memory does not grow with their number: what waits is bounded in images and in bytes of pixels. Threads, because
decoders and ONNX Runtime let go of Python's lock; processes would copy every picture once more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from stillframe.ingest.decode import DecodedImage, InvalidImage

Name = TypeVar("Name")
WAITING_BYTES = 256 << 20  # of decoded pixels, about: a camera's picture has 36 MB
AHEAD = 3  # batches that are read, or being read, while one is asked


class ModelOutput(Protocol):
    """Answers in the order of the images asked about."""

    @property
    def probability_NK(self) -> NDArray[np.floating[Any]]:
        """Rows summing to 1."""

    @property
    def decision_N(self) -> NDArray[np.int64]:
        """Class indices."""


@dataclass(frozen=True)
class InferenceResult(Generic[Name]):
    """One image and its answer, or why there is none.

    Attributes:
        name: what was asked about.
        reason: "" or "kind: detail", as in quarantine.csv.
        picture: the decoded image; None where there is a reason.
        probability_K: float32; None where there is a reason.
        decision: class index; -1 where there is a reason.
    """

    name: Name
    reason: str
    picture: DecodedImage | None = None
    probability_K: NDArray[np.floating[Any]] | None = None
    decision: int = -1


def answer_all(
    names: Iterable[Name],
    read: Callable[[Name], DecodedImage],
    ask: Callable[[Sequence[NDArray[np.uint8]]], ModelOutput],
    *,
    batch: int,
    threads: int,
) -> Iterator[InferenceResult[Name]]:
    """One answer a name, in the order of the names.

    Args:
        names: what `read` takes; read only as far ahead as needed.
        read: gives the decoded image, or raises Refused.
        ask: decoded images -> probabilities and decisions; called in this thread.
        batch: images asked at a time, at most; fewer of large ones.
        threads: that read.
    """
    waiting: deque[tuple[Name, Future[DecodedImage]]] = deque()
    source, largest = iter(names), 1
    with ThreadPoolExecutor(threads, thread_name_prefix="read") as pool:
        try:
            while True:
                at_once = max(1, min(batch, WAITING_BYTES // (AHEAD + 1) // largest))
                for name in islice(source, max(0, max(threads, AHEAD * at_once) + at_once - len(waiting))):
                    waiting.append((name, pool.submit(read, name)))
                if not waiting:
                    return
                taken = [waiting.popleft() for _ in range(min(at_once, len(waiting)))]
                answers = _ask(taken, ask)
                sizes = [one.picture.image.nbytes for one in answers if one.picture is not None]
                largest = max([largest // 2, 1, *sizes])  # one large picture does not slow all that follow
                yield from answers
        finally:
            for _, future in waiting:
                future.cancel()


def _ask(
    taken: list[tuple[Name, Future[DecodedImage]]], ask: Callable[[Sequence[NDArray[np.uint8]]], ModelOutput]
) -> list[InferenceResult[Name]]:
    found: list[DecodedImage | str] = []
    for _, future in taken:
        try:
            found.append(future.result())
        except InvalidImage as refusal:
            found.append(str(refusal))
    pictures = [one for one in found if isinstance(one, DecodedImage)]
    said = ask([one.image for one in pictures]) if pictures else None
    out: list[InferenceResult[Name]] = []
    answered = 0
    for (name, _), one in zip(taken, found, strict=True):
        if isinstance(one, str) or said is None:
            out.append(InferenceResult(name, str(one)))
            continue
        out.append(InferenceResult(name, "", one, said.probability_NK[answered], int(said.decision_N[answered])))
        answered += 1
    return out


def read_all(
    names: Iterable[Name], read: Callable[[Name], DecodedImage], *, threads: int
) -> Iterator[tuple[Name, DecodedImage | str]]:
    """Each name with its decoded image, or with the reason why there is none, in order; read ahead by threads.

    For answers that are large: one image at a time is asked about. What waits is bounded in bytes of pixels.
    """
    waiting: deque[tuple[Name, Future[DecodedImage]]] = deque()
    source, largest = iter(names), 1
    with ThreadPoolExecutor(threads, thread_name_prefix="read") as pool:
        try:
            while True:
                ahead = max(1, min(2 * threads, WAITING_BYTES // largest))
                for name in islice(source, max(0, ahead - len(waiting))):
                    waiting.append((name, pool.submit(read, name)))
                if not waiting:
                    return
                name, future = waiting.popleft()
                try:
                    picture = future.result()
                except InvalidImage as refusal:
                    yield name, str(refusal)
                    continue
                largest = max(largest // 2, 1, picture.image.nbytes)
                yield name, picture
        finally:
            for _, future in waiting:
                future.cancel()
