"""From a trained network to one ONNX file that takes decoded images and gives the task's output arrays."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from stillframe.export.onnx_preprocessing import IR_VERSION, OPSET, PIXELS, preprocessing
from stillframe.model_metadata import ModelMetadata
from stillframe.models.build import Network
from stillframe.paths import replacing
from stillframe.tasks import find_task

if TYPE_CHECKING:
    from onnx import ModelProto


class ExportedNetwork(nn.Module):
    """A network with the frozen choices behind it: images (B, C, S, S) in 0..255 -> the task's output arrays.

    Clips are (B, T, C, S, S). All views go through the network as one batch, so that the file holds it once.
    """

    def __init__(self, net: Network, metadata: ModelMetadata) -> None:
        super().__init__()
        self.net, self.metadata, self.task = net, metadata, find_task(metadata.task)

    def forward(self, image_BCHW: Tensor) -> tuple[Tensor, ...]:
        """The values of `outputs`."""
        return tuple(self.outputs(image_BCHW).values())

    def outputs(self, image_BCHW: Tensor) -> dict[str, Tensor]:
        """The outputs of the task's `export_head` by name."""
        learning, tta = self.task.learning, self.metadata.tta
        views = learning.tta_views(image_BCHW, tta)
        raw_VB = self.net(torch.cat(views)).unflatten(0, (len(views), -1))
        return learning.export_head(learning.undo_tta(raw_VB, tta).mean(0), self.metadata)


def net_graph(net: Network, metadata: ModelMetadata) -> ModelProto:
    """The network with its choices as ONNX, for batches of any size.

    Args:
        net: in evaluation mode, on the CPU.
        metadata: everything else that decides its predictions.

    Raises:
        ValueError: torch cannot export this network.
    """
    try:
        graph = _exported(net, metadata)
    except Exception as error:  # torch's exporter raises many kinds; each means that this network has no ONNX form
        first = (str(error).strip().splitlines() or [""])[0]
        raise ValueError(
            f"model.name = {metadata.net!r} cannot be exported: {type(error).__name__}: {first}"
        ) from error
    for node in graph.graph.node:
        del node.metadata_props[:]  # stack traces of the machine that exported
        node.doc_string = ""
    return graph


def _exported(net: Network, metadata: ModelMetadata) -> ModelProto:
    image = (metadata.channels, metadata.size, metadata.size)
    example = torch.zeros((2, *image) if metadata.frames == 1 else (2, metadata.frames, *image))
    exported = ExportedNetwork(net, metadata).eval()
    with torch.no_grad():
        names = list(exported.outputs(example))
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # which opsets its own passes were tried on
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice to torch's own developers
        program = torch.onnx.export(
            exported,
            (example,),
            dynamo=True,
            input_names=[PIXELS],
            output_names=names,
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    graph: ModelProto = program.model_proto
    return graph


def with_preprocessing(net_model: ModelProto, metadata: ModelMetadata) -> ModelProto:
    """Preprocessing and network as one model with its metadata, checked.

    Raises:
        ValueError: the model does not hold what ONNX asks of it (an export that went wrong).
    """
    import onnx
    from onnx import checker, compose, helper

    front = compose.add_prefix(
        preprocessing(metadata.size, metadata.resize, metadata.channels, metadata.frames),
        "prepare/",
        rename_inputs=False,
        rename_outputs=False,
    )
    net_model.ir_version = front.ir_version = IR_VERSION
    merged = compose.merge_models(front, net_model, io_map=[(PIXELS, PIXELS)], producer_name="stillframe")
    merged.graph.name = metadata.net
    used = {"", *(node.domain for node in merged.graph.node)}
    opsets = [opset for opset in merged.opset_import if opset.domain in used]
    del merged.opset_import[:]
    merged.opset_import.extend(opsets)  # tools declare all that there are
    del merged.metadata_props[:]
    helper.set_model_props(merged, metadata.to_text())
    try:
        checker.check_model(merged, full_check=True)
    except (checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ValueError(f"the exported graph of {metadata.net} is not valid ONNX: {error}") from None
    return merged


def save(model: ModelProto, path: Path) -> None:
    """Write a model, whole or not at all."""
    import onnx

    with replacing(path) as temporary:
        onnx.save_model(model, str(temporary))
