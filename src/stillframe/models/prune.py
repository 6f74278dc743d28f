"""Pruning: single weights set to zero (sparse), or whole channels removed (slim)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.utils import prune

from stillframe.models.build import Network
from stillframe.models.video import ClipNet


def _weight_layers(net: nn.Module) -> list[tuple[nn.Module, str]]:
    """Convolutions and linear layers, with the name of their weight."""
    return [(module, "weight") for module in net.modules() if isinstance(module, nn.Conv2d | nn.Conv3d | nn.Linear)]


@contextmanager
def sparse(net: Network, share: float) -> Iterator[None]:
    """Set the smallest weights over all layers to zero, ranked by LAMP scores (Lee et al. 2021).

    Plain magnitudes of layers before a batch normalisation cannot be compared: at a share of 0.5 they took the demo's
    network from a macro F1 of 0.91 to that of a constant prediction, where LAMP keeps 0.90 without any training.

    Inside the context pruned weights stay zero while the others are trained; at its end they are plain zeros.

    Args:
        net: changed in place.
        share: of the weights of convolutions and linear layers, 0 <= share < 1.
    """
    layers = _weight_layers(net)
    scores = {(module, name): lamp(getattr(module, name).detach()) for module, name in layers}
    prune.global_unstructured(layers, prune.L1Unstructured, importance_scores=scores, amount=share)
    # Attention reads the weight of its output layer without calling the layer, whose hook would apply the mask.
    uncalled = [module.out_proj for module in net.modules() if isinstance(module, nn.MultiheadAttention)]

    def zero_weights(*_: object) -> None:
        for layer in uncalled:
            for hook in layer._forward_pre_hooks.values():
                hook(layer, ())

    handle = net.register_forward_pre_hook(zero_weights)
    try:
        yield
    finally:
        handle.remove()
        for module, name in layers:
            prune.remove(module, name)  # type: ignore[no-untyped-call]


def lamp(weight: torch.Tensor) -> torch.Tensor:
    """Each weight's square over the sum of the squares of its layer that are not smaller: 0..1, its shape."""
    square, order = weight.flatten().square().sort()
    left = square.flip(0).cumsum(0).flip(0)
    score = torch.empty_like(square)
    score[order] = square / left.clamp_min(torch.finfo(square.dtype).tiny)
    return score.view_as(weight)


def slim(net: Network, share: float) -> None:
    """Remove whole channels in place: those of the least magnitude over all layers that depend on them.

    Dependencies are found by torch-pruning (DepGraph, Fang et al. 2023); the last layer keeps its outputs, the first
    its inputs. Of an image network with a temporal head only the image network is pruned: DepGraph does not follow
    frames that are folded into the batch axis.

    Args:
        net: in evaluation mode, on the CPU.
        share: of the channels of each layer, 0 <= share < 1.

    Raises:
        ValueError: torch-pruning cannot follow the channels of this network.
    """
    import torch_pruning

    spec, (part, last) = net.spec, _part(net)
    frames = (spec.frames,) if spec.frames > 1 and part is net.backbone else ()
    example = torch.zeros((1, *frames, len(spec.mean), spec.image_size, spec.image_size))
    for parameter in net.parameters():
        parameter.requires_grad_(True)
    try:
        pruner = torch_pruning.pruner.BasePruner(
            part,
            example,
            importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=share,
            ignored_layers=[last],
            round_to=8 if share else None,
        )
        pruner.step()
        part(example)
    except Exception as error:  # the library traces the graph, and each network fails in its own way
        first = (str(error).splitlines() or [""])[0]
        raise ValueError(f"variant slim: the channels of {spec.name} cannot be taken out: {first}") from error


def _part(net: Network) -> tuple[nn.Module, nn.Module]:
    """The module that is pruned, and its last layer, which keeps its outputs."""
    if isinstance(net.backbone, ClipNet):
        return net.backbone.frame, net.backbone.frame.project[0]
    return net.backbone, _head(net)


def _head(net: Network) -> nn.Module:
    """The last linear layer with the network's number of outputs; of a dense network the last such convolution."""
    outputs = net.spec.classes
    linear = [part for part in net.modules() if isinstance(part, nn.Linear) and part.out_features == outputs]
    mapped = [part for part in net.modules() if isinstance(part, nn.Conv2d) and part.out_channels == outputs]
    candidates: list[nn.Module] = [*linear] if net.spec.encoder is None else [*mapped]
    if not candidates:
        raise ValueError(f"variant slim: {net.spec.name} has no layer of {outputs} outputs at its end")
    return candidates[-1]


def zeros(net: nn.Module) -> float:
    """The share of weights of convolutions and linear layers that are zero."""
    parts: list[torch.Tensor] = [getattr(module, name) for module, name in _weight_layers(net)]
    return sum(int((part == 0).sum()) for part in parts) / max(1, sum(part.numel() for part in parts))
