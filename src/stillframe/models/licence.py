"""The licence of pretrained weights, as their source states it. Without importing torch, but for hub weights."""

from __future__ import annotations

from importlib import metadata

LONGEST = 80  # characters; some packages put the whole licence text into this field


def licence_of(weights: str | None, name: str) -> str:
    """A sentence about the licence of `model.weights`, or that none is stated.

    Args:
        weights: as in the section `model`.
        name: of the network, for weights of timm's hub.
    """
    if weights is None:
        return "no pretrained weights: the net learnt from random ones"
    if weights.startswith("package:"):
        return _of_package(weights.removeprefix("package:").split("/")[0])
    if weights == "hub":
        return _of_hub(name)
    return f"not known: {weights} is a file of the user's"


def _of_package(module: str) -> str:
    try:
        facts = metadata.metadata(module.replace("_", "-")).json
    except metadata.PackageNotFoundError:
        return f"not known: the package of {module} is not installed here"
    package = f"{facts['name']} {facts['version']}"
    classified = [text.rsplit(" :: ", 1)[-1] for text in facts.get("classifier", []) if text.startswith("License")]
    for text in (*(str(facts.get(key, "")) for key in ("license_expression", "license")), *classified):
        if text and text != "UNKNOWN" and len(text) <= LONGEST:
            return f"{text}, says the package {package}"
    page = facts.get("home_page")
    return f"not stated by the package {package}" + (f": ask {page}" if page and page != "UNKNOWN" else "")


def _of_hub(name: str) -> str:
    from timm.models import get_pretrained_cfg  # imports torch, so only for weights of the hub

    facts = get_pretrained_cfg(name)
    if facts is None or not facts.license:
        return f"not stated by timm for {name}"
    return f"{facts.license}, says timm of {facts.hf_hub_id or name}"
