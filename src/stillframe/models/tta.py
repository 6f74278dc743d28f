"""Test-time augmentation: the views of an image, and the inverse transforms of their output maps."""

from __future__ import annotations

import torch
from torch import Tensor


def tta_views(image_BCHW: Tensor, tta: str) -> list[Tensor]:
    """The views of images: unchanged (none), also mirrored (mirror), or all 8 symmetries of the square (d4).

    All frames of a clip (B, T, C, H, W) are transformed alike.
    """
    out = [image_BCHW]
    if tta in ("mirror", "d4"):
        out += [image_BCHW.flip(-1)]
    if tta == "d4":
        out += [view.flip(-2) for view in out]
        out += [view.transpose(-1, -2) for view in out]
    return out


def undo_tta(map_VBKHW: Tensor, tta: str) -> Tensor:
    """Undo the transforms of `tta_views` on output maps (V, B, K, H, W), so that they can be averaged over V."""
    out = list(map_VBKHW)
    if tta == "d4":
        out[4:] = [view.transpose(-1, -2) for view in out[4:]]
        out = [view.flip(-2) if index % 4 >= 2 else view for index, view in enumerate(out)]
    return torch.stack([view.flip(-1) if index % 2 else view for index, view in enumerate(out)])
