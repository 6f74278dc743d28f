"""Networks for clips: an image network applied to each frame with a temporal head, or torchvision's 3-D networks.

The last feature map of each frame is pooled to a grid of GRID x GRID cells, not to one vector: without the position of
an object the head could not see in which direction it moves. The temporal head is one of

    average     the mean of the frames' logits; blind to their order
    gru         a gated recurrent unit (Cho et al. 2014), its last state
    lstm        long short-term memory (Hochreiter and Schmidhuber 1997), its last state
    attention   two encoder layers of a transformer (Vaswani et al. 2017) over the frames, their mean; before them a
                convolution over three frames, without which attention must first learn which frames are neighbours
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from stillframe.config import ModelConfig, nearest

SPACE_TIME = ("r3d_18", "mc3_18", "r2plus1d_18", "mvit_v1_b", "mvit_v2_s")  # torchvision's own names
FIXED = {"mvit_v1_b": (16, 224), "mvit_v2_s": (16, 224)}  # name -> the only frames and px that it takes
TEMPORAL = ("average", "gru", "lstm", "attention")
GRID, WIDTH, HEADS, LAYERS = 3, 128, 4, 2


def check(model: ModelConfig, frames: int, image_size: int) -> None:
    """Check that a network takes the images or clips of the data.

    Args:
        model: section `model`.
        frames: T, of a clip; 1: the data are images.
        image_size: px.

    Raises:
        ValueError: what is wrong, with the keys.
    """
    if frames == 1:
        if model.temporal is not None:
            raise ValueError(
                f"model.temporal = {model.temporal!r} is for clips (data.clip): set it to null for pictures"
            )
        if model.name in SPACE_TIME:
            raise ValueError(f"model.name = {model.name!r} takes clips (data.clip), and the data are pictures")
    elif model.name in SPACE_TIME:
        if model.temporal is not None:
            raise ValueError(f"model.temporal = {model.temporal!r}: {model.name} sees time by itself; set it to null")
        wanted = FIXED.get(model.name, (frames, image_size))
        if wanted != (frames, image_size):
            raise ValueError(
                f"model.name = {model.name!r} takes clips of {wanted[0]} frames of {wanted[1]} px: set "
                f"data.clip.frames ({frames}) and data.image_size ({image_size}), or take r3d_18"
            )
    elif model.temporal is None:
        raise ValueError(
            f"model.temporal is null: {model.name} takes pictures; give it a head over time (average, gru, lstm, "
            f"attention), or take a net for clips: {', '.join(SPACE_TIME)}"
        )


def statistics(name: str) -> tuple[list[float], list[float]]:
    """Mean and standard deviation that the published weights of a `SPACE_TIME` network expect, per channel."""
    from torchvision import models

    settings = models.get_model_weights(name).DEFAULT.transforms()
    return list(settings.mean), list(settings.std)


def space_time(name: str, *, outputs: int, drop_rate: float, pretrained: bool) -> nn.Module:
    """A `SPACE_TIME` network: clips (B, T, 3, H, W) to raw outputs (B, K); `pretrained` on Kinetics-400.

    Raises:
        ValueError: the weights cannot be downloaded.
    """
    from torchvision import models

    try:
        inner = models.get_model(name, weights="DEFAULT" if pretrained else None)
    except OSError as error:
        advice = "weights from torchvision need a network; model.weights also takes a file"
        raise ValueError(f"model.weights = 'hub': {error} ({advice})") from None
    if name.startswith("mvit"):
        inner.head = nn.Sequential(nn.Dropout(drop_rate), nn.Linear(inner.head[-1].in_features, outputs))
    else:
        inner.fc = nn.Sequential(nn.Dropout(drop_rate), nn.Linear(inner.fc.in_features, outputs))
    return SpaceTime(inner)


class SpaceTime(nn.Module):
    """A network of torchvision, which takes clips as (B, C, T, H, W)."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, image_BTCHW: Tensor) -> Tensor:
        """Raw outputs (B, K)."""
        outputs_BK: Tensor = self.inner(image_BTCHW.transpose(1, 2))
        return outputs_BK


class FrameNet(nn.Module):
    """An image network without its classifier: (N, C, H, W) to (N, WIDTH) features that keep spatial positions."""

    def __init__(self, inner: nn.Module, channels: int, image_size: int) -> None:
        super().__init__()
        self.inner = inner
        training = inner.training
        with torch.no_grad():
            depth, height, width = self._map(inner.eval()(torch.zeros(1, channels, image_size, image_size))).shape[1:]
        inner.train(training)
        # pooling windows overlap where the map is no multiple of the grid; constants, because ONNX needs them
        grid, steps = (min(GRID, height), min(GRID, width)), []
        for cells, side in zip(grid, (height, width), strict=True):
            step = side // cells
            steps.append((side - (cells - 1) * step, step))
        self.pool = nn.AvgPool2d((steps[0][0], steps[1][0]), (steps[0][1], steps[1][1]))
        self.project = nn.Sequential(nn.Linear(depth * grid[0] * grid[1], WIDTH), nn.LayerNorm(WIDTH), nn.GELU())

    def _map(self, features: Tensor) -> Tensor:
        """The features as a map (N, depth, h, w), from tokens, vectors or channels-last maps."""
        depth = getattr(self.inner, "num_features", None)
        if features.ndim == 3:
            tokens = features[:, getattr(self.inner, "num_prefix_tokens", 0) :]
            side = round(tokens.shape[1] ** 0.5)
            if side * side != tokens.shape[1]:
                return tokens.mean(1)[:, :, None, None]
            return tokens.transpose(1, 2).reshape(len(tokens), -1, side, side)
        if features.ndim == 2:
            return features[:, :, None, None]
        return features.permute(0, 3, 1, 2) if features.shape[1] != depth == features.shape[3] else features

    def forward(self, image_NCHW: Tensor) -> Tensor:
        """Features (N, WIDTH)."""
        features: Tensor = self.project(self.pool(self._map(self.inner(image_NCHW))).flatten(1))
        return features


class ClipNet(nn.Module):
    """A frame network and a temporal head: clips (B, T, C, H, W) to raw outputs (B, K)."""

    def __init__(self, frame: FrameNet, temporal: str, *, frames: int, outputs: int, drop_rate: float) -> None:
        super().__init__()
        self.frame, self.temporal = frame, temporal
        self.over: nn.Module | None = None
        if temporal in ("gru", "lstm"):
            self.over = (nn.GRU if temporal == "gru" else nn.LSTM)(WIDTH, WIDTH, batch_first=True)
        elif temporal == "attention":
            layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 2 * WIDTH, drop_rate, batch_first=True, norm_first=True)
            self.over = nn.TransformerEncoder(layer, LAYERS, nn.LayerNorm(WIDTH), enable_nested_tensor=False)
            self.near = nn.Conv1d(WIDTH, WIDTH, 3, padding=1)
            # the position of each frame, under the name that it has in files of weights
            self.register_parameter("place", nn.Parameter(torch.randn(frames, WIDTH) * 0.02 * WIDTH**0.5))
        elif temporal != "average":
            raise ValueError(
                f"model.temporal = {temporal!r}: {nearest(temporal, ['average', 'gru', 'lstm', 'attention'])}"
            )
        self.drop = nn.Dropout(drop_rate)
        self.head = nn.Linear(WIDTH, outputs)

    def forward(self, image_BTCHW: Tensor) -> Tensor:
        """Raw outputs (B, K)."""
        frames = image_BTCHW.shape[1]
        feature_BTF = self.frame(image_BTCHW.flatten(0, 1)).reshape(-1, frames, WIDTH)
        if self.over is None:
            average_BK: Tensor = self.head(self.drop(feature_BTF)).mean(1)
            return average_BK
        if self.temporal == "attention":
            near_BTF = nn.functional.gelu(self.near(feature_BTF.transpose(1, 2))).transpose(1, 2)
            pooled_BF = self.over(feature_BTF + near_BTF + self.place).mean(1)
        else:
            with self._any_mode(feature_BTF):
                pooled_BF = self.over(feature_BTF)[0][:, -1]
        outputs_BK: Tensor = self.head(self.drop(pooled_BF))
        return outputs_BK

    def _any_mode(self, feature_BTF: Tensor) -> AbstractContextManager[Any]:
        """Disable cuDNN where it has no gradient (recurrent layers in evaluation mode), for explanations."""
        if not self.training and feature_BTF.is_cuda and torch.is_grad_enabled():
            return torch.backends.cudnn.flags(enabled=False)
        return nullcontext()


def without_classifier(net: nn.Module) -> nn.Module:
    """An image network that returns its last feature map (or its tokens) instead of class scores."""
    if isinstance(features := getattr(net, "features", None), nn.Sequential):  # the networks of plain.py
        return features
    reset: Any = getattr(net, "reset_classifier", None)
    assert reset is not None, "a network of timm"
    reset(0, "")
    return net
