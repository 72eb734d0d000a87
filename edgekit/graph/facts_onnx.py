"""The facts of an .onnx file. Runs in a child process: see ``edgekit.graph.facts``."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.converters.onnx_model import describe, parse_onnx
from edgekit.graph.model_facts import ModelFacts

if TYPE_CHECKING:
    import onnx

__all__ = ["describe_onnx"]

_BITS = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}


def describe_onnx(path: str) -> ModelFacts:
    """Parse, check and describe the file; weights in other files are counted from their shapes, not opened.

    Raises BadModel when it is not a valid ONNX model, MissingExtra when the package onnx is not installed.
    """
    data = Path(path).read_bytes()
    proto = parse_onnx(data, f"'{path}'")
    model = describe(proto, data)
    graphs = list(_graphs(proto.graph))
    tensors = [tensor for graph in graphs for tensor in _constants(graph)]
    external = any(tensor.data_location == tensor.EXTERNAL for tensor in tensors)
    return ModelFacts(
        format="onnx",
        size_bytes=len(data),
        inputs=model.inputs,
        outputs=model.outputs,
        op_counts=_op_counts(graphs),
        opsets={opset.domain or "ai.onnx": opset.version for opset in proto.opset_import},
        parameter_count=sum(math.prod(tensor.dims) for tensor in tensors),
        weight_bytes=sum(map(_size_bytes, tensors)),
        load_note="Its weights are in other files; loading was not tried." if external else "",
    )


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """``graph`` and the ones nested in its nodes (If, Loop, Scan)."""
    todo = [graph]
    while todo:
        current = todo.pop()
        yield current
        for node in current.node:
            for attribute in node.attribute:
                todo.extend(attribute.graphs)
                if attribute.HasField("g"):
                    todo.append(attribute.g)


def _constants(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        if node.op_type == "Constant":
            yield from (attribute.t for attribute in node.attribute if attribute.HasField("t"))


def _op_counts(graphs: list[onnx.GraphProto]) -> dict[str, int]:
    counts = Counter(node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
                     for graph in graphs for node in graph.node)
    return dict(sorted(counts.items()))


def _size_bytes(tensor: onnx.TensorProto) -> int:
    import onnx

    if tensor.data_type == onnx.TensorProto.STRING:
        return sum(map(len, tensor.string_data))
    kind = onnx.TensorProto.DataType.Name(tensor.data_type)
    bits = _BITS.get(kind) or onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize * 8
    return int(math.prod(tensor.dims) * bits + 7) // 8
