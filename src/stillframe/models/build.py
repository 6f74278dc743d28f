"""Networks by name: uint8 images in, raw outputs out."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from stillframe.config import ModelConfig, nearest
from stillframe.models import dense as dense_models
from stillframe.models import video, weights
from stillframe.models.plain import PlainCNN, TextbookCNN
from stillframe.types import DatasetCard

OWN = ("plain_cnn", "textbook_cnn")
PIECE = 1 << 19  # numbers that a CPU normalises at a time: what stays in its cache from one operation to the next


@dataclass(frozen=True)
class NetworkSpec:
    """What is needed to rebuild a trained network; written to `artifacts/train/model.json`."""

    name: str
    classes: int  # number of outputs
    channels: int  # of the input images
    image_size: int  # px
    mean: list[float]  # per channel of the backbone, in 0..1
    std: list[float]
    drop_rate: float
    drop_path_rate: float
    encoder: str | None = None  # of a network with outputs for each pixel
    frames: int = 1  # T, of a network for clips
    temporal: str | None = None  # its head over time
    output_mean: list[float] | None = None  # in the unit of each output; null: raw outputs
    output_std: list[float] | None = None

    def json(self) -> dict[str, Any]:
        """As model.json has it; `NetworkSpec(**json)` is its inverse."""
        return {name: value for name, value in asdict(self).items() if value is not None or "output" not in name}


class Network(nn.Module):
    """A backbone preceded by its normalisation: uint8 (or float 0..255) images in, raw outputs out.

    Mean, std and the conversion from gray to RGB are part of the module, so that training, validation, evaluation and
    export cannot differ in them.
    """

    mean: Tensor
    std: Tensor
    output_mean: Tensor | None
    output_std: Tensor | None

    def __init__(self, backbone: nn.Module, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        self.backbone = backbone
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, -1, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(1, -1, 1, 1) * 255, persistent=False)
        for name in ("output_mean", "output_std"):
            values = getattr(spec, name)
            self.register_buffer(name, None if values is None else torch.tensor(values), persistent=False)
        self.frozen: list[nn.Module] = []  # parts that are not trained

    def normalise(self, image_BCHW: Tensor) -> Tensor:
        """Standardise uint8 or float in 0..255 to float32, with the backbone's number of channels.

        Clips (B, T, C, H, W) are normalised frame by frame.
        """
        if image_BCHW.ndim == 5:
            frames = self.normalise(image_BCHW.flatten(0, 1))
            return frames.reshape(-1, image_BCHW.shape[1], *frames.shape[1:])
        channels = self.mean.shape[1]
        if image_BCHW.shape[1] != channels:  # gray images, a backbone that takes RGB
            image_BCHW = image_BCHW.expand(-1, channels, -1, -1)
        if channels > 1 and image_BCHW.is_contiguous(memory_format=torch.channels_last):
            return self._normalise_rows(image_BCHW)
        return torch.sub(image_BCHW, self.mean).div_(self.std)

    def _normalise_rows(self, image_BCHW: Tensor) -> Tensor:
        """The same for channels-last images, row by row of W * C numbers.

        Broadcasting over an inner dimension of three made the division take 20 times as long as the augmentation.
        """
        batch, channels, height, width = image_BCHW.shape
        rows = image_BCHW.permute(0, 2, 3, 1).view(batch, height, width * channels)
        mean, std = self.mean.flatten().repeat(width), self.std.flatten().repeat(width)
        recorded = torch.compiler.is_compiling()  # e.g. by an export, for batches of any size
        if rows.numel() > PIECE and rows.dtype == torch.uint8 and rows.device.type == "cpu" and not recorded:
            rows = _in_pieces(rows, mean, std)
        else:
            rows = torch.sub(rows, mean).div_(std)
        return rows.view(batch, height, width, channels).permute(0, 3, 1, 2)

    def forward(self, image: Tensor) -> Tensor:
        """Raw outputs, float32, of images (B, C, H, W) or clips (B, T, C, H, W), uint8 or float in 0..255.

        They are (B, K), or (B, K, H, W) of a dense network. Called as `net(**batch.inputs)`: a network of more inputs
        has more arguments.
        """
        outputs: Tensor = self.backbone(self.normalise(image)).float()
        if self.output_mean is None or self.output_std is None:
            return outputs
        return outputs * self.output_std + self.output_mean  # the backbone learns numbers of mean 0 and deviation 1

    def freeze(self, prefixes: list[str]) -> None:
        """Freeze the parameters whose names start with a prefix, and their batch statistics.

        Raises:
            ValueError: a prefix that no parameter has; names the nearest.
        """
        names = [name for name, _ in self.backbone.named_parameters()]
        stems = {".".join(name.split(".")[:depth]) for name in names for depth in range(1, name.count(".") + 1)}
        for prefix in prefixes:
            if prefix not in stems:
                raise ValueError(f"model.freeze: no part {prefix!r} in {self.spec.name}: {nearest(prefix, stems)}")
        self.frozen = [module for name, module in self.backbone.named_modules() if name in prefixes]
        for module in self.frozen:
            module.requires_grad_(False)
        self.train(self.training)

    def unfreeze(self) -> None:
        """Make all parameters trainable again."""
        for module in self.frozen:
            module.requires_grad_(True)
        self.frozen = []
        self.train(self.training)

    def channels_last(self) -> None:
        """Convert the backbone's weights to channels-last memory format, unless it has 3-D convolutions."""
        if all(weight.ndim < 5 for weight in self.backbone.parameters()):
            self.backbone.to(memory_format=torch.channels_last)

    def train(self, mode: bool = True) -> Network:
        """As `nn.Module.train`, but frozen parts stay in evaluation mode: their batch statistics must not change."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self


def _in_pieces(rows: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """(rows - mean) / std, bit for bit, a few images at a time.

    Each operation on the whole batch would read and write all of it in main memory; a piece stays in the cache.
    """
    out = torch.empty(rows.shape, dtype=mean.dtype)
    images = max(1, PIECE // rows[0].numel())
    for piece, normalised in zip(torch.split(rows, images), torch.split(out, images), strict=True):
        torch.div(piece.to(mean.dtype).sub_(mean), std, out=normalised)
    return out


def backbone(spec: NetworkSpec, pretrained: bool | str = False) -> nn.Module:
    """The network without normalisation.

    Args:
        spec: what to build.
        pretrained: True: weights from the Hub; a path: the file of weights for an encoder.


    Raises:
        ValueError: no such model in timm or here; names the nearest one.
    """
    inputs = len(spec.mean)
    if spec.frames > 1:
        return _clip_net(spec, pretrained)
    if spec.encoder is not None:
        return dense_models.build(
            spec.name,
            spec.encoder,
            outputs=spec.classes,
            channels=inputs,
            drop_rate=spec.drop_rate,
            drop_path_rate=spec.drop_path_rate,
            pretrained=pretrained,
        )
    if spec.name == "plain_cnn":
        return PlainCNN(inputs, spec.classes, spec.drop_rate)
    if spec.name == "textbook_cnn":
        return TextbookCNN(inputs, spec.classes, spec.image_size, spec.drop_rate)
    import timm

    base = spec.name.split(".")[0]
    if not timm.is_model(base):
        raise ValueError(f"model.name = {spec.name!r}: {nearest(spec.name, [*OWN, *timm.list_models()])}")
    options: dict[str, Any] = {"num_classes": spec.classes, "in_chans": inputs, "drop_rate": spec.drop_rate}
    if spec.drop_path_rate:
        options["drop_path_rate"] = spec.drop_path_rate
    if base.startswith(("vit", "deit", "swin", "eva", "beit", "maxvit")):
        options["img_size"] = spec.image_size
    try:
        net: nn.Module = timm.create_model(spec.name, pretrained=pretrained, **options)
    except (OSError, RuntimeError, ValueError) as error:
        advice = " (weights from the Hub need a network; model.weights also takes a file)" if pretrained else ""
        raise ValueError(f"model.name = {spec.name!r}: timm cannot build it: {error}{advice}") from None
    return net


def _clip_net(spec: NetworkSpec, pretrained: bool | str) -> nn.Module:
    """A network for clips; pretrained weights are those of the image network in it."""
    if spec.name in video.SPACE_TIME:
        whole = video.space_time(
            spec.name, outputs=spec.classes, drop_rate=spec.drop_rate, pretrained=pretrained is True
        )
        if isinstance(pretrained, str):
            weights.load_pretrained(whole.inner, weights.locate(pretrained))  # type: ignore[arg-type]
        return whole
    image_net = backbone(replace(spec, frames=1, temporal=None), pretrained is True)
    if isinstance(pretrained, str):
        weights.load_pretrained(image_net, weights.locate(pretrained))
    frame = video.FrameNet(video.without_classifier(image_net), len(spec.mean), spec.image_size)
    assert spec.temporal is not None
    return video.ClipNet(frame, spec.temporal, frames=spec.frames, outputs=spec.classes, drop_rate=spec.drop_rate)


def _statistics(
    model: ModelConfig, channels: int, mean: list[float], std: list[float]
) -> tuple[list[float], list[float]]:
    """Mean and standard deviation that the network expects, per channel of its input."""
    if model.normalise == "data" or (model.normalise == "auto" and model.weights is None) or model.name in OWN:
        if model.weights is not None and channels == 1:
            return mean * 3, std * 3  # pretrained stems take three channels
        if model.name in video.SPACE_TIME and channels == 1:
            return mean * 3, [max(value, 1e-3) for value in std] * 3
        return mean, [max(value, 1e-3) for value in std]  # a constant image has no deviation to divide by
    if model.name in video.SPACE_TIME:
        return video.statistics(model.name)
    import timm

    name = model.encoder or model.name
    if not timm.is_model(name.split(".")[0]):
        key = "model.encoder" if model.encoder else "model.name"
        raise ValueError(f"{key} = {name!r}: {nearest(name, [*OWN, *timm.list_models()])}")
    settings = timm.get_pretrained_cfg(name)
    return list(settings.mean), list(settings.std)


def _init_head_near_zero(inner: nn.Module) -> None:
    """Initialise a new last layer near zero.

    The initialisation of timm's EfficientNets, from their paper, has a standard deviation of 0.4 for two outputs. It
    gives outputs of tens, and all layers, pretrained ones too, would spend the first epoch on reducing them.
    """
    getter: Any = getattr(inner, "get_classifier", None)
    head = getter() if getter is not None else None
    if isinstance(head, nn.Linear):
        nn.init.normal_(head.weight, std=0.01)
        nn.init.zeros_(head.bias)


def create(
    model: ModelConfig,
    *,
    outputs: int,
    channels: int,
    image_size: int,
    mean: list[float],
    std: list[float],
    dense: bool = False,
    frames: int = 1,
    scale: tuple[list[float], list[float]] | None = None,
) -> Network:
    """A new network for images of `channels` x `image_size` x `image_size`; mean and std of the train split, in 0..1.

    With `dense` it has outputs for each pixel, and pretrained weights are those of its encoder. With more than one of
    `frames` it takes clips, and pretrained weights are those of the network that is applied to each frame. With `scale`
    (mean and standard deviation of each) outputs are in units of their own.

    Raises:
        ValueError: unknown model, unknown part in model.freeze, weights that are not there or do not fit.
    """
    dense_models.check(model, image_size, dense=dense)
    video.check(model, frames, image_size)
    mean, std = _statistics(model, channels, mean, std)
    rates = (model.drop_rate, model.drop_path_rate)
    spec = NetworkSpec(
        model.name,
        outputs,
        channels,
        image_size,
        mean,
        std,
        *rates,
        model.encoder,
        frames,
        model.temporal,
        *(scale or ()),
    )
    inside = dense or frames > 1  # the weights are those of a part
    if inside:
        inner = backbone(spec, pretrained=True if model.weights == "hub" else model.weights or False)
    else:
        inner = backbone(spec, pretrained=model.weights == "hub")
    if not inside and model.weights is not None and model.weights != "hub":
        weights.load_pretrained(inner, weights.locate(model.weights))
    if model.weights is not None:
        _init_head_near_zero(inner)
    net = Network(inner, spec)
    net.freeze(model.freeze)
    return net


def for_card(
    model: ModelConfig,
    card: DatasetCard,
    *,
    outputs: int | None = None,
    dense: bool = False,
    frames: int = 1,
    scale: tuple[list[float], list[float]] | None = None,
) -> Network:
    """A new network for the data of a card; `outputs` None: one for each class (the rest: as of `create`)."""
    data: dict[str, Any] = {"channels": card.channels, "image_size": card.height, "mean": card.mean, "std": card.std}
    outputs = len(card.classes) if outputs is None else outputs
    return create(model, outputs=outputs, **data, dense=dense, frames=frames, scale=scale)


def rebuild(spec: NetworkSpec) -> Network:
    """The network of a spec with random weights; the caller loads the trained ones."""
    return Network(backbone(spec), spec)
