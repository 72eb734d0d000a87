"""Constant folding: a node whose inputs are all constants is computed now, by ONNX's reference implementation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgekit.artifacts import Array

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

__all__ = ["constant_value", "fold"]

_LOWERED_ALWAYS = frozenset({"DequantizeLinear"})  # the lowering remembers what the constant was stored as
#: different at every run, or not a function of the inputs alone
_NOT_PURE = frozenset({
    "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli", "Dropout",
})  # fmt: skip


def constant_value(node: ir.Node) -> Array | None:
    """The value of a Constant node; None for kinds that are no tensor (strings, sparse)."""
    attributes = node.attributes
    if "value" in attributes:
        tensor = attributes["value"].as_tensor()
        return tensor.numpy()
    for name, dtype in (("value_float", np.float32), ("value_floats", np.float32)):
        if name in attributes:
            return np.array(attributes[name].value, dtype)
    for name in ("value_int", "value_ints"):
        if name in attributes:
            return np.array(attributes[name].value, np.int64)
    return None


def fold(node: ir.Node, inputs: Sequence[Array | None], opset: int) -> list[Array] | None:
    """The outputs of ``node`` for constant ``inputs``; None when it is not pure or the reference does not know it."""
    import onnx_ir as ir
    from onnx.reference import ReferenceEvaluator

    has_body = any(attribute.type == ir.AttributeType.GRAPH for attribute in node.attributes.values())
    if node.op_type in _NOT_PURE | _LOWERED_ALWAYS or has_body:
        return None
    if node.op_type == "GlobalMaxPool" and inputs[0] is not None:
        # the reference implementation (onnx 1.23) reduces the wrong axes where there are not two of them
        return [np.max(inputs[0], axis=tuple(range(2, inputs[0].ndim)), keepdims=True)]
    feeds = {f"in{index}": data for index, data in enumerate(inputs) if data is not None}
    try:
        results = ReferenceEvaluator(_model(node, inputs, feeds, opset)).run(None, feeds)
    except (NotImplementedError, RuntimeError, TypeError, ValueError, IndexError, KeyError, AttributeError):
        # the reference does not implement every op; the node is then lowered like any other
        return None
    if not all(isinstance(result, (np.ndarray, np.generic)) for result in results):
        return None
    return [np.asarray(result) for result in results]


def _model(node: ir.Node, inputs: Sequence[Array | None], feeds: dict[str, Array], opset: int) -> onnx.ModelProto:
    """``node`` alone, reading ``feeds`` and making out0, out1 ..."""
    import onnx
    import onnx_ir as ir

    proto = ir.serde.serialize_node(node)
    del proto.input[:]
    proto.input.extend(f"in{index}" if data is not None else "" for index, data in enumerate(inputs))
    del proto.output[:]
    proto.output.extend(f"out{index}" if value.name else "" for index, value in enumerate(node.outputs))
    types = [(name, onnx.helper.np_dtype_to_tensor_dtype(data.dtype), data.shape) for name, data in feeds.items()]
    graph = onnx.helper.make_graph(
        [proto],
        "fold",
        [onnx.helper.make_tensor_value_info(*entry) for entry in types],
        [onnx.ValueInfoProto(name=name) for name in proto.output if name],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid(node.domain, opset)])
