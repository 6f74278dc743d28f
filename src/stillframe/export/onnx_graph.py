"""From a trained net to one ONNX file that takes decoded images and gives probabilities and decisions."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from stillframe.export.onnx_preprocessing import IR_VERSION, OPSET, PIXELS, preprocessing
from stillframe.inference.model_metadata import ModelMetadata
from stillframe.models.build import Network
from stillframe.paths import replacing
from stillframe.tasks import find_task

if TYPE_CHECKING:
    from onnx import ModelProto

OUTPUTS = ("probabilities", "decisions")  # float32 (N, K), rows summing to 1; int64 (N,), class indices


class DecisionHead(nn.Module):
    """A net with the frozen choices behind it: pictures (B, C, S, S) in 0..255 -> probabilities and decisions.

    Clips are (B, T, C, S, S).

    All views go through the net as one batch, so that the file holds the net once.
    """

    def __init__(self, net: Network, facts: ModelMetadata) -> None:
        super().__init__()
        self.net, self.task = net, find_task(facts.task)
        self.tta, self.temperature, self.threshold = facts.tta, facts.temperature, facts.threshold

    def forward(self, image_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities float32 (B, K) and decisions int64 (B,); of masks (B, K, S, S) and (B, S, S)."""
        views = self.task.learning.tta_views(image_BCHW, self.tta)
        logits_VBK = self.net(torch.cat(views)).unflatten(0, (len(views), -1))
        logits_BK = self.task.learning.undo_tta(logits_VBK, self.tta).mean(0)
        probability_BK = (logits_BK / self.temperature).softmax(1)
        if self.threshold is None:
            return probability_BK, probability_BK.argmax(1)
        return probability_BK, (probability_BK[:, 1] >= self.threshold).long()


def net_graph(net: Network, facts: ModelMetadata) -> ModelProto:
    """The net with its choices as ONNX, for batches of any size.

    Args:
        net: in evaluation mode, on the CPU.
        facts: everything else that decides its answers.

    Raises:
        ValueError: torch cannot export this net.
    """
    try:
        made = _exported(net, facts)
    except Exception as error:  # torch's exporter raises many kinds; each means that this net has no ONNX form
        first = (str(error).strip().splitlines() or [""])[0]
        raise ValueError(f"model.name = {facts.net!r} cannot be exported: {type(error).__name__}: {first}") from error
    for node in made.graph.node:
        del node.metadata_props[:]  # stack traces of the machine that exported
        node.doc_string = ""
    return made


def _exported(net: Network, facts: ModelMetadata) -> ModelProto:
    picture = (facts.channels, facts.size, facts.size)
    example = torch.zeros((2, *picture) if facts.frames == 1 else (2, facts.frames, *picture))
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # which opsets its own passes were tried on
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice to torch's own developers
        program = torch.onnx.export(
            DecisionHead(net, facts).eval(),
            (example,),
            dynamo=True,
            input_names=[PIXELS],
            output_names=list(OUTPUTS),
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    made: ModelProto = program.model_proto
    return made


def whole(net_model: ModelProto, facts: ModelMetadata) -> ModelProto:
    """Preprocessing and net as one model with its metadata, checked.

    Raises:
        ValueError: the model does not hold what ONNX asks of it (an export that went wrong).
    """
    import onnx
    from onnx import checker, compose, helper

    front = compose.add_prefix(
        preprocessing(facts.size, facts.resize, facts.channels, facts.frames),
        "prepare/",
        rename_inputs=False,
        rename_outputs=False,
    )
    net_model.ir_version = front.ir_version = IR_VERSION
    merged = compose.merge_models(front, net_model, io_map=[(PIXELS, PIXELS)], producer_name="stillframe")
    merged.graph.name = facts.net
    used = {"", *(node.domain for node in merged.graph.node)}
    kept = [opset for opset in merged.opset_import if opset.domain in used]
    del merged.opset_import[:]
    merged.opset_import.extend(kept)  # tools declare all that they know
    del merged.metadata_props[:]
    helper.set_model_props(merged, facts.metadata())
    try:
        checker.check_model(merged, full_check=True)
    except (checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ValueError(f"the exported graph of {facts.net} is not valid ONNX: {error}") from None
    return merged


def save(model: ModelProto, path: Path) -> None:
    """Write a model, whole or not at all."""
    import onnx

    with replacing(path) as temporary:
        onnx.save_model(model, str(temporary))
