"""Qualcomm's NPU (HTP) through ONNX Runtime's QNN provider."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.report.accelerators.rule import Accelerator, OpFacts

__all__ = ["QNN"]

_KINDS = frozenset({
    "Abs", "Add", "And", "ArgMax", "ArgMin", "Asin", "Atan", "AveragePool", "BatchNormalization", "Cast", "Clip",
    "Concat", "Conv", "ConvTranspose", "Cos", "DepthToSpace", "DequantizeLinear", "Div", "Elu", "Equal", "Exp",
    "Expand", "Flatten", "Floor", "Gather", "Gelu", "Gemm", "GlobalAveragePool", "Greater", "GreaterOrEqual",
    "GridSample", "HardSwish", "InstanceNormalization", "LRN", "LayerNormalization", "LeakyRelu", "Less",
    "LessOrEqual", "Log", "LogSoftmax", "LpNormalization", "MatMul", "Max", "MaxPool", "Min", "Mul", "Neg", "Not",
    "Or", "PRelu", "Pad", "Pow", "QuantizeLinear", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum",
    "Relu", "Reshape", "Resize", "Round", "Sigmoid", "Sign", "Sin", "Slice", "Softmax", "SpaceToDepth", "Split",
    "Sqrt", "Squeeze", "Sub", "Tanh", "Tile", "TopK", "Transpose", "Unsqueeze", "Where",
    "com.microsoft.DequantizeLinear", "com.microsoft.Gelu", "com.microsoft.QuantizeLinear",
})  # fmt: skip


def _why_not(op: OpFacts) -> str:
    if op.kind not in _KINDS:
        return f"{op.kind} is not on the list of the QNN provider"
    if op.dynamic:
        return "a shape is dynamic"
    if op.kind == "LpNormalization" and op.attributes.get("p", 2) != 2:
        return "LpNormalization only with p = 2"
    return ""


def _about(ops: Sequence[OpFacts]) -> tuple[str, ...]:
    notes = ["Which data types an op may have depends on the generation of the NPU."]
    if not any(op.kind.rpartition(".")[2] in ("QuantizeLinear", "DequantizeLinear") for op in ops):
        notes.append("The NPU is built for quantized networks; a float one runs in float16 at best.")
    return tuple(notes)


QNN = Accelerator(
    id="qnn", title="Qualcomm NPU (ONNX Runtime QNN)", format="onnx", why_not=_why_not, about=_about,
    source="ONNX Runtime documentation, QNN execution provider: supported ONNX operators",
)
