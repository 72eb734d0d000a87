"""LiteRT's GPU accelerator."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.report.accelerators.rule import Accelerator, OpFacts

__all__ = ["GPU"]

#: ops in the documented list (OpenCL, Metal, WebGPU); each still has conditions of its own
_KINDS = frozenset({
    "ADD", "AVERAGE_POOL_2D", "BATCH_MATMUL", "CONCATENATION", "CONV_2D", "COS", "CUMSUM", "DEPTHWISE_CONV_2D", "DIV",
    "ELU", "EQUAL", "EXP", "FLOOR", "FLOOR_DIV", "FLOOR_MOD", "FULLY_CONNECTED", "GATHER", "GELU", "GREATER",
    "GREATER_EQUAL", "HARD_SWISH", "LEAKY_RELU", "LESS", "LESS_EQUAL", "LOG", "LOGICAL_AND", "LOGISTIC", "MAXIMUM",
    "MAX_POOL_2D", "MEAN", "MINIMUM", "MIRROR_PAD", "MUL", "NEG", "NOT_EQUAL", "ONE_HOT", "PAD", "POW", "PRELU",
    "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD", "RELU", "RELU6", "RELU_N1_TO_1", "RESHAPE", "RESIZE_BILINEAR",
    "RESIZE_NEAREST_NEIGHBOR", "RSQRT", "SELECT_V2", "SIGN", "SIN", "SLICE", "SOFTMAX", "SPACE_TO_DEPTH", "SPLIT",
    "SPLIT_V", "SQRT", "SQUARE", "SQUARED_DIFFERENCE", "STRIDED_SLICE", "SUB", "SUM", "TANH", "TILE", "TRANSPOSE",
    "TRANSPOSE_CONV", "DEPTH_TO_SPACE", "DEQUANTIZE", "QUANTIZE", "SQUEEZE", "EXPAND_DIMS", "CAST",
})  # fmt: skip


def _why_not(op: OpFacts) -> str:
    if op.kind not in _KINDS:
        return f"{op.kind} is not on the GPU delegate's list"
    if any(rank > 4 for rank in op.ranks):
        return "a tensor has more than 4 axes"
    if op.dynamic:
        return "a shape is dynamic"
    return ""


def _about(ops: Sequence[OpFacts]) -> tuple[str, ...]:
    if any(dtype == "int8" for op in ops for dtype in op.dtypes):
        return ("It computes quantized networks in floating point: they get smaller there, not faster.",)
    return ("It computes in float16 unless it is told otherwise: results differ by about 1e-3 of their range.",)


GPU = Accelerator(
    id="gpu", title="LiteRT GPU", format="tflite", why_not=_why_not, about=_about,
    source="LiteRT documentation, GPU delegates: supported ops",
)
