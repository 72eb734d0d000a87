"""Dense blocks: each concatenation takes the one before as it is."""

from __future__ import annotations

import numpy as np

from tests.onnx_graphs import Graph, node, same_answer
from tests.ops.harness import convert

DEPTH = 8


def dense(axes: list[int]) -> Graph:
    """Each step concatenates everything so far, along its axis, and makes one part more."""
    nodes, parts = [node("Relu", "x", "p0"), node("Neg", "x", "p1")], "p0 p1"
    for at, axis in enumerate(axes):
        nodes += [node("Concat", parts, f"c{at}", axis=axis), node("ReduceMax", f"c{at} k", f"r{at}", keepdims=1)]
        nodes += [node("Mul", f"x r{at}", f"p{at + 2}")]
        parts += f" p{at + 2}"
    nodes += [node("Concat", parts, "y", axis=1)]
    return Graph("dense", nodes, {"k": np.array([1, 2, 3], np.int64)}, opset=18)


def widths(graph: Graph) -> list[int]:
    """How many tensors each CONCATENATION reads, in a conversion whose answer is right."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    model = graph.model()
    conversion = convert(model)
    same_answer(model, conversion, graph.feeds())
    interpreter = Interpreter(
        model_content=conversion.model.data,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    return [len(op["inputs"]) for op in interpreter._get_ops_details() if op["op_name"] == "CONCATENATION"]


def test_dense_block_reads_two_tensors_at_each_step() -> None:
    assert widths(dense([1] * DEPTH)) == [2] * (DEPTH + 1)


def test_other_axis_is_another_concatenation() -> None:
    assert widths(dense([1, 2, 3])) == [2, 3, 4, 4]
