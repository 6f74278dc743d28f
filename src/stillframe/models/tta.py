"""Test-time views: the pictures a net is asked about besides the one that is given, and maps of them turned back."""

from __future__ import annotations

import torch
from torch import Tensor


def tta_views(image_BCHW: Tensor, tta: str) -> list[Tensor]:
    """The pictures a net is asked about: as they are (none), with the mirror image (mirror), all 8 symmetries (d4).

    All frames of a clip (B, T, C, H, W) are turned alike.
    """
    out = [image_BCHW]
    if tta in ("mirror", "d4"):
        out += [image_BCHW.flip(-1)]
    if tta == "d4":
        out += [view.flip(-2) for view in out]
        out += [view.transpose(-1, -2) for view in out]
    return out


def undo_tta(map_VBKHW: Tensor, tta: str) -> Tensor:
    """Answers for each pixel of the `views`, in their order, laid over the given picture: (V, B, K, H, W)."""
    out = list(map_VBKHW)
    if tta == "d4":
        out[4:] = [view.transpose(-1, -2) for view in out[4:]]
        out = [view.flip(-2) if at % 4 >= 2 else view for at, view in enumerate(out)]
    return torch.stack([view.flip(-1) if at % 2 else view for at, view in enumerate(out)])
