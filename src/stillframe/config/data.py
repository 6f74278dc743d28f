"""Sections about the images: where they come from, how they are stored, what is done to them in training."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from stillframe.config.values import STRICT, AtLeast0, Fraction, Positive


@dataclass(frozen=True, config=STRICT)
class FetchConfig:
    """Where the images come from when they are not the user's own folder."""

    kind: Literal["package", "debian", "hub", "url", "sklearn", "made"]
    name: str  # "elpv-dataset==1.0.0.post1", "user/dataset", "https://..."; of made: a maker in data/made/making.py
    sha256: str | None  # of the downloaded file; null for hub, sklearn and made
    folder: str | None  # the part to unpack, e.g. "elpv_dataset/data"


@dataclass(frozen=True, config=STRICT)
class ColumnsConfig:
    """Names of the columns of the table (`data.table`); null: the table has none."""

    path: str
    label: str
    split: str | None
    group: str | None
    weight: str | None
    start: str | None  # of a clip in its file, s; an empty cell: the beginning
    end: str | None  # s; an empty cell: the end
    slices: list[str]  # scores are reported per value of these columns


@dataclass(frozen=True, config=STRICT)
class TargetFilesConfig:
    """Section `data.masks`: where the mask of each image is, and what is not in it."""

    images: str  # folder of the images, beside that of the masks; also below train/, val/, test/
    folder: str  # folder of the masks: one file an image, or one a class
    suffix: str  # what the name of a mask has after that of its image, e.g. "_mask"
    column: str | None  # of the table (`data.table`): the mask's path
    coco: list[str]  # COCO files (polygons and RLE) instead of masks, relative to the folder of the source
    colours: str | None  # a table of the classes: name and value, or name and r, g, b; relative to the source
    ignore: list[str]  # values or colours that are neither learnt nor scored, e.g. ["255"]
    background: str | None  # class of what no class's file and no polygon covers; null: ignored
    overlap: Annotated[float | None, Field(ge=0.0, le=0.9)]  # of tiles of image_size, a share; null: images are resized


@dataclass(frozen=True, config=STRICT)
class ClipConfig:
    """Section `data.clip`: how a video becomes clips of frames (data/clips/sampling.py has the rule)."""

    frames: Annotated[int, Field(ge=1, le=512)]  # T: what the net is shown
    stored: Annotated[int, Field(ge=1, le=512)] | None  # frames of a train row, for augment.temporal; null: `frames`
    fps: Annotated[float, Positive] | None  # frames a second at which they are taken; null: spread over the whole clip
    sampling: Literal["uniform", "segments"]  # at equal steps, or one anywhere in each of T equal parts
    views: Annotated[int, Field(ge=1, le=64)]  # clips of one validation or test video, whose logits are averaged
    reversible: bool  # whether playing backwards changes no label


@dataclass(frozen=True, config=STRICT)
class DataConfig:
    """Section `data`: what the images are, what is refused, how they are split and stored."""

    name: str
    fetch: FetchConfig | None
    path: str | None  # the user's own folder, read in place; null: what `fetch` brought
    format: Literal["auto", "folders", "split_folders", "table", "idx", "masks", "coco"]
    table: str | None  # CSV or Parquet, relative to the folder
    columns: ColumnsConfig
    clip: ClipConfig | None  # the files are videos; null: pictures
    masks: TargetFilesConfig | None  # a mask beside each image, instead of a label; null: labels
    target: dict[str, Any] | None  # a section of the task's own, checked by it: see tasks/<task>/README.md
    classes: dict[str, list[str]] | None  # class name -> labels that belong to it; null: each label is a class
    leave_out: list[str]  # labels that are left out on purpose
    image_size: Annotated[int, Field(ge=8, le=4096)]  # px, of the prepared (square) images
    symmetry: Literal["none", "mirror", "d4"]  # what changes no label: mirroring, all symmetries of the square
    resize: Literal["squash", "pad", "crop"]
    channels: Literal["auto", "gray", "rgb"]
    store: Literal["auto", "raw", "jpeg"]
    val_fraction: Annotated[float, Fraction]
    test_fraction: Annotated[float, Fraction]
    folds: Annotated[int, AtLeast0]  # K: train and validation are dealt into K folds; 0: the split as it is
    fold: Annotated[int, AtLeast0]  # the fold, 0..K-1, that is the validation split
    max_bad_fraction: Annotated[float, Field(ge=0.0, le=1.0)]
    min_px: Annotated[int, Field(ge=1)]  # images with a side below are refused
    max_megapixels: Annotated[float, Positive]  # images above are refused, from the header
    near_duplicates: Literal["group", "report", "off"]
    near_duplicate_bits: Annotated[int, Field(ge=0, le=16)]  # Hamming distance of 64-bit perceptual hashes
    conflicts: Literal["quarantine", "error"]  # one image with two labels
    workers: Annotated[int, AtLeast0]  # processes; 0: one a core
    backend: Literal["loky", "dask", "ray"]


@dataclass(frozen=True, config=STRICT)
class TemporalConfig:
    """Section `augment.temporal`: which of the stored frames of a clip the net is shown, drawn anew each epoch."""

    jitter: bool  # where the frames begin (data.clip.sampling: uniform), or where each lies in its part (segments)
    reverse: Annotated[float, Field(ge=0.0, le=1.0)]  # how often a clip is played backwards; needs data.clip.reversible
    speed: Annotated[float, Field(ge=0.0, le=3.0)]  # played at 1 / (1 + speed) to 1 + speed of the rate


@dataclass(frozen=True, config=STRICT)
class AugmentConfig:
    """Section `augment`: albumentations policies, each a list of {TransformName: {argument: value}}."""

    name: str
    offline: list[dict[str, dict[str, Any]]]  # heavy transforms, applied once to make copies of train images
    copies: Annotated[int, AtLeast0]  # offline copies of each train image
    balance: Literal["none", "oversample"]  # oversample: more copies of rarer classes, up to the largest class
    online: list[dict[str, dict[str, Any]]]  # light transforms, drawn anew each epoch
    where: Literal["auto", "item", "batch"]  # auto: on the batch on a GPU and up to 64 px, else per item
    temporal: TemporalConfig | None  # of clips; null: the stored frames at equal steps
