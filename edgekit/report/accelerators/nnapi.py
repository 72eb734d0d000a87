"""Android's NNAPI through ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.report.accelerators.rule import Accelerator, OpFacts

__all__ = ["NNAPI"]

_KINDS = frozenset({
    "Abs", "Add", "AveragePool", "BatchNormalization", "Cast", "Clip", "Concat", "Conv", "DepthToSpace",
    "DequantizeLinear", "Div", "Elu", "Exp", "Flatten", "Floor", "Gather", "Gemm", "GlobalAveragePool",
    "GlobalMaxPool", "Identity", "LRN", "LeakyRelu", "Log", "MatMul", "Max", "MaxPool", "Min", "Mul", "Neg", "PRelu",
    "Pad", "Pow", "QLinearConv", "QLinearMatMul", "QuantizeLinear", "ReduceMean", "Relu", "Reshape", "Resize",
    "Sigmoid", "Sin", "Slice", "Softmax", "Split", "Sqrt", "Squeeze", "Sub", "Tanh", "Transpose", "Unsqueeze",
    "com.microsoft.QLinearAdd", "com.microsoft.QLinearAveragePool", "com.microsoft.QLinearSigmoid",
})  # fmt: skip
_WINDOWED = frozenset({"AveragePool", "Conv", "GlobalAveragePool", "GlobalMaxPool", "MaxPool", "QLinearConv"})
_CONSTANT_TAIL = frozenset({"Conv", "Pad", "Squeeze", "Unsqueeze", "QuantizeLinear", "DequantizeLinear"})


def _why_not(op: OpFacts) -> str:
    if op.kind not in _KINDS:
        return f"{op.kind} is not on the list of the NNAPI provider"
    if op.dynamic:
        return "a shape is dynamic"
    if op.kind in _WINDOWED and op.window not in (None, 2):
        return f"{op.kind} over {op.window} axes; only 2 are taken"
    if op.kind in _CONSTANT_TAIL and not all(op.constant[1:]):
        return f"{op.kind} wants its other inputs constant"
    if op.kind == "DepthToSpace" and op.attributes.get("mode", "DCR") != "DCR":
        return "DepthToSpace only in the order DCR"
    if op.kind == "Pad" and op.attributes.get("mode", "constant") != "constant":
        return "Pad only with a constant"
    if op.kind == "Gemm" and len(op.constant) > 1 and not op.constant[1] and not op.attributes.get("transB"):
        return "Gemm with a computed matrix wants transB"
    return ""


def _about(ops: Sequence[OpFacts]) -> tuple[str, ...]:  # noqa: ARG001 - one signature for all accelerators
    return ("NNAPI is deprecated since Android 15, and what a phone's driver makes of an op is known there only.",)


NNAPI = Accelerator(
    id="nnapi", title="NNAPI (ONNX Runtime)", format="onnx", why_not=_why_not, about=_about,
    source="ONNX Runtime 1.31, tools/mobile_helpers/nnapi_supported_ops.md",
)
