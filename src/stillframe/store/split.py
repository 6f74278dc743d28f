"""Prepared images on disk: one Arrow file a split, memory-mapped, read in whole batches.

A split is a folder with one Arrow IPC stream and the two JSON files that make it a `datasets` data set, so that
`datasets.load_from_disk("data/prepared/train")` opens it too. Images lie in one binary column: raw uint8 H*W*C when
small, encoded (JPEG) when large; of a clip all its frames, one behind the other (see `encoding.pack`). Beside them lie
the columns of targets that the task declares (see `columns`); state.json lists them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stillframe.paths import write_text
from stillframe.store.columns import TargetColumn
from stillframe.store.encoding import unpack

if TYPE_CHECKING:
    import pandas as pd

FILE = "data-00000-of-00001.arrow"
SAMPLE = (
    ("weight", pa.float32()),
    ("group", pa.string()),  # samples of one group never lie in two splits
    ("source_id", pa.string()),  # of an augmented copy: the id of its original; else the id itself
    ("source_width", pa.int32()),  # px, before resizing
    ("source_height", pa.int32()),
    ("source_mode", pa.string()),  # PIL mode of the file, e.g. "L", "RGB", "CMYK"
    ("slices", pa.string()),  # JSON object: the extra columns of the table, by name
    ("image", pa.large_binary()),
)
TILE = (
    ("origin", pa.string()),  # id of the image that this row is a tile of
    ("top", pa.int32()),  # px of the image, upright and not resized
    ("left", pa.int32()),
)
TYPES = {"int": pa.int64(), "floats": pa.float32(), "bools": pa.bool_()}  # as they are read


def schema(targets: Iterable[TargetColumn], *, tiles: bool) -> pa.Schema:
    """The columns of a split: the id, small targets, the sample, the tile if rows are tiles, and maps last."""
    targets = list(targets)
    small = [(column.name, _type(column)) for column in targets if not column.is_map]
    maps = [(column.name, _type(column)) for column in targets if column.is_map]
    # the id is a stable name: the path relative to the source, or "<idx file>#<row>"
    return pa.schema([("id", pa.string()), *small, *SAMPLE, *(TILE if tiles else ()), *maps])


def _type(column: TargetColumn) -> pa.DataType:
    if column.is_map:
        return pa.large_binary()
    return pa.int32() if column.kind == "int" else pa.list_(TYPES[column.kind], column.size)


def _feature(kind: pa.DataType) -> dict[str, Any]:
    """A column's type as `datasets` writes it in dataset_info.json."""
    if pa.types.is_fixed_size_list(kind):
        return {"feature": _feature(kind.value_type), "length": kind.list_size, "_type": "List"}
    return {"dtype": str(kind), "_type": "Value"}


class SplitWriter:
    """Writes one split, batch by batch, so that memory does not grow with the data set.

    Use as a context manager; the JSON files that make the folder a data set are written last.
    """

    def __init__(
        self,
        folder: Path,
        *,
        height: int,
        width: int,
        channels: int,
        encoding: str,
        targets: Sequence[TargetColumn],
        tiles: bool = False,
        frames: int = 1,
    ) -> None:
        """Open `folder` for a split of images (or clips of `frames`) of `height` x `width` px.

        Args:
            folder: is made if it is not there.
            height: px.
            width: px.
            channels: 1 or 3.
            encoding: of images and maps, "raw" or "jpeg".
            targets: the columns that the task declares.
            tiles: whether rows are tiles of larger images.
            frames: of each clip as it is stored; 1 for images.
        """
        self.folder, self.schema = folder, schema(targets, tiles=tiles)
        self.meta: dict[str, Any] = {"height": height, "width": width, "channels": channels, "encoding": encoding}
        self.meta |= {"frames": frames} if frames > 1 else {}
        self.meta["targets"] = [column.json() for column in targets]
        self.rows = 0
        folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        self.sink = pa.OSFile(str(self.folder / FILE), "wb")
        self.stream = pa.ipc.new_stream(self.sink, self.schema)
        return self

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        """Append rows; each has every column of the schema, images and maps as bytes (see `encoding`)."""
        if rows:
            self.stream.write_batch(pa.RecordBatch.from_pylist(list(rows), schema=self.schema))
            self.rows += len(rows)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stream.close()
        self.sink.close()
        if error is not None:
            return
        features = {name: _feature(self.schema.field(name).type) for name in self.schema.names}
        info = {"description": "prepared by stillframe", "features": features}
        state = {
            "_data_files": [{"filename": FILE}],
            "_fingerprint": "stillframe",
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": self.folder.name,
            "stillframe": {**self.meta, "rows": self.rows},
        }
        write_text(self.folder / "dataset_info.json", json.dumps(info, indent=2, sort_keys=True))
        write_text(self.folder / "state.json", json.dumps(state, indent=2, sort_keys=True))


class Split:
    """One prepared split, memory-mapped.

    Attributes:
        height: px.
        width: px.
        channels: 1 or 3.
        encoding: of images and maps, "raw" or "jpeg".
        frames: of each clip as it is stored; 1 for images.
        targets: the declared columns of targets, by name.
        tiled: whether each row is a tile of a larger image: columns origin, top and left.
        table: the columns without images and maps, one row a sample (pandas).
    """

    def __init__(self, folder: Path) -> None:
        """Open a split.

        Raises:
            FileNotFoundError: the folder holds no prepared split.
            ValueError: a file of it was cut short or changed; the message names it and the command that rebuilds it.
        """
        self.folder = folder
        try:
            meta = json.loads((folder / "state.json").read_text(encoding="utf-8"))["stillframe"]
            file = pa.memory_map(str(folder / FILE)).read_buffer()
            self.arrow = pa.ipc.open_stream(file).read_all()
            self.targets = {values["name"]: TargetColumn(**values) for values in meta["targets"]}
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{error.filename or folder} is missing: run `dvc repro` to make it") from None
        except (pa.ArrowInvalid, OSError, KeyError, json.JSONDecodeError) as error:
            raise ValueError(
                f"{folder} is damaged ({error}): `dvc checkout --force {folder}`, or delete it and `dvc repro`"
            ) from None
        self.height, self.width, self.channels = int(meta["height"]), int(meta["width"]), int(meta["channels"])
        self.encoding, self.frames = str(meta["encoding"]), int(meta.get("frames", 1))
        if len(self.arrow) != meta["rows"]:
            raise ValueError(
                f"{folder / FILE} has {len(self.arrow)} of {meta['rows']} samples (cut short?): "
                f"`dvc checkout --force {folder}`, or delete it and `dvc repro`"
            )
        self.tiled = TILE[0][0] in self.arrow.column_names
        pixels = ["image", *(column.name for column in self.targets.values() if column.is_map)]
        self.table: pd.DataFrame = self.arrow.drop_columns(pixels).to_pandas()
        self.values = {
            column.name: self._small(column) for column in self.targets.values() if not column.is_map
        }  # of all rows: they are small
        # of uncompressed columns: all images that the file may hold as a view, and where in it each row's begins
        self.raw: dict[str, tuple[NDArray[np.uint8], NDArray[np.int64]]] = {}
        if self.encoding == "raw":
            self.raw = {name: self._fixed(file, name, self.channels if name == "image" else 1) for name in pixels}
        self.encoded = {name: self.arrow[name] for name in pixels}

    def _small(self, column: TargetColumn) -> NDArray[Any]:
        """All values of a scalar or vector column: (N,) or (N, size)."""
        values = self.arrow[column.name].combine_chunks()
        if column.size is not None:
            values = values.flatten()
        flat: NDArray[Any] = values.cast(TYPES[column.kind]).to_numpy(zero_copy_only=False)
        return flat if column.size is None else flat.reshape(-1, column.size)

    def _fixed(self, file: pa.Buffer, name: str, channels: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Every (H, W, C) that may begin at a byte of the file, as a view without a copy; the byte of each row's first.

        Record batches are of some hundred rows: batch by batch a gather took longer than its copy.
        """
        size = self.height * self.width * channels * self.frames
        starts = [np.empty(0, dtype=np.int64)]
        for chunk in filter(len, self.arrow[name].chunks):
            ends = np.frombuffer(chunk.buffers()[1], dtype=np.int64, count=len(chunk) + 1, offset=8 * chunk.offset)
            if (np.diff(ends) != size).any():
                shape = (self.frames, self.height, self.width, channels)[self.frames == 1 :]
                raise ValueError(
                    f"{self.folder / FILE}: {name}s are not all {shape}: delete the folder and `dvc repro`"
                )
            starts.append(ends[:-1] + (chunk.buffers()[2].address - file.address))
        start_N = np.concatenate(starts)
        assert not len(start_N) or (0 <= start_N.min() and start_N.max() + size <= file.size), "not a view of the file"
        views = (max(0, file.size - size // self.frames + 1), self.height, self.width, channels)
        strides = (1, self.width * channels, channels, 1)
        return np.ndarray(views, np.uint8, file, strides=strides), start_N

    def __len__(self) -> int:
        return len(self.arrow)

    def images(
        self, rows: Iterable[int] | NDArray[np.int64], frames_BT: NDArray[np.int64] | None = None
    ) -> NDArray[np.uint8]:
        """The images of `rows`, in that order: uint8 (B, H, W, C), a fresh array; of clips (B, T, H, W, C).

        Args:
            rows: indices.
            frames_BT: of clips, which of the stored frames of each row; None: all of them.
        """
        row_B = _indices(rows)
        return self._clips(row_B, frames_BT) if self.frames > 1 else self._pixels("image", row_B, self.channels)

    def target(self, name: str, rows: Iterable[int] | NDArray[np.int64]) -> NDArray[Any]:
        """The targets `name` of `rows`, in that order, a fresh array: shape and type as of `TargetColumn.kind`.

        Raises:
            ValueError: the split has no such column.
        """
        if name not in self.targets:
            raise ValueError(
                f"{self.folder} has no target {name!r}, only {', '.join(self.targets) or 'none'}: "
                "prepare the data for this task (`task` and `data` in conf/, then `dvc repro`)"
            )
        if self.targets[name].is_map:
            return self._pixels(name, _indices(rows), 1)[:, :, :, 0]
        values: NDArray[Any] = self.values[name][_indices(rows)]
        return values

    def _clips(self, row_B: NDArray[np.int64], frames_BT: NDArray[np.int64] | None) -> NDArray[np.uint8]:
        if frames_BT is None:
            frames_BT = np.broadcast_to(np.arange(self.frames), (len(row_B), self.frames))
        if self.raw:
            views, start_N = self.raw["image"]
            size = self.height * self.width * self.channels
            clips: NDArray[np.uint8] = views[start_N[row_B][:, None] + frames_BT * size]
            return clips
        out = np.empty((*frames_BT.shape, self.height, self.width, self.channels), dtype=np.uint8)
        for i, row in enumerate(row_B.tolist()):
            frames = unpack(memoryview(self.encoded["image"][row].as_buffer()))
            for frame in np.unique(frames_BT[i]):  # a frame that is shown twice is decoded once
                out[i, frames_BT[i] == frame] = self._decode(frames[frame], "image", row, self.channels)
        return out

    def _pixels(self, name: str, row_B: NDArray[np.int64], channels: int) -> NDArray[np.uint8]:
        """Images or maps of rows: (B, H, W, channels)."""
        if self.raw:
            views, start_N = self.raw[name]
            return views[start_N[row_B]]
        out = np.empty((len(row_B), self.height, self.width, channels), dtype=np.uint8)
        for i, row in enumerate(row_B.tolist()):
            out[i] = self._decode(self.encoded[name][row].as_buffer(), name, row, channels)
        return out

    def _decode(self, content: Any, name: str, row: int, channels: int) -> NDArray[np.uint8]:
        import cv2

        flag = cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR_RGB
        image = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), flag)
        if image is None:
            raise ValueError(f"{self.folder / FILE}: {name} {row} does not decode: delete the folder and `dvc repro`")
        return np.asarray(image, dtype=np.uint8).reshape(self.height, self.width, channels)


def _indices(rows: Iterable[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    return np.asarray(rows if isinstance(rows, np.ndarray) else list(rows), dtype=np.int64)
