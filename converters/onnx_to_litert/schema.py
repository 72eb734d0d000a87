"""What the flatbuffer schema needs to know of each LiteRT op: its options table and its version.

The schema itself is the one that ships with ai-edge-litert.
"""

from __future__ import annotations

import re
from typing import Any

from edgekit.converters.onnx_to_litert.graph import Op
from edgekit.errors import MissingExtra

__all__ = ["enum_value", "op_version", "options_name", "schema"]

#: kinds whose options table is not named after them
_OPTIONS = {
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "L2_POOL_2D": "Pool2DOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "MEAN": "ReducerOptions",
    "SUM": "ReducerOptions",
    "REDUCE_MAX": "ReducerOptions",
    "REDUCE_MIN": "ReducerOptions",
    "REDUCE_PROD": "ReducerOptions",
    "REDUCE_ANY": "ReducerOptions",
    "REDUCE_ALL": "ReducerOptions",
    "MAXIMUM": "MaximumMinimumOptions",
    "MINIMUM": "MaximumMinimumOptions",
    "BATCH_MATMUL": "BatchMatMulOptions",
    "TOPK_V2": "TopKV2Options",
    "PADV2": "PadV2Options",
    "CONV_2D": "Conv2DOptions",
    "CONV_3D": "Conv3DOptions",
    "CONV_3D_TRANSPOSE": "Conv3DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "LOCAL_RESPONSE_NORMALIZATION": "LocalResponseNormalizationOptions",
}
#: option field -> the enum that its strings are names of
_ENUMS = {
    "padding": "Padding",
    "fusedActivationFunction": "ActivationFunctionType",
    "outType": "TensorType",
    "outputType": "TensorType",
}
#: lowest version in which the runtime registers the kernel, where that is not 1
_VERSIONS = {"BROADCAST_TO": 2}


def schema() -> Any:
    """The generated schema module. Raises MissingExtra without ai-edge-litert."""
    try:
        from ai_edge_litert import schema_py_generated
    except ImportError as error:
        raise MissingExtra.of("ai-edge-litert", "convert") from error
    return schema_py_generated


def options_name(kind: str) -> str | None:
    """The name of the options table of ``kind``; None for ops without one."""
    name = _OPTIONS.get(kind) or "".join(part.capitalize() for part in re.split("_", kind)) + "Options"
    return name if hasattr(schema().BuiltinOptions, name) else None


def enum_value(field: str, value: object) -> object:
    """``value``, or its number in the schema when it is the name of an enum member."""
    if isinstance(value, str):
        return getattr(getattr(schema(), _ENUMS[field]), value)
    return value


def op_version(op: Op) -> int:
    """The version that tells a runtime what the op uses (TensorFlow's op_version.cc), so that old ones load it too."""
    if op.kind in ("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"):
        return 3 if op.options.get("halfPixelCenters") else 1
    if op.kind == "DEPTHWISE_CONV_2D":
        return 2 if max(int(str(op.options.get(f"dilation{axis}Factor", 1))) for axis in "HW") > 1 else 1
    if op.kind == "FULLY_CONNECTED":
        return 5 if op.options.get("keepNumDims") else 1
    if op.kind == "TRANSPOSE_CONV":
        return 3 if len(op.inputs) == 4 else 1
    return _VERSIONS.get(op.kind, 1)
