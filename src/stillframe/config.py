"""The parameters, as frozen dataclasses without default values: `params.yaml` says everything.

`conf/` is composed into `params.yaml` by the first stage; every other stage reads the sections it needs from there.
An unknown, missing or ill-typed key is an error that names the key and the nearest right one.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from stillframe.paths import PARAMS

STRICT = ConfigDict(extra="forbid", strict=True)
Fraction = Field(ge=0.0, lt=1.0)
Positive = Field(gt=0)
AtLeast0 = Field(ge=0)
TURNING = {"D4", "SquareSymmetry", "VerticalFlip", "RandomRotate90", "Transpose"}  # up does not stay up


@dataclass(frozen=True, config=STRICT)
class Fetch:
    """Where the images come from when they are not the user's own folder."""

    kind: Literal["package", "debian", "hub", "url", "sklearn"]
    name: str  # "elpv-dataset==1.0.0.post1", "user/dataset", "https://..."
    sha256: str | None  # of the downloaded file; null for hub and sklearn
    folder: str | None  # the part to unpack, e.g. "elpv_dataset/data"


@dataclass(frozen=True, config=STRICT)
class Columns:
    """Names of the columns of the table (`data.table`); null: the table has none."""

    path: str
    label: str
    split: str | None
    group: str | None
    weight: str | None
    slices: list[str]  # scores are reported per value of these columns


@dataclass(frozen=True, config=STRICT)
class Data:
    """Section `data`: what the images are, what is refused, how they are split and stored."""

    name: str
    fetch: Fetch | None
    path: str | None  # the user's own folder, read in place; null: what `fetch` brought
    format: Literal["auto", "folders", "split_folders", "table", "idx"]
    table: str | None  # CSV or Parquet, relative to the folder
    columns: Columns
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
class Augment:
    """Section `augment`: albumentations policies, each a list of {TransformName: {argument: value}}."""

    name: str
    offline: list[dict[str, dict[str, Any]]]  # heavy transforms, applied once to make copies of train images
    copies: Annotated[int, AtLeast0]  # offline copies of each train image
    balance: Literal["none", "oversample"]  # oversample: more copies of rarer classes, up to the largest class
    online: list[dict[str, dict[str, Any]]]  # light transforms, drawn anew each epoch
    where: Literal["auto", "item", "batch"]  # auto: on the batch on a GPU and up to 64 px, else per item


@dataclass(frozen=True, config=STRICT)
class Model:
    """Section `model`: which net, from which weights, which part of it learns."""

    name: str  # "plain_cnn", "textbook_cnn", or any timm model
    weights: str | None  # null, "hub", "package:<module>/<file>", or a path to .safetensors or .pth
    drop_rate: Annotated[float, Fraction]
    drop_path_rate: Annotated[float, Fraction]
    freeze: list[str]  # prefixes of parameter names that do not learn, e.g. ["conv_stem", "blocks.0"]
    unfreeze_after: int | None  # epochs after which everything learns; null: never
    normalise: Literal["auto", "weights", "data"]  # auto: the weights' mean/std if there are weights, else the data's


@dataclass(frozen=True, config=STRICT)
class Schedule:
    """Learning rate over the steps."""

    name: Literal["constant", "one_cycle", "cosine", "step"]
    warmup_fraction: Annotated[float, Fraction]  # of all steps
    final_fraction: Annotated[float, Field(ge=0.0, le=1.0)]  # of the peak rate, at the end


@dataclass(frozen=True, config=STRICT)
class Distill:
    """A trained net whose probabilities are learnt beside the labels (Hinton et al. 2015)."""

    teacher: str  # a folder like artifacts/train, or runs:/<MLflow run id>
    temperature: Annotated[float, Positive]  # both nets' logits are divided by it
    weight: Annotated[float, Field(gt=0.0, le=1.0)]  # of the teacher; 1 - weight: of the labels


@dataclass(frozen=True, config=STRICT)
class Optim:
    """Section `optim`: loss, optimizer, schedule, regularisation."""

    name: str  # a timm/torch optimizer: "AdamW", "SGD", "Adam", ...
    lr: Annotated[float, Positive]
    weight_decay: Annotated[float, Field(ge=0.0)]  # L2
    momentum: Annotated[float, Fraction]  # of SGD and its kin; others ignore it
    layer_decay: float | None  # each layer learns at this share of the rate of the one above it; null: all alike
    schedule: Schedule
    loss: Literal["cross_entropy", "focal"]
    focal_gamma: Annotated[float, Field(ge=0.0)]
    label_smoothing: Annotated[float, Fraction]
    class_weights: Literal["none", "balanced"]
    sampler: Literal["shuffle", "balanced"]
    mixup: Annotated[float, Field(ge=0.0)]  # alpha of the Beta distribution; 0: off
    cutmix: Annotated[float, Field(ge=0.0)]
    l1: Annotated[float, Field(ge=0.0)]
    clip_norm: float | None  # gradient norm; null: no clipping
    accumulate: Annotated[int, Field(ge=1)]  # batches a step
    ema_decay: float | None  # exponential moving average of the weights; null: off
    distill: Distill | None  # learn from a larger trained net, too; null: from the labels alone


@dataclass(frozen=True, config=STRICT)
class EarlyStopping:
    """Stop when the metric has not improved by `min_delta` for `patience` epochs."""

    metric: str
    patience: Annotated[int, Field(ge=1)]
    min_delta: Annotated[float, Field(ge=0.0)]


@dataclass(frozen=True, config=STRICT)
class Trainer:
    """Section `trainer`: how long, on what, how fast."""

    max_epochs: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)]  # per device
    monitor: str  # the best epoch by this validation metric is kept
    early_stopping: EarlyStopping | None
    accelerator: Literal["auto", "cpu", "gpu"]
    devices: Annotated[int, Field(ge=0)]  # a node; 0: all GPUs, or one CPU process
    num_nodes: Annotated[int, Field(ge=1)]
    strategy: Literal["auto", "ddp", "fsdp"]
    precision: Literal["auto", "fp32", "bf16", "fp16"]  # auto: a probe of two seconds decides fp32 or bf16
    channels_last: bool
    compile: bool
    threads: Annotated[int, AtLeast0]  # CPU threads a process; 0: cores / processes
    workers: Annotated[int, AtLeast0]  # loader processes; 0: in the main process
    checkpoint_seconds: Annotated[float, Positive]  # how much work a crash may cost, at most
    max_nonfinite: Annotated[int, Field(ge=1)]  # so many NaN or infinite losses in a row stop the run
    find_lr: bool  # LR range test before training; its suggestion replaces optim.lr
    find_batch_size: bool  # the largest power of two that fits replaces trainer.batch_size
    overfit_batches: Annotated[int, AtLeast0]  # train and validate on the first so many train batches; 0: off
    limit_batches: Annotated[int, AtLeast0]  # train batches an epoch; 0: all
    resume_anyway: list[str]  # parameters ("optim.lr") that may differ from those of the interrupted run


@dataclass(frozen=True, config=STRICT)
class Validate:
    """Section `validate`: what is tuned on the validation split and frozen, and the bar a model must pass."""

    batch_size: Annotated[int, Field(ge=1)]
    tta: Literal["data", "none"]  # test-time augmentation: logits averaged over the views of data.symmetry
    calibrate: bool  # temperature scaling
    threshold: Literal[
        "auto", "f1", "argmax"
    ]  # f1 tunes a binary decision by macro F1; auto: where there are two classes
    bins: Annotated[int, Field(ge=2)]  # of the reliability curve and the ECE
    require: dict[str, float]  # metric -> lowest value that passes


@dataclass(frozen=True, config=STRICT)
class Evaluate:
    """Section `evaluate`: how the test split is reported."""

    batch_size: Annotated[int, Field(ge=1)]
    bootstrap: Annotated[int, AtLeast0]  # resamples for the 95 % intervals
    slices: list[str]  # "size", "mode"; the columns in data.columns.slices are always reported
    gallery: Annotated[int, AtLeast0]  # images in the error gallery
    explain: Annotated[int, AtLeast0]  # Grad-CAM pictures of errors, and as many of right answers


@dataclass(frozen=True, config=STRICT)
class Bound:
    """How far an exported file's answers over the raw test files may lie from the model's."""

    probability: Annotated[float, Field(ge=0.0, le=1.0)]  # largest difference of any probability
    decisions: Annotated[float, Field(ge=0.0, le=1.0)]  # share of the test images that may be decided otherwise


@dataclass(frozen=True, config=STRICT)
class Prune:
    """How much is taken out of a net, and how it learns to do without."""

    share: Annotated[float, Fraction]  # of the weights (sparse), or of the channels of each layer (slim)
    epochs: Annotated[int, AtLeast0]
    lr: Annotated[float, Positive]


@dataclass(frozen=True, config=STRICT)
class Export:
    """Section `export`: the file, the smaller ones beside it, and how they are measured."""

    variants: list[Literal["fp32", "fp16", "int8", "sparse", "slim"]]  # fp32 is always made
    choose: Literal["fp32", "fp16", "int8", "sparse", "slim", "smallest_within"]  # what model.onnx is
    within: dict[str, float]  # smallest_within: score -> how far below fp32 on the validation split it may be
    bound: Bound  # of fp32
    batch_size: Annotated[int, Field(ge=1)]
    threads: Annotated[int, AtLeast0]  # of ONNX Runtime, and for reading; 0: all cores
    latency_runs: Annotated[int, Field(ge=3)]  # timed calls, at most; two seconds of them
    bootstrap: Annotated[int, AtLeast0]  # resamples for the 95 % intervals
    calibrate: Annotated[int, Field(ge=1)]  # validation images that the ranges of int8 are seen on
    sparse: Prune
    slim: Prune


@dataclass(frozen=True, config=STRICT)
class Tracking:
    """Section `tracking`: the MLflow record; `MLFLOW_TRACKING_URI` goes before `uri`."""

    experiment: str
    uri: str | None  # null: sqlite in the repository
    timeout_s: Annotated[float, Positive]  # of one request
    flush_s: Annotated[float, Positive]  # how long the end of a stage waits for metrics that are still to be sent


TYPES: dict[str, Any] = {  # the sections of params.yaml
    "task": str,
    "seed": Annotated[int, AtLeast0],
    "data": Data,
    "augment": Augment,
    "model": Model,
    "optim": Optim,
    "trainer": Trainer,
    "validate": Validate,
    "evaluate": Evaluate,
    "export": Export,
    "tracking": Tracking,
}


def nearest(word: str, names: Iterable[str]) -> str:
    """A hint for an error message: the nearest of `names`, or all of them when none is near."""
    names = sorted(names)
    lower = {name.lower(): name for name in reversed(names)}
    close = difflib.get_close_matches(word.lower(), lower, n=1, cutoff=0.5)
    if close:
        return f"did you mean {lower[close[0]]!r}?"
    return "known: " + ", ".join(names[:40]) + (", ..." if len(names) > 40 else "")


def _keys_at(kind: Any, location: tuple[Any, ...]) -> list[str]:
    """The keys that a section knows at a place inside it."""
    for part in location:
        known = {field.name: field.type for field in fields(kind)} if is_dataclass(kind) else {}
        name = str(known.get(part, "")).split(" | ")[0]
        kind = globals().get(name, None)
    return [field.name for field in fields(kind)] if kind is not None and is_dataclass(kind) else []


def _explain(section: str, kind: Any, error: ValidationError, origin: str) -> str:
    """One line a fault: file, key, value, nearest right name."""
    lines = []
    for fault in error.errors(include_url=False):
        place = tuple(part for part in fault["loc"] if not (isinstance(part, str) and part[:1].isupper()))
        key = ".".join([section, *map(str, place)])
        if fault["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            hint = nearest(str(place[-1]), _keys_at(kind, place[:-1]))
            lines.append(f"{origin}: unknown key {key} = {fault['input']!r}: {hint}")
        elif fault["type"] in ("missing", "missing_argument"):
            lines.append(f"{origin}: {key} is missing")
        elif fault["type"] == "literal_error":
            options = [word.strip("'") for word in fault["ctx"]["expected"].replace(" or ", ", ").split(", ")]
            lines.append(f"{origin}: {key} = {fault['input']!r}: {nearest(str(fault['input']), options)}")
        else:
            lines.append(f"{origin}: {key} = {fault['input']!r}: {fault['msg']}")
    return "\n".join(lines)


def build(section: str, values: Any, origin: str = str(PARAMS)) -> Any:
    """One section as its dataclass.

    Raises:
        ValueError: unknown, missing or ill-typed keys, one line each, with the nearest right name.
    """
    return checked(section, TYPES[section], values, origin)


def checked(section: str, kind: Any, values: Any, origin: str) -> Any:
    """Values as a strict dataclass that need not be a section of params.yaml (ValueError as in `build`)."""
    try:
        return TypeAdapter(kind, config=None if is_dataclass(kind) else STRICT).validate_json(json.dumps(values))
    except ValidationError as error:
        raise ValueError(_explain(section, kind, error, origin)) from None


def read_params(*sections: str, path: Path = PARAMS) -> tuple[Any, ...]:
    """The named sections of params.yaml, in that order.

    Raises:
        FileNotFoundError: no params.yaml here.
        ValueError: not YAML, or a section with unknown, missing or ill-typed keys.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing: run `stillframe compose` in the repository's root") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not plain YAML: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds no sections: run `stillframe compose`")
    check_sections(values, origin=str(path))
    return tuple(build(section, values[section], origin=str(path)) for section in sections)


def check_sections(values: dict[str, Any], origin: str) -> None:
    """An unknown or missing top-level section is an error."""
    for name in values:
        if name not in TYPES:
            raise ValueError(f"{origin}: unknown section {name!r}: {nearest(str(name), TYPES)}")
    missing = [name for name in TYPES if name not in values]
    if missing:
        raise ValueError(f"{origin}: section {missing[0]!r} is missing: run `stillframe compose`")


def check_all(values: dict[str, Any], origin: str) -> None:
    """Check every section of a composed configuration (ValueError as in `build`)."""
    check_sections(values, origin)
    faults = []
    for section in TYPES:
        try:
            build(section, values[section], origin)
        except ValueError as error:
            faults.append(str(error))
    if faults:
        raise ValueError("\n".join(faults))


def _named(policy: list[Any]) -> set[str]:
    """The transforms of a policy that can come to pass, those inside OneOf and its kin included."""
    found: set[str] = set()
    for entry in policy:
        for name, arguments in entry.items():
            if arguments.get("p") != 0:
                found |= {name} | _named(arguments.get("transforms") or [])
    return found


def cautions(values: dict[str, Any]) -> list[str]:
    """What a checked configuration permits and hardly anybody means, one line each.

    So far: a policy that turns pictures upside down, for data that do not say that they have no up and no down. It is
    what `data=folder` inherits from the demo when no `augment` is named with it.
    """
    data, augment = values["data"], values["augment"]
    turning = sorted(_named(augment["offline"] + augment["online"]) & TURNING)
    if not turning or data["symmetry"] == "d4":
        return []
    return [
        f"augment = {augment['name']} turns images upside down ({', '.join(turning)}), but data.symmetry = "
        f"{data['symmetry']} of {data['name']}: take augment=upright, or, where an image has no up and no down, "
        "data.symmetry=d4"
    ]


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as `{"optim.lr": 0.001, ...}`; lists stay lists."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            out |= flat(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = value
    return out
