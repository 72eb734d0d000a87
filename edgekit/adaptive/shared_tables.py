"""Scales that several tensors of a .tflite file have are stored once.

A weight quantized by channel has a scale of 4 bytes and a zero point of 8 for each of its channels, in every signature
that reads it. A flatbuffer may point at one table from many places.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgekit.converters.onnx_to_litert.schema import schema

__all__ = ["share_quantization"]


def share_quantization(model: Any) -> None:
    """Let tensors of ``model`` (the schema's ModelT) with equal quantization refer to one table when it is packed."""
    tables: dict[bytes, int] = {}
    vectors: dict[bytes, int] = {}
    for subgraph in model.subgraphs:
        for tensor in subgraph.tensors:
            found = tensor.quantization
            if found is not None and found.details is None and found.scale is not None and len(found.scale):
                found.Pack = _shared_pack(found, tables, vectors)


def _shared_pack(table: Any, tables: dict[bytes, int], vectors: dict[bytes, int]) -> Callable[[Any], int]:
    scale = np.ascontiguousarray(table.scale, "<f4")
    zero_point = np.ascontiguousarray([] if table.zeroPoint is None else table.zeroPoint, "<i8")
    key = b"|".join((scale.tobytes(), zero_point.tobytes(), str(table.quantizedDimension).encode()))

    def vector(builder: Any, array: Any) -> int:
        content = array.dtype.str.encode() + array.tobytes()
        if content not in vectors:
            vectors[content] = int(builder.CreateNumpyVector(array))
        return vectors[content]

    def pack(builder: Any) -> int:
        if key not in tables:
            s = schema()
            scales, zero_points = vector(builder, scale), vector(builder, zero_point)
            s.QuantizationParametersStart(builder)
            s.QuantizationParametersAddScale(builder, scales)
            s.QuantizationParametersAddZeroPoint(builder, zero_points)
            s.QuantizationParametersAddQuantizedDimension(builder, table.quantizedDimension)
            tables[key] = int(s.QuantizationParametersEnd(builder))
        return tables[key]

    return pack
