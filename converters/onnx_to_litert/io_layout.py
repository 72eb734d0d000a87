"""Which inputs and outputs are stored as N, H, W, C (the rule of ``--io-layout``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekit.artifacts import Layout
from edgekit.recipe import IoLayout

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["input_layout", "output_layout"]

#: ops with channels on axis 1
_SPATIAL = frozenset({
    "AveragePool", "BatchNormalization", "Conv", "ConvTranspose", "GlobalAveragePool", "GlobalMaxPool",
    "InstanceNormalization", "LRN", "MaxPool", "Resize", "Upsample", "DepthToSpace", "SpaceToDepth", "GlobalLpPool",
    "LpPool", "GridSample", "QLinearConv", "ConvInteger",
})  # fmt: skip
_ELEMENTWISE = frozenset({
    "Abs", "Add", "Cast", "CastLike", "Ceil", "Celu", "Clip", "Cos", "Div", "Dropout", "Elu", "Erf", "Exp", "Floor",
    "Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Log", "Max", "Min", "Mish", "Mul", "Neg", "PRelu",
    "Pow", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Sqrt", "Sub",
    "Sum", "Swish", "Tanh", "ThresholdedRelu", "Where", "QuantizeLinear", "DequantizeLinear", "Pad",
})  # fmt: skip


def input_layout(value: ir.Value, rank: int, wish: IoLayout) -> Layout:
    """The layout of a graph input: "auto" looks for a spatial op as first consumer past elementwise ops."""
    if wish == "onnx" or rank != 4:
        return "onnx"
    if wish == "nhwc":
        return "nhwc"
    seen: set[ir.Value] = set()
    front = [value]
    while front:
        current = front.pop(0)
        if current in seen:
            continue
        seen.add(current)
        for node, index in current.uses():
            if node.op_type in _SPATIAL and index == 0:
                return "nhwc"
            if node.op_type in _ELEMENTWISE:
                front.extend(node.outputs)
    return "onnx"


def output_layout(value: ir.Value, rank: int, wish: IoLayout) -> Layout:
    """The layout of a graph output: "auto" looks for a spatial op as producer past elementwise ops."""
    if wish == "onnx" or rank != 4:
        return "onnx"
    if wish == "nhwc":
        return "nhwc"
    seen: set[ir.Value] = set()
    front: list[ir.Value] = [value]
    while front:
        current = front.pop(0)
        producer = current.producer()
        if current in seen or producer is None:
            continue
        seen.add(current)
        if producer.op_type in _SPATIAL:
            return "nhwc"
        if producer.op_type in _ELEMENTWISE:
            front.extend(operand for operand in producer.inputs if operand is not None)
    return "onnx"
