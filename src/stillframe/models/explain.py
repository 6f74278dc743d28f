"""Heat maps of what a network's output depends on: Grad-CAM where it has feature maps, else the input gradient.

The maps come from captum; this module finds the layer, so that users need not name it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

GRAD_CAM, INPUT_GRADIENT = "Grad-CAM", "input gradient"
FINE = 4  # cells a side that a feature map should have; a coarser one is used only when there is no other
BATCH = 16  # images at a time: gradients need far more memory than predictions


def last_feature_map(net: nn.Module, image_BCHW: Tensor) -> nn.Module | None:
    """The last module of the backbone whose output is a feature map (B, C, h, w).

    A feature map has the image's proportions and more than one cell. Of the maps with at least `FINE` cells a side
    the last one is taken, else the last one. None when what follows the maps are tokens (vision
    transformers, mixers) or channels-last maps: an early map would explain little there.
    """
    height, width = image_BCHW.shape[-2:]
    outputs: list[tuple[nn.Module, tuple[int, ...]]] = []

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim >= 3:
            outputs.append((module, tuple(output.shape)))

    hooks = [module.register_forward_hook(note) for module in net.modules() if module is not net]
    try:
        with torch.no_grad():
            net(image_BCHW[:1])
    finally:
        for hook in hooks:
            hook.remove()

    def side(shape: tuple[int, ...]) -> int:
        """Cells of the shorter side; 1 for a pooled map, 0 for what is no map."""
        if len(shape) != 4:
            return 0
        h, w = shape[2:]
        if h > height or w > width or abs(h * width - w * height) > max(height, width):
            return 0
        return min(h, w)

    called = [id(module) for module, _ in outputs]
    fallback = None
    for module, shape in reversed(outputs):
        cells = side(shape)
        if cells == 0 and fallback is None:
            return None
        if cells > 1 and called.count(id(module)) == 1:
            if cells >= FINE:
                return module
            fallback = fallback or module
    return fallback


def explain(net: nn.Module, image_BCHW: Tensor, class_B: Tensor) -> tuple[NDArray[np.float32], str]:
    """Heat maps of the pixels that raise the score of the given class.

    Grad-CAM (Selvaraju et al. 2017) on the last feature map; for nets without one the absolute gradient of
    the class's logit by the pixels (Simonyan et al. 2014), blurred a little.

    Args:
        net: takes images (B, C, H, W) in 0..255 and returns scores (B, K); its mode is restored.
        image_BCHW: uint8. Clips (B, T, C, H, W) are explained by the input gradient, each frame.
        class_B: class indices.

    Returns:
        heat_BHW (of clips BTHW), float32 in 0..1 (all 0 where no pixel raises the score), and the method's name.
    """
    training = net.training
    net.eval()
    try:
        device = next(net.parameters()).device
        layer = last_feature_map(net, image_BCHW[:1].to(device)) if image_BCHW.ndim == 4 else None
        parts = []
        batch_size = max(1, BATCH // (image_BCHW.shape[1] if image_BCHW.ndim == 5 else 1))
        for first in range(0, len(image_BCHW), batch_size):
            image = image_BCHW[first : first + batch_size].to(device).float().requires_grad_()
            target = class_B[first : first + batch_size].to(device)
            with torch.enable_grad():
                heat = _saliency(net, image, target) if layer is None else _grad_cam(net, layer, image, target)
            parts.append(heat.detach().float().cpu())
    finally:
        net.train(training)
    heat_BHW = torch.cat(parts) if parts else torch.zeros((0, *image_BCHW.shape[1:-3], *image_BCHW.shape[-2:]))
    return _scaled(heat_BHW), INPUT_GRADIENT if layer is None else GRAD_CAM


def _grad_cam(net: nn.Module, layer: nn.Module, image_BCHW: Tensor, class_B: Tensor) -> Tensor:
    """(B, H, W): the positive part of the class activation map, in the image's size."""
    from captum.attr import LayerGradCam

    map_B1hw = LayerGradCam(net, layer).attribute(image_BCHW, class_B, relu_attributions=True)
    size = tuple(image_BCHW.shape[-2:])
    return nn.functional.interpolate(map_B1hw, size, mode="bilinear", align_corners=False)[:, 0]


def _saliency(net: nn.Module, image_BCHW: Tensor, class_B: Tensor) -> Tensor:
    """(B, H, W), of clips (B, T, H, W): the largest absolute gradient over the channels, box-blurred."""
    from captum.attr import Saliency

    gradient_BHW = Saliency(net).attribute(image_BCHW, class_B, abs=True).amax(-3)
    height, width = gradient_BHW.shape[-2:]
    window = max(1, min(height, width) // 16) * 2 + 1
    pooled = nn.functional.avg_pool2d(
        gradient_BHW.reshape(-1, 1, height, width), window, stride=1, padding=window // 2, count_include_pad=False
    )
    return pooled.reshape(gradient_BHW.shape)


def _scaled(heat_BHW: Tensor) -> NDArray[np.float32]:
    """Each map divided by its largest value."""
    top = heat_BHW.amax(tuple(range(1, heat_BHW.ndim)), keepdim=True) if len(heat_BHW) else heat_BHW
    scaled = torch.where(top > 0, heat_BHW / top.clamp_min(torch.finfo(torch.float32).tiny), 0.0)
    return np.asarray(scaled.clamp(0.0, 1.0).numpy(), dtype=np.float32)
