"""The contract of a task's `output.py`, and the types that it shares with export, predict and serve."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pydantic import BaseModel

    from stillframe.model_metadata import ModelMetadata

    Arrays = Mapping[str, NDArray[Any]]  # by the names of the exported file's outputs
    Strip = tuple[int, Arrays]  # the first row of a part of an image, and the arrays of the part


@dataclass(frozen=True)
class Distance:
    """How far two models are apart on a sample.

    Attributes:
        largest: largest absolute difference of a number.
        changed: decisions that differ (a class; of class maps one for each pixel).
        compared: decisions that were compared.
    """

    largest: float
    changed: int
    compared: int


@dataclass(frozen=True)
class Caption:
    """A prediction in a few words, for a frame of a video.

    Attributes:
        text: at most some 50 characters.
        color: index of a colour: equal predictions have the same.
        strength: 0..1, how strong the colour is in a timeline.
    """

    text: str
    color: int
    strength: float


class Output(Protocol):
    """`output.py`: from the arrays of a model to a prediction, and from a prediction to a row, a response, an image.

    A prediction is a value of the task's own type. numpy, no torch, and light: predict, serve and MLflow's servers
    import it. What only some tasks have: `average_views` (of clips), `blended`, `from_blended` and `join_rows` (of
    images in tiles), `explained` and `evidence` (column heat), `draw` (column overlay), `encode` and `legend`
    (`file_column`).

    Attributes:
        noun: what a prediction is, in a word for messages and names of folders: label, mask, value.
        full_size: a prediction lies in the image's own pixels: an image is kept at its own size and predicted by
            itself. Otherwise images are resized as soon as they are read, and predicted in batches.
        unit: what `Distance.compared` counts, in the plural: images, pixels.
        difference: what `Distance.largest` is a difference of: probability, value; export.json has max_<it>_difference.
        blended: name of the array that is averaged where tiles overlap.
        file_column: column of the table that names the file of a prediction which is too large for a row; or "".
        schema: one prediction in HTTP responses, with the fields name, file, and heat_map or overlay if it has one. The
            server's page draws the other fields by their kind: texts, lists of texts and numbers (a share, 0..1) in the
            heading, shares by name (`dict[str, float]`) as bars, {value, unit} by name as numbers, images in base64
            (`response.PNG`) as images.
    """

    noun: str
    full_size: bool
    unit: str
    difference: str
    blended: str
    file_column: str
    schema: type[BaseModel]

    def decode(self, strips: Iterable[Strip], height: int, width: int, metadata: ModelMetadata) -> Any:
        """The prediction for an image.

        Args:
            strips: the arrays of the sample, without the batch axis: one strip; of an image that was predicted in
                tiles (`metadata.overlap`) one for each row of tiles, from top to bottom, at the image's own size.
            height: of the image, px.
            width: of the image, px.
            metadata: of the model.
        """

    def average_views(self, arrays: Arrays, metadata: ModelMetadata) -> Arrays:
        """From the arrays of V views (V, ...) of one sample to those of the sample."""

    def from_blended(self, values: NDArray[Any], metadata: ModelMetadata) -> Arrays:
        """All arrays of a strip whose tiles' arrays `blended` were averaged to `values`."""

    def distance(self, first: Arrays, second: Arrays, target: Arrays) -> Distance:
        """How far the arrays of two models for one sample, or a strip of it, are apart."""

    def scored_row(self, arrays: Arrays, target: Arrays, classes: Sequence[str]) -> dict[str, Any]:
        """The row of a sample, or of a strip of it, with the columns that `Evaluation.statistics` needs at least."""

    def join_rows(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The row of a sample from those of its strips."""

    def columns(self, metadata: ModelMetadata) -> dict[str, type]:
        """The columns of `predict`'s table behind those of the input: name -> str or float.

        "reason" is there in any case; "heat" (a heat map) and "overlay" (an image) where they can be drawn.
        Columns `<noun>/<name>` become one object `<nouns>` in JSON lines.
        """

    def row(self, prediction: Any, metadata: ModelMetadata) -> dict[str, Any]:
        """The values of these columns, without reason, heat, overlay and `file_column`."""

    def encode(self, prediction: Any, metadata: ModelMetadata) -> bytes:
        """The file of `file_column`: a PNG."""

    def legend(self, metadata: ModelMetadata) -> str:
        """What the values in these files mean, as CSV."""

    def draw(self, image_HWC: NDArray[np.uint8], prediction: Any) -> NDArray[np.uint8]:
        """The prediction over the image: RGB (H, W, 3)."""

    def caption(self, prediction: Any, metadata: ModelMetadata) -> Caption:
        """The prediction in a few words."""

    def response(self, prediction: Any, metadata: ModelMetadata) -> dict[str, Any]:
        """The fields of `schema` besides name, file, heat_map and overlay."""

    def served_columns(self, metadata: ModelMetadata) -> dict[str, type]:
        """The columns of MLflow's model: name -> str, float or bytes."""

    def served_row(self, prediction: Any, metadata: ModelMetadata) -> dict[str, Any]:
        """The values of these columns."""

    def counted(self, prediction: Any, metadata: ModelMetadata) -> tuple[list[str], float | None]:
        """What a server counts: names of classes in the prediction, and its confidence (0..1) where it has one."""

    def explained(self, prediction: Any) -> int:
        """Index of the network's output that a heat map explains."""

    def evidence(self, arrays: Arrays, output: int) -> NDArray[Any]:
        """The number (N,) of each of N samples that falls where something covers what speaks for that output."""
