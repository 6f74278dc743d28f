"""Predictions for decoded images by a model of any task: in batches, in tiles, over the views of a video."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from stillframe.ingest.decode import Pixels, prepare
from stillframe.ingest.tiles import TileRows, cut, grid
from stillframe.model_metadata import ModelMetadata
from stillframe.tasks import find_task

if TYPE_CHECKING:
    from stillframe.tasks.base_output import Arrays, Output, Strip

TILE_PX = 1 << 20  # pixels of the tiles that are predicted together, about


class Predictor(Protocol):
    """A model that predicts images of one size together: an exported file, or a trained network.

    An image is uint8 (H, W, C), C = 1 or 3, upright, as `ingest.decode` gives it; of a model of clips of T frames a
    clip (T, H, W, C), or V views of one video (V, T, H, W, C), which get one prediction.
    """

    metadata: ModelMetadata

    def run(self, image_NHWC: Pixels) -> dict[str, NDArray[Any]]:
        """The outputs by name, N first, for images (N, H, W, C) or clips (N, T, H, W, C), uint8, of any one size."""


def predict_images(model: Predictor, images: Sequence[Pixels]) -> list[Any]:
    """The task's predictions for decoded images, clips or views of any sizes, in their order.

    Raises:
        ValueError: an array that is no image, or no clip of as many frames as the model takes.
    """
    metadata, output = model.metadata, find_task(model.metadata.task).output
    strips = predict_strips(model, images)
    sizes = [image.shape[-3:-1] for image in images]
    return [output.decode(s, height, width, metadata) for s, (height, width) in zip(strips, sizes, strict=True)]


def predict_strips(model: Predictor, images: Sequence[Pixels]) -> list[Iterable[Strip]]:
    """The arrays of each image, at the size at which the task is evaluated: see `Output.decode`."""
    output, metadata = find_task(model.metadata.task).output, model.metadata
    for image in images:
        check_image(image, metadata.frames)
    if metadata.overlap is not None:
        return [_in_tiles(model, output, image, metadata.overlap) for image in images]
    if output.full_size:  # as large as images: one after the other, when its arrays are wanted
        return [_alone(model, image) for image in images]
    return [[(0, arrays)] for arrays in _in_batches(model, output, images)]


def _alone(model: Predictor, image: Pixels) -> Iterator[Strip]:
    yield 0, {name: array[0] for name, array in model.run(image[None]).items()}


def _in_batches(model: Predictor, output: Output, images: Sequence[Pixels]) -> list[Arrays]:
    # the views of a video are samples of the batch like any other
    views = [list(image) if image.ndim == 5 else [image] for image in images]
    flat = [view for some in views for view in some]
    by_shape: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, view in enumerate(flat):
        by_shape[view.shape].append(index)
    arrays: list[Arrays] = [{}] * len(flat)
    for indices in by_shape.values():
        outputs = model.run(np.stack([flat[index] for index in indices]))
        for row, index in enumerate(indices):
            arrays[index] = {name: values[row] for name, values in outputs.items()}
    # several views of one video become one prediction
    merged, rest = [], iter(arrays)
    for some in views:
        own = [next(rest) for _ in some]
        stacked = (
            {name: np.stack([view_arrays[name] for view_arrays in own]) for name in own[0]} if len(own) > 1 else {}
        )
        merged.append(output.average_views(stacked, model.metadata) if stacked else own[0])
    return merged


def _in_tiles(model: Predictor, output: Output, image: Pixels, overlap: float) -> Iterator[Strip]:
    """Row by row of tiles, so that memory does not grow with the image's height."""
    size, (height, width) = model.metadata.size, image.shape[:2]
    batch_size = max(1, TILE_PX // (size * size))
    tiles, strips = grid(height, width, size, overlap), None
    for top in sorted({top for top, _ in tiles}):
        row = np.stack([cut(image, *tile, size, 0) for tile in tiles if tile[0] == top])
        batches = [row[first : first + batch_size] for first in range(0, len(row), batch_size)]
        values = np.concatenate([model.run(batch)[output.blended] for batch in batches])
        strips = strips or TileRows(values.shape[1], height, width, size, tiles)
        first_row, blended = strips.add(values)
        yield first_row, output.from_blended(blended, model.metadata)


def check_image(image: Any, frames: int = 1) -> None:
    """Raise ValueError for what is no decoded image, uint8 (H, W, 1 or 3); no clip or views where `frames` is not 1."""
    noun = "an image" if frames == 1 else "a clip"
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        raise ValueError(f"{noun} is an array of uint8, not {getattr(image, 'dtype', type(image).__name__)}")
    fits = image.ndim == 3 if frames == 1 else image.ndim in (4, 5) and image.shape[-4] == frames
    if not fits or image.shape[-1] not in (1, 3) or 0 in image.shape:
        shape = "height, width, 1 or 3" if frames == 1 else f"{frames} frames, height, width, 1 or 3"
        raise ValueError(f"{noun} has the shape ({shape}), not {image.shape}")


def preprocess(image: Pixels, metadata: ModelMetadata) -> Pixels:
    """An image, a clip or views of any size as the network takes them: (..., S, S, channels)."""
    if image.ndim == 3:
        return prepare(image, metadata.size, metadata.resize, metadata.channels)
    frames = image.reshape(-1, *image.shape[-3:])
    resized = np.stack([prepare(frame, metadata.size, metadata.resize, metadata.channels) for frame in frames])
    return resized.reshape(*image.shape[:-3], *resized.shape[1:])
