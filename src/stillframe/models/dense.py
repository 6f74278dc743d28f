"""Networks with outputs for each pixel: a decoder of segmentation_models_pytorch on any encoder of timm."""

from __future__ import annotations

import logging
from typing import Any

from torch import nn

from stillframe.config import ModelConfig, nearest
from stillframe.models import weights

DECODERS = {  # name -> image sides must be a multiple of this, px
    "unet": 32,  # Ronneberger, Fischer and Brox 2015
    "deeplabv3plus": 16,  # Chen et al. 2018
}


def check(model: ModelConfig, image_size: int, *, dense: bool) -> None:
    """Check that a network has the kind of outputs that the task needs, and can take images of that size.

    Args:
        model: section `model`.
        image_size: px.
        dense: whether the task needs outputs for each pixel, not one for each image.

    Raises:
        ValueError: what is wrong, with the keys.
    """
    if (model.name in DECODERS) != dense:
        wanted = f"a net for masks: {', '.join(DECODERS)}" if dense else "a net for labels, say resnet18"
        raise ValueError(f"model.name = {model.name!r}: this task needs {wanted}")
    if dense and model.encoder is None:
        raise ValueError(f"model.encoder is null: {model.name} needs one, say tf_efficientnet_lite0 or resnet18")
    if not dense and model.encoder is not None:
        raise ValueError(f"model.encoder = {model.encoder!r}: {model.name} has none; set it to null")
    step = DECODERS.get(model.name, 1)
    if image_size % step:
        fits = f"{image_size // step * step} or {(image_size // step + 1) * step}"
        raise ValueError(f"data.image_size = {image_size}: {model.name} needs a multiple of {step} px, say {fits}")


def build(
    name: str,
    encoder: str,
    *,
    outputs: int,
    channels: int,
    drop_rate: float,
    drop_path_rate: float,
    pretrained: bool | str = False,
) -> nn.Module:
    """The network without normalisation: images (B, C, H, W) to raw outputs (B, K, H, W).

    Args:
        name: of the decoder, in `DECODERS`.
        encoder: any timm model that gives feature maps.
        outputs: K.
        channels: C.
        drop_rate: dropout of the decoder's last maps.
        drop_path_rate: of the encoder, where it has such.
        pretrained: True: the encoder's weights from the Hub; a path or "package:<module>/<file>": from there.

    Raises:
        ValueError: no such encoder, one without feature maps, weights that do not fit.
    """
    import segmentation_models_pytorch as smp
    import timm

    base = encoder.split(".")[0]
    if not timm.is_model(base):
        raise ValueError(f"model.encoder = {encoder!r}: {nearest(encoder, timm.list_models())}")
    options: dict[str, Any] = {"drop_path_rate": drop_path_rate} if drop_path_rate else {}
    if isinstance(pretrained, str):
        options["pretrained_cfg_overlay"] = {"state_dict": _of_file(encoder, pretrained, channels)}
    inputs = {"encoder_weights": True if pretrained else None, "in_channels": channels, "classes": outputs}
    kind = smp.Unet if name == "unet" else smp.DeepLabV3Plus
    logger = logging.getLogger("timm.models._builder")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it would warn of the unused weights of the classifier
    try:
        net: Any = kind(f"tu-{encoder}", **inputs, **options)
    except Exception as error:  # each encoder fails in its own way when its maps are not what a decoder needs
        advice = " (weights from the Hub need a network; model.weights also takes a file)" if pretrained is True else ""
        first = (str(error).splitlines() or [""])[0]
        raise ValueError(
            f"model.encoder = {encoder!r}: {name} cannot be built on it: {type(error).__name__}: {first}{advice}"
        ) from None
    finally:
        logger.setLevel(level)
    if drop_rate:
        net.segmentation_head = nn.Sequential(nn.Dropout2d(drop_rate), *net.segmentation_head.children())
    built: nn.Module = net
    return built


def _of_file(encoder: str, path: str, channels: int) -> dict[str, Any]:
    """The tensors of a timm classifier from a file, by timm's names, from which its feature extractor is loaded."""
    import timm

    whole: nn.Module = timm.create_model(encoder, in_chans=channels)
    weights.load_pretrained(whole, weights.locate(path))
    return dict(whole.state_dict())
