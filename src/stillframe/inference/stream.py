"""Many images through a model: decoded in threads ahead of it, predicted in batches, in their order.

Memory does not grow with their number: what waits is bounded in images and in bytes of pixels. Threads, because
decoders and ONNX Runtime let go of Python's lock; processes would copy every image once more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, TypeVar

from stillframe.ingest.decode import DecodedImage, InvalidImage, Pixels

Name = TypeVar("Name")
WAITING_BYTES = 256 << 20  # of decoded pixels, about: a camera's image has 36 MB
AHEAD = 3  # batches that are read, or being read, while one is predicted


@dataclass(frozen=True)
class InferenceResult(Generic[Name]):
    """One image and its prediction, or why there is none.

    Attributes:
        name: of the input.
        reason: "" or "kind: detail", as in quarantine.csv.
        image: decoded; None where there is a reason.
        prediction: of the task's own type; None where there is a reason.
    """

    name: Name
    reason: str
    image: DecodedImage | None = None
    prediction: Any = None


def predict_all(
    names: Iterable[Name],
    read: Callable[[Name], DecodedImage],
    predict: Callable[[Sequence[Pixels]], Sequence[Any]],
    *,
    batch_size: int,
    threads: int,
) -> Iterator[InferenceResult[Name]]:
    """One result for each name, in the order of the names.

    Args:
        names: what `read` takes; read only as far ahead as needed.
        read: gives the decoded image, or raises InvalidImage.
        predict: decoded images -> a prediction for each; called in this thread.
        batch_size: images predicted together, at most; fewer of large ones.
        threads: that read.
    """
    for batch in read_batches(names, read, batch_size=batch_size, threads=threads):
        images = [image.image for _, image in batch if isinstance(image, DecodedImage)]
        predictions = iter(predict(images) if images else ())
        for name, image in batch:
            if isinstance(image, DecodedImage):
                yield InferenceResult(name, "", image, next(predictions))
            else:
                yield InferenceResult(name, image)


def read_batches(
    names: Iterable[Name], read: Callable[[Name], DecodedImage], *, batch_size: int, threads: int
) -> Iterator[list[tuple[Name, DecodedImage | str]]]:
    """Batches of names, each with its decoded image or with the reason why there is none; arguments as above."""
    waiting: deque[tuple[Name, Future[DecodedImage]]] = deque()
    source, largest = iter(names), 1
    with ThreadPoolExecutor(threads, thread_name_prefix="read") as pool:
        try:
            while True:
                size = max(1, min(batch_size, WAITING_BYTES // (AHEAD + 1) // largest))
                ahead = max(threads, AHEAD * size) + size
                for name in islice(source, max(0, ahead - len(waiting))):
                    waiting.append((name, pool.submit(read, name)))
                if not waiting:
                    return
                taken = [waiting.popleft() for _ in range(min(size, len(waiting)))]
                batch = [(name, _result(future)) for name, future in taken]
                sizes = [image.image.nbytes for _, image in batch if isinstance(image, DecodedImage)]
                largest = max([largest // 2, 1, *sizes])  # one large image does not slow all that follow
                yield batch
        finally:
            for _, future in waiting:
                future.cancel()


def _result(future: Future[DecodedImage]) -> DecodedImage | str:
    try:
        return future.result()
    except InvalidImage as refusal:
        return str(refusal)
