"""Small constants that an ONNX graph computes from constants: sizes of pads and shapes, which shape inference needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx

__all__ = ["folded"]

_LARGEST = 1024


def folded(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of ``proto`` in which nodes that depend on small constants only are initializers.

    Those that ONNX's reference evaluator cannot compute, or whose result is not small, stay as they are.
    """
    import onnx
    from onnx import helper, numpy_helper
    from onnx.reference import ReferenceEvaluator

    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    known = {tensor.name: tensor for tensor in copy.graph.initializer if _size(tuple(tensor.dims)) <= _LARGEST}
    kept = []
    for node in copy.graph.node:
        inputs = [name for name in node.input if name]
        nested = any(attribute.type == onnx.AttributeProto.GRAPH for attribute in node.attribute)
        if nested or node.domain not in ("", "ai.onnx") or not all(name in known for name in inputs):
            kept.append(node)
            continue
        graph = helper.make_graph([node], "constants", [], [onnx.ValueInfoProto(name=name) for name in node.output],
                                  [known[name] for name in dict.fromkeys(inputs)])
        model = helper.make_model(graph, opset_imports=copy.opset_import)
        try:
            values = ReferenceEvaluator(model).run(None, {})
        except (ArithmeticError, AttributeError, LookupError, NotImplementedError, RuntimeError, TypeError, ValueError):
            # What the evaluator lacks raises as Python and NumPy do; shape inference then works without the value.
            kept.append(node)
            continue
        if not all(isinstance(value, np.ndarray) and value.size <= _LARGEST for value in values):
            kept.append(node)
            continue
        for name, value in zip(node.output, values, strict=True):
            known[name] = numpy_helper.from_array(value, name)
            copy.graph.initializer.append(known[name])
    del copy.graph.node[:]
    copy.graph.node.extend(kept)
    return copy


def _size(dims: tuple[int, ...]) -> int:
    size = 1
    for dim in dims:
        size *= dim
    return size
