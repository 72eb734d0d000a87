"""What LiteRT's kernels can take, as measured with and without XNNPACK: element types and numbers of axes.

Outside of these a kernel fails, answers wrong or takes the process down (unquantized int8 ADD aborts, int8 MUL gives
zeros). The builder asks here before it adds an op, so that a lowering need not think of element types: what a kernel
does not take is cast to the next type that holds all its values, and back.
"""

from __future__ import annotations

import numpy as np

from edgekit.converters.onnx_to_litert.graph import Tensor
from edgekit.converters.onnx_to_litert.refusal import Refused

__all__ = ["carrier", "check_rank", "data_operands"]

_FLOAT = frozenset({"float32"})
_COMPUTE = frozenset({"float32", "int32", "int64"})
_INTS = frozenset({"int8", "uint8", "int32", "int64"})
_MOVED = frozenset({"float32", "float16", "int8", "uint8", "int16", "int32", "int64"})

#: kind -> element types of its data operands that the kernel computes right. What is not here moves or makes data of
#: any type (RESHAPE, TRANSPOSE, SELECT_V2, CAST, FILL, ...), or runs a subgraph.
_DTYPES = {
    **dict.fromkeys(("ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM", "LESS", "LESS_EQUAL", "GREATER", "GREATER_EQUAL",
                     "SUM", "MEAN", "CUMSUM", "RANGE", "NEG"), _COMPUTE),
    **dict.fromkeys(("EQUAL", "NOT_EQUAL"), _COMPUTE | {"bool"}),
    **dict.fromkeys(("DIV", "FLOOR_DIV", "POW", "SIGN", "ABS"), frozenset({"float32", "int32"})),
    "FLOOR_MOD": _COMPUTE,
    **dict.fromkeys(("REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD", "TOPK_V2"), _COMPUTE),
    **dict.fromkeys(("REDUCE_ANY", "REDUCE_ALL", "LOGICAL_AND", "LOGICAL_OR", "LOGICAL_NOT"), frozenset({"bool"})),
    **dict.fromkeys(("GATHER", "GATHER_ND", "CONCATENATION", "REVERSE_V2"), _MOVED | {"bool"}),
    **dict.fromkeys(("PAD", "PADV2", "SPLIT", "SPLIT_V"), _MOVED - {"float16"}),
    "PACK": _INTS | _FLOAT,
    **dict.fromkeys(("SCATTER_ND", "ONE_HOT", "WHERE"), _INTS | _FLOAT | {"bool"}),
    "REVERSE_SEQUENCE": frozenset({"float32", "uint8", "int32", "int64"}),
    **dict.fromkeys(("SPACE_TO_DEPTH", "DEPTH_TO_SPACE"), _INTS | _FLOAT),
    **dict.fromkeys(("ARG_MAX", "ARG_MIN"), frozenset({"float32", "int32", "int8", "uint8"})),
    **dict.fromkeys(("BITWISE_XOR", "RIGHT_SHIFT"), frozenset({"int8", "uint8", "int16", "uint16", "int32", "uint32"})),
    **dict.fromkeys((
        "ATAN2", "AVERAGE_POOL_2D", "BATCH_MATMUL", "CEIL", "CONV_2D", "CONV_3D", "COS", "DEPTHWISE_CONV_2D", "ELU",
        "EXP", "FLOOR", "FULLY_CONNECTED", "GELU", "HARD_SWISH", "LEAKY_RELU", "LOCAL_RESPONSE_NORMALIZATION", "LOG",
        "LOGISTIC", "LOG_SOFTMAX", "PRELU", "RELU", "RELU6", "RELU_N1_TO_1", "RESIZE_BILINEAR", "ROUND",
        "RSQRT", "SIN", "SOFTMAX", "SQRT", "SQUARE", "TANH", "TRANSPOSE_CONV",
    ), _FLOAT),
    "MAX_POOL_2D": frozenset({"float32", "int8", "uint8"}),
    "RESIZE_NEAREST_NEIGHBOR": frozenset({"float32", "int8", "uint8", "int16"}),
}  # fmt: skip
#: the operands that hold data, where that is not all but shapes and axes behind the first
_DATA = {
    "SPLIT": (1,), "SCATTER_ND": (1,), "ONE_HOT": (2, 3), "RANGE": (0, 1, 2), "PADV2": (0, 2), "TRANSPOSE_CONV": (1, 2),
}  # fmt: skip
_ALL_OPERANDS = frozenset({
    "ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM", "LESS", "LESS_EQUAL", "GREATER", "GREATER_EQUAL", "EQUAL",
    "NOT_EQUAL", "FLOOR_DIV", "FLOOR_MOD", "POW", "CONCATENATION", "PACK", "BATCH_MATMUL", "FULLY_CONNECTED", "CONV_2D",
    "DEPTHWISE_CONV_2D", "CONV_3D", "PRELU", "LOGICAL_AND", "LOGICAL_OR", "ATAN2", "BITWISE_XOR", "RIGHT_SHIFT",
})  # fmt: skip
#: type -> those that hold all its values, smallest first; integer arithmetic modulo 2^n survives the way there and back
_WIDER = {
    "bool": ("uint8", "int32"), "int8": ("int32",), "uint8": ("int32",), "int16": ("int32",), "uint16": ("int32",),
    "uint32": ("int64",), "float16": ("float32",),
}  # fmt: skip
#: kind -> most axes, where XNNPACK or the kernel stops before LiteRT's own limit of 8
_MAX_RANK = {
    **dict.fromkeys(("SUM", "MEAN", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD", "PAD", "PADV2", "CONCATENATION", "SPLIT",
                     "SPLIT_V", "SOFTMAX", "FULLY_CONNECTED"), 6),
    "BATCH_MATMUL": 5,
}  # fmt: skip
_RANK = 8


def data_operands(kind: str, count: int) -> tuple[int, ...]:
    """Which of ``count`` operands hold data, not shapes, axes or indices."""
    if kind in _ALL_OPERANDS:
        return tuple(range(count))
    return tuple(index for index in _DATA.get(kind, (0,)) if index < count)


def carrier(kind: str, dtype: np.dtype[np.generic]) -> np.dtype[np.generic]:
    """The type in which ``kind`` computes on ``dtype``: itself, or a wider one. Raises Refused where there is none."""
    known = _DTYPES.get(kind)
    if known is None or dtype.name in known:
        return dtype
    for name in _WIDER.get(dtype.name, ()):
        if name in known:
            return np.dtype(name)
    remedy = "Convert the model to float32." if dtype.kind == "f" else "Use int32 or float32 here."
    raise Refused(f"LiteRT's {kind} does not take {dtype.name}", remedy)


def check_rank(kind: str, tensors: list[Tensor]) -> None:
    """Raise Refused when one of ``tensors`` has more axes than ``kind`` takes."""
    rank = max((tensor.rank for tensor in tensors), default=0)
    most = _MAX_RANK.get(kind, _RANK)
    if rank > most:
        raise Refused(f"LiteRT's {kind} takes at most {most} axes, not {rank}", "Merge axes in the source network.")
