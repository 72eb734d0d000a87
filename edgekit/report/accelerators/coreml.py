"""Apple's CoreML through ONNX Runtime, with models of the kind MLProgram."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.report.accelerators.rule import Accelerator, OpFacts

__all__ = ["COREML"]

_KINDS = frozenset({
    "Add", "And", "ArgMax", "AveragePool", "Cast", "Ceil", "Clip", "Concat", "Conv", "ConvTranspose", "Cos",
    "DepthToSpace", "Div", "Elu", "Erf", "Exp", "GatherND", "Gelu", "Gemm", "GlobalAveragePool", "GlobalMaxPool",
    "GridSample", "GroupNormalization", "HardSigmoid", "Identity", "InstanceNormalization", "LayerNormalization",
    "LeakyRelu", "MatMul", "Max", "MaxPool", "Mul", "PRelu", "Pow", "Reciprocal", "ReduceMax", "ReduceMean",
    "ReduceSum", "Relu", "Reshape", "Resize", "Round", "Shape", "Sigmoid", "Sin", "Slice", "Softmax", "Softplus",
    "Split", "Sqrt", "Squeeze", "Sub", "Tanh", "Tile", "Transpose", "Unsqueeze", "Where",
})  # fmt: skip
_POOLS = frozenset({"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"})


def _why_not(op: OpFacts) -> str:
    if op.kind not in _KINDS:
        return f"{op.kind} is not on the list of the CoreML provider (MLProgram)"
    if op.kind in _POOLS and op.window not in (None, 2):
        return f"{op.kind} over {op.window} axes; only 2 are taken"
    if op.kind == "Conv" and op.window not in (None, 1, 2):
        return f"Conv over {op.window} axes; 1 or 2 are taken"
    if op.kind in ("Conv", "ConvTranspose") and not all(op.constant[2:]):
        return f"{op.kind} wants a constant bias"
    if op.kind in ("Gemm", "ConvTranspose") and not all(op.constant[1:2]):
        return f"{op.kind} wants a constant matrix"
    if op.kind in ("Slice", "Split") and not all(op.constant[1:]):
        return f"{op.kind} wants its other inputs constant"
    if op.kind == "DepthToSpace" and op.attributes.get("mode", "DCR") == "CRD" and op.dynamic:
        return "DepthToSpace in the order CRD wants a fixed shape"
    return ""


def _about(ops: Sequence[OpFacts]) -> tuple[str, ...]:
    notes = []
    if any(op.kind in ("QuantizeLinear", "DequantizeLinear") for op in ops):
        notes.append("It takes no QDQ ops: for CoreML use the float network.")
    if any(op.dynamic for op in ops):
        notes.append("Dynamic shapes keep it off the Neural Engine; fix them.")
    return tuple(notes)


COREML = Accelerator(
    id="coreml", title="CoreML (ONNX Runtime)", format="onnx", why_not=_why_not, about=_about,
    source="ONNX Runtime 1.31, tools/mobile_helpers/coreml_supported_mlprogram_ops.md",
)
