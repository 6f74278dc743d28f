"""The files that a trained net becomes: as it is, in smaller numbers, or with less in it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stillframe.config import ExportConfig, PruneConfig
from stillframe.export.onnx_graph import net_graph, save, whole
from stillframe.inference.model_metadata import ModelMetadata
from stillframe.models.build import Network
from stillframe.models.trained import load_net
from stillframe.store.split import Split
from stillframe.training.spec import FinetuneSpec

if TYPE_CHECKING:
    from onnx import ModelProto


@dataclass(frozen=True)
class ExportContext:
    """What the variants are made from.

    Attributes:
        facts: of the model.
        section: `export`.
        trained: artifacts/train.
        lesson: how pruned nets are tuned.
        seed: of the choice of calibration images.
    """

    facts: ModelMetadata
    section: ExportConfig
    trained: Path
    lesson: FinetuneSpec
    seed: int

    def net(self) -> Network:
        """The trained net, fresh from its file."""
        return load_net(self.trained)[0]

    def pictures(self) -> NDArray[np.float32]:
        """Validation pictures for the calibration, drawn by the seed: float32 (N, C, S, S), clips (N, T, C, S, S)."""
        split = Split(self.lesson.val)
        count = min(self.section.calibrate, len(split))
        rows = np.sort(np.random.default_rng(self.seed).permutation(len(split))[:count])
        return np.ascontiguousarray(np.moveaxis(split.images(rows), -1, -3)).astype(np.float32)


def _fp32(shop: ExportContext, plain: ModelProto) -> ModelProto:
    return plain


def _fp16(shop: ExportContext, plain: ModelProto) -> ModelProto:
    from stillframe.export.quantize import halved

    return halved(plain)


def _int8(shop: ExportContext, plain: ModelProto) -> ModelProto:
    from stillframe.export.quantize import quantised

    return quantised(plain, shop.pictures())


def _sparse(shop: ExportContext, plain: ModelProto) -> ModelProto:
    from stillframe.models.prune import sparse, zeros
    from stillframe.training.finetune import tune

    net, how = shop.net(), shop.section.sparse
    with sparse(net, how.share):
        value = tune(net, shop.lesson, epochs=how.epochs, lr=how.lr)
    _say("sparse", how, value, shop, f"{100 * zeros(net):.0f} % of the weights are zero")
    return net_graph(net.eval(), shop.facts)


def _slim(shop: ExportContext, plain: ModelProto) -> ModelProto:
    from stillframe.models.prune import slim
    from stillframe.training.finetune import tune

    net, how = shop.net(), shop.section.slim
    before = sum(part.numel() for part in net.parameters())
    slim(net, how.share)
    value = tune(net, shop.lesson, epochs=how.epochs, lr=how.lr)
    after = sum(part.numel() for part in net.parameters())
    _say("slim", how, value, shop, f"{before:,} -> {after:,} parameters")
    return net_graph(net.eval(), shop.facts)


def _say(name: str, how: PruneConfig, value: float, shop: ExportContext, what: str) -> None:
    print(f"{name}: {what}; {how.epochs} epochs on, validation {shop.lesson.trainer.monitor} {value:.4f}", flush=True)


MAKERS: dict[str, Callable[[ExportContext, ModelProto], ModelProto]] = {
    "fp32": _fp32,
    "fp16": _fp16,
    "int8": _int8,
    "sparse": _sparse,
    "slim": _slim,
}


def make(shop: ExportContext, out: Path) -> list[Path]:
    """Write the file of each variant of the section, fp32 first.

    Raises:
        ValueError: torch cannot export this net, or a variant cannot be made of it.
    """
    plain = net_graph(shop.net(), shop.facts)
    paths = []
    for name in ["fp32", *(one for one in shop.section.variants if one != "fp32")]:
        made = MAKERS[name](shop, copy.deepcopy(plain))
        paths.append(out / f"{name}.onnx")
        save(whole(made, replace(shop.facts, variant=name)), paths[-1])
    return paths


def choose(rows: list[dict[str, Any]], section: ExportConfig) -> str:
    """The variant that `export.choose` names, or by its rule; scores are those of the validation split.

    smallest_within: of the variants whose scores are at most `export.within` below those of fp32 the smallest file.

    Raises:
        ValueError: a variant that was not made, or a rule about a score that is not measured.
    """
    names = [str(row["name"]) for row in rows]
    if section.choose != "smallest_within":
        if section.choose not in names:
            raise ValueError(f"export.choose = {section.choose!r} is not in export.variants = {names}")
        return section.choose
    scores: list[dict[str, float]] = [row["validation"] for row in rows]
    for metric in section.within:
        if metric not in scores[0]:
            raise ValueError(f"export.within.{metric}: no such score: known: {', '.join(scores[0])}")
    allowed = [
        row
        for row, score in zip(rows, scores, strict=True)
        if all(score[metric] >= scores[0][metric] - most for metric, most in section.within.items())
    ]
    return str(min(allowed, key=lambda row: (row["bytes"], row["latency_ms_p50"]))["name"])
