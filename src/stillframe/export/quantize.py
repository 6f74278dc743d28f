"""Reduced precision: fp16, and int8 calibrated on validation images. Works on the network's part of a file.

The resize in front stays as it is: its sums must be exact, and it has no weights.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stillframe.export.onnx_preprocessing import PIXELS

if TYPE_CHECKING:
    from onnx import ModelProto

INT8_OPERATORS = ("Conv", "Gemm", "MatMul", "Add", "MaxPool", "GlobalAveragePool", "ReduceMean", "Relu", "Clip")
FP32_OPERATORS = ("Softmax", "ArgMax", "GreaterOrEqual")  # the decision itself stays in fp32
BATCH = 16  # calibration images at a time


def to_fp16(net: ModelProto) -> ModelProto:
    """The network in fp16; inputs and outputs stay fp32. Half the size; a CPU without fp16 arithmetic converts back."""
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    blocked = [*DEFAULT_OP_BLOCK_LIST, *FP32_OPERATORS]
    half: ModelProto = convert_float_to_float16(net, keep_io_types=True, op_block_list=blocked)
    del half.graph.value_info[:]  # some still say fp32
    OnnxModel(half).topological_sort()  # the casts are appended at the end
    return half


class _CalibrationImages:
    """Calibration images as onnxruntime wants them: one dict a call, None at the end."""

    def __init__(self, image_NCHW: NDArray[np.float32]) -> None:
        self.batches: Iterator[NDArray[np.float32]] = iter(np.array_split(image_NCHW, -(-len(image_NCHW) // BATCH)))

    def get_next(self) -> dict[str, Any] | None:
        """The next batch."""
        batch = next(self.batches, None)
        return None if batch is None else {PIXELS: batch}


def to_int8(net: ModelProto, image_NCHW: NDArray[np.float32]) -> ModelProto:
    """The network in int8: weights per channel, activations by the ranges seen on `image_NCHW`, in the QDQ form.

    Args:
        net: in fp32.
        image_NCHW: float32 in 0..255, images as the network takes them; not from the test split.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    CalibrationDataReader.register(_CalibrationImages)
    logging.getLogger().setLevel(max(logging.getLogger().level, logging.ERROR))  # advice on the root logger
    with tempfile.TemporaryDirectory(prefix="stillframe-int8-") as folder:
        before, inferred, after = (Path(folder) / name for name in ("net.onnx", "inferred.onnx", "int8.onnx"))
        onnx.save_model(net, str(before))
        quant_pre_process(str(before), str(inferred), skip_symbolic_shape=True)
        quantize_static(
            str(inferred),
            str(after),
            _CalibrationImages(image_NCHW),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
            op_types_to_quantize=list(INT8_OPERATORS),
            extra_options={"ActivationSymmetric": False, "WeightSymmetric": True},
        )
        return onnx.load(str(after))
