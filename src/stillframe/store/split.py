"""Prepared images on disk: one Arrow file a split, memory-mapped, read in whole batches.

A split is a folder with one Arrow IPC stream and the two JSON files that make it a `datasets` data set, so that
`datasets.load_from_disk("data/prepared/train")` opens it too. Images lie in one binary column: raw uint8 H*W*C when
small, encoded (JPEG) when large; of a clip all its frames, one behind the other (see `pack`). Data with masks has one
more column, `mask`: raw uint8 H*W, or PNG where images are encoded.
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

if TYPE_CHECKING:
    import pandas as pd

FILE = "data-00000-of-00001.arrow"
SCHEMA = pa.schema(
    [
        ("id", pa.string()),  # stable name: path relative to the source, or "<idx file>#<row>"
        ("label", pa.int32()),  # class index
        ("weight", pa.float32()),
        ("group", pa.string()),  # samples of one group never lie in two splits
        ("source_id", pa.string()),  # of an augmented copy: the id of its original; else the id itself
        ("source_width", pa.int32()),  # px, before resizing
        ("source_height", pa.int32()),
        ("source_mode", pa.string()),  # PIL mode of the file, e.g. "L", "RGB", "CMYK"
        ("slices", pa.string()),  # JSON object: the extra columns of the table, by name
        ("image", pa.large_binary()),
    ]
)
MASK = pa.field("mask", pa.large_binary())  # the last column of a split with masks
TILE = (
    pa.field("origin", pa.string()),  # id of the picture that this row is a tile of
    pa.field("top", pa.int32()),  # px of the picture, upright and not resized
    pa.field("left", pa.int32()),
)


def schema(*, masks: bool, tiles: bool) -> pa.Schema:
    """The columns of a split, with masks and of tiles, or not."""
    return pa.schema([*SCHEMA, *(TILE if tiles else ()), *([MASK] if masks else [])])


def encode(image: NDArray[np.uint8], encoding: str) -> bytes:
    """An image (H, W, C) as the store keeps it: its bytes, or JPEG of quality 95."""
    if encoding == "raw":
        return image.tobytes()
    import simplejpeg

    colours = "GRAY" if image.shape[2] == 1 else "RGB"
    made: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(image), quality=95, colorspace=colours, colorsubsampling="444"
    )
    return made


def pack(frames: Sequence[bytes]) -> bytes:
    """Encoded frames as one value: their number and lengths, uint32 little endian, then the frames."""
    head = np.array([len(frames), *map(len, frames)], dtype="<u4")
    return b"".join([head.tobytes(), *frames])


def encode_clip(clip: NDArray[np.uint8], encoding: str) -> bytes:
    """A clip (T, H, W, C) as the store keeps it: its bytes, or its frames as JPEG."""
    return clip.tobytes() if encoding == "raw" else pack([encode(frame, encoding) for frame in clip])


def unpack(content: bytes | memoryview) -> list[bytes]:
    """The inverse of `pack`."""
    count = int(np.frombuffer(content, "<u4", 1)[0])
    ends = np.cumsum(np.frombuffer(content, "<u4", count, 4), dtype=np.int64) + 4 * (count + 1)
    starts = np.concatenate([[4 * (count + 1)], ends[:-1]])
    return [bytes(content[first:end]) for first, end in zip(starts, ends, strict=True)]


def encode_mask(mask_HW: NDArray[np.uint8], encoding: str) -> bytes:
    """A mask as the store keeps it beside images of that encoding: its bytes, or PNG, which loses nothing."""
    if encoding == "raw":
        return mask_HW.tobytes()
    import cv2

    done, content = cv2.imencode(".png", mask_HW, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    assert done
    return content.tobytes()


def decode_mask(content: bytes, encoding: str, height: int, width: int) -> NDArray[np.uint8]:
    """The inverse of `encode_mask`: (height, width)."""
    values = np.frombuffer(content, dtype=np.uint8)
    if encoding == "raw":
        return values.reshape(height, width)
    import cv2

    return np.asarray(cv2.imdecode(values, cv2.IMREAD_GRAYSCALE), dtype=np.uint8)


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
        masks: bool = False,
        tiles: bool = False,
        frames: int = 1,
    ) -> None:
        """Open `folder` for a split of images (or clips of `frames`) of `height` x `width` px; encoding raw or jpeg."""
        self.folder, self.schema = folder, schema(masks=masks, tiles=tiles)
        self.meta = {"height": height, "width": width, "channels": channels, "encoding": encoding}
        self.meta |= {"frames": frames} if frames > 1 else {}
        self.rows = 0
        folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        self.sink = pa.OSFile(str(self.folder / FILE), "wb")
        self.stream = pa.ipc.new_stream(self.sink, self.schema)
        return self

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        """Append rows; each has every column of the schema, `image` (and `mask`) as bytes."""
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
        features = {name: {"dtype": str(self.schema.field(name).type), "_type": "Value"} for name in self.schema.names}
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
        frames: of each clip as it is stored; 1 for images.
        masked: whether each row has a mask.
        tiled: whether each row is a tile of a picture: columns origin, top and left.
        table: the columns without images and masks, one row a sample (pandas).
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
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{error.filename or folder} is missing: run `dvc repro` to make it") from None
        except (pa.ArrowInvalid, OSError, KeyError, json.JSONDecodeError) as error:
            raise ValueError(
                f"{folder} is damaged ({error}): `dvc checkout --force {folder}`, or delete it and `dvc repro`"
            ) from None
        self.height, self.width, self.channels = (
            int(meta["height"]),
            int(meta["width"]),
            int(meta["channels"]),
        )
        self.encoding, self.frames = str(meta["encoding"]), int(meta.get("frames", 1))
        if len(self.arrow) != meta["rows"]:
            raise ValueError(
                f"{folder / FILE} has {len(self.arrow)} of {meta['rows']} samples (cut short?): "
                f"`dvc checkout --force {folder}`, or delete it and `dvc repro`"
            )
        self.masked, self.tiled = (name in self.arrow.column_names for name in (MASK.name, TILE[0].name))
        pixels = ["image", MASK.name] if self.masked else ["image"]
        self.table: pd.DataFrame = self.arrow.drop_columns(pixels).to_pandas()
        self.raw = self._fixed(file, "image", self.channels) if self.encoding == "raw" else None
        self.raw_mask = self._fixed(file, MASK.name, 1) if self.masked and self.encoding == "raw" else None
        self.encoded = self.arrow["image"]

    def _fixed(self, file: pa.Buffer, column: str, channels: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """What an image or a frame may be in the file, one view for each place, no copy; the place of each row's first.

        Record batches are of some hundred rows: batch by batch a gather took longer than its copy.
        """
        size = self.height * self.width * channels * self.frames
        places = [np.empty(0, dtype=np.int64)]
        for chunk in filter(len, self.arrow[column].chunks):
            ends = np.frombuffer(chunk.buffers()[1], dtype=np.int64, count=len(chunk) + 1, offset=8 * chunk.offset)
            if (np.diff(ends) != size).any():
                shape = (self.frames, self.height, self.width, channels)[self.frames == 1 :]
                raise ValueError(
                    f"{self.folder / FILE}: {column}s are not all {shape}: delete the folder and `dvc repro`"
                )
            places.append(ends[:-1] + (chunk.buffers()[2].address - file.address))
        place_N = np.concatenate(places)
        assert not len(place_N) or (0 <= place_N.min() and place_N.max() + size <= file.size), "not a view of the file"
        views = (max(0, file.size - size // self.frames + 1), self.height, self.width, channels)
        strides = (1, self.width * channels, channels, 1)
        return np.ndarray(views, np.uint8, file, strides=strides), place_N

    def __len__(self) -> int:
        return len(self.arrow)

    def images(
        self, indices: Iterable[int] | NDArray[np.int64], picks_BT: NDArray[np.int64] | None = None
    ) -> NDArray[np.uint8]:
        """The images at `indices`, in that order: uint8 (B, H, W, C), a fresh array; of clips (B, T, H, W, C).

        Args:
            indices: rows.
            picks_BT: of clips, which of the stored frames of each row; None: all of them.
        """
        wanted = np.asarray(list(indices) if not isinstance(indices, np.ndarray) else indices, dtype=np.int64)
        if self.frames > 1:
            return self._clips(wanted, picks_BT)
        if self.raw is None:
            return self._decode(wanted, "image", self.channels)
        at, place_N = self.raw
        return at[place_N[wanted]]

    def _clips(self, wanted: NDArray[np.int64], picks_BT: NDArray[np.int64] | None) -> NDArray[np.uint8]:
        if picks_BT is None:
            picks_BT = np.broadcast_to(np.arange(self.frames), (len(wanted), self.frames))
        if self.raw is not None:
            at, place_N = self.raw
            size = self.height * self.width * self.channels
            picked: NDArray[np.uint8] = at[place_N[wanted][:, None] + picks_BT * size]
            return picked
        out = np.empty((*picks_BT.shape, self.height, self.width, self.channels), dtype=np.uint8)
        for slot, index in enumerate(wanted):
            frames = unpack(memoryview(self.encoded[int(index)].as_buffer()))
            for number in np.unique(picks_BT[slot]):
                out[slot, picks_BT[slot] == number] = self._image(frames[number], "image", int(index), self.channels)
        return out

    def masks(self, indices: Iterable[int] | NDArray[np.int64]) -> NDArray[np.uint8]:
        """The masks at `indices`, in that order: uint8 (B, H, W), class index or IGNORE, a fresh array.

        Raises:
            ValueError: the split has no masks.
        """
        if not self.masked:
            raise ValueError(f"{self.folder} has no masks: prepare it with a section data.masks (`dvc repro`)")
        wanted = np.asarray(list(indices) if not isinstance(indices, np.ndarray) else indices, dtype=np.int64)
        if self.raw_mask is None:
            return self._decode(wanted, MASK.name, 1)[:, :, :, 0]
        at, place_N = self.raw_mask
        return at[place_N[wanted]][:, :, :, 0]

    def _decode(self, wanted: NDArray[np.int64], column: str, channels: int) -> NDArray[np.uint8]:
        encoded = self.arrow[column]
        out = np.empty((len(wanted), self.height, self.width, channels), dtype=np.uint8)
        for slot, index in enumerate(wanted):
            out[slot] = self._image(encoded[int(index)].as_buffer(), column, int(index), channels)
        return out

    def _image(self, content: Any, column: str, index: int, channels: int) -> NDArray[np.uint8]:
        import cv2

        flag = cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR_RGB
        image = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), flag)
        if image is None:
            raise ValueError(
                f"{self.folder / FILE}: {column} {index} does not decode: delete the folder and `dvc repro`"
            )
        return np.asarray(image, dtype=np.uint8).reshape(self.height, self.width, channels)
