"""Export variants: fp32, reduced precision (fp16, int8) and pruned (sparse, slim)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stillframe.config import ExportConfig, PruneConfig
from stillframe.export.onnx_graph import net_graph, save, with_preprocessing
from stillframe.model_metadata import ModelMetadata
from stillframe.models.build import Network
from stillframe.models.trained import load_net
from stillframe.store.split import Split
from stillframe.tasks.base import Task
from stillframe.training.spec import TrainingSpec

if TYPE_CHECKING:
    from onnx import ModelProto


@dataclass(frozen=True)
class ExportContext:
    """What the variants are made from.

    Attributes:
        metadata: of the model.
        section: `export`.
        trained: artifacts/train.
        spec: how pruned networks are fine-tuned.
        seed: of the choice of calibration images.
    """

    metadata: ModelMetadata
    section: ExportConfig
    trained: Path
    spec: TrainingSpec
    seed: int

    def net(self) -> Network:
        """The trained network, fresh from its file."""
        return load_net(self.trained)[0]

    def calibration_images(self) -> NDArray[np.float32]:
        """Validation images for the calibration, drawn by the seed: float32 (N, C, S, S), clips (N, T, C, S, S)."""
        split = Split(self.spec.val)
        count = min(self.section.calibrate, len(split))
        rows = np.sort(np.random.default_rng(self.seed).permutation(len(split))[:count])
        return np.ascontiguousarray(np.moveaxis(split.images(rows), -1, -3)).astype(np.float32)


def _fp32(context: ExportContext, fp32: ModelProto) -> ModelProto:
    return fp32


def _fp16(context: ExportContext, fp32: ModelProto) -> ModelProto:
    from stillframe.export.quantize import to_fp16

    return to_fp16(fp32)


def _int8(context: ExportContext, fp32: ModelProto) -> ModelProto:
    from stillframe.export.quantize import to_int8

    return to_int8(fp32, context.calibration_images())


def _sparse(context: ExportContext, fp32: ModelProto) -> ModelProto:
    from stillframe.models.prune import sparse, zeros
    from stillframe.training.finetune import finetune

    net, pruning = context.net(), context.section.sparse
    with sparse(net, pruning.share):
        value = finetune(net, context.spec, epochs=pruning.epochs, lr=pruning.lr)
    _print_pruned("sparse", pruning, value, context, f"{100 * zeros(net):.0f} % of the weights are zero")
    return net_graph(net.eval(), context.metadata)


def _slim(context: ExportContext, fp32: ModelProto) -> ModelProto:
    from stillframe.models.prune import slim
    from stillframe.training.finetune import finetune

    net, pruning = context.net(), context.section.slim
    before = sum(part.numel() for part in net.parameters())
    slim(net, pruning.share)
    value = finetune(net, context.spec, epochs=pruning.epochs, lr=pruning.lr)
    after = sum(part.numel() for part in net.parameters())
    _print_pruned("slim", pruning, value, context, f"{before:,} -> {after:,} parameters")
    return net_graph(net.eval(), context.metadata)


def _print_pruned(name: str, pruning: PruneConfig, value: float, context: ExportContext, text: str) -> None:
    monitor = context.spec.trainer.monitor
    print(f"{name}: {text}; {pruning.epochs} epochs on, validation {monitor} {value:.4f}", flush=True)


MAKERS: dict[str, Callable[[ExportContext, ModelProto], ModelProto]] = {
    "fp32": _fp32,
    "fp16": _fp16,
    "int8": _int8,
    "sparse": _sparse,
    "slim": _slim,
}


def make_variants(context: ExportContext, out: Path) -> list[Path]:
    """Write the file of each variant of the section, fp32 first.

    Raises:
        ValueError: torch cannot export this network, or a variant cannot be made of it.
    """
    fp32 = net_graph(context.net(), context.metadata)
    paths = []
    for name in ["fp32", *(variant for variant in context.section.variants if variant != "fp32")]:
        graph = MAKERS[name](context, copy.deepcopy(fp32))
        paths.append(out / f"{name}.onnx")
        save(with_preprocessing(graph, replace(context.metadata, variant=name)), paths[-1])
    return paths


def choose(rows: list[dict[str, Any]], section: ExportConfig, task: Task) -> str:
    """The variant that `export.choose` names, or by its rule; scores are those of the validation split.

    smallest_within: the smallest file of the variants whose scores are at most `export.within` worse than fp32's.

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
    sign = {metric: 1 if task.metric(metric).maximize else -1 for metric in section.within}
    allowed = [
        row
        for row, score in zip(rows, scores, strict=True)
        if all(sign[name] * score[name] >= sign[name] * scores[0][name] - most for name, most in section.within.items())
    ]
    return str(min(allowed, key=lambda row: (row["bytes"], row["latency_ms_p50"]))["name"])
