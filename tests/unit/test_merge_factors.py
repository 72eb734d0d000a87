"""A computed factor and a constant one are multiplied while they are small."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest

from edgekit.artifacts import Array
from tests.onnx_graphs import Graph, info, node, same_answer, weights
from tests.ops.harness import build, convert

GATE = [node("ReduceMean", "x axes", "g", keepdims=1), node("Sigmoid", "g", "s"), node("Mul", "x s", "t")]
AXES = np.array([2, 3], np.int64)


def large_products(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> int:
    """How many MUL ops have a result of the size of the input, in a conversion whose answer is right."""
    conversion = convert(model)
    same_answer(model, conversion, feeds)
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=conversion.model.data, experimental_op_resolver_type=_plain())
    sizes = {detail["index"]: int(np.prod(detail["shape"])) for detail in interpreter.get_tensor_details()}
    full = max(sizes[detail["index"]] for detail in interpreter.get_input_details())
    made = interpreter._get_ops_details()
    return sum(op["op_name"] == "MUL" and sizes[op["outputs"][0]] == full for op in made)


def _plain() -> Any:
    from ai_edge_litert.interpreter import OpResolverType

    return OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES


@pytest.mark.parametrize(
    ("scale", "left"),
    [((4, 1, 1), 1), ((), 1), ((1, 4, 1, 1), 1), ((4, 6, 1), 2), ((2, 4, 6, 5), 2)],
    ids=["by channel", "one number", "rank 4", "by row", "full size"],
)
def test_constant_factor(scale: Sequence[int], left: int) -> None:
    graph = Graph("gate", [*GATE, node("Mul", "t k", "y")], {"axes": AXES, "k": np.asarray(weights(*scale))}, opset=18)
    assert large_products(graph.model(), graph.feeds()) == left


def test_three_in_a_row() -> None:
    nodes = [*GATE, node("Mul", "t k", "u"), node("Mul", "u l", "y")]
    graph = Graph("three", nodes, {"axes": AXES, "k": weights(4, 1, 1), "l": weights(4, 1, 1)}, opset=18)
    assert large_products(graph.model(), graph.feeds()) <= 2


def test_product_that_is_read_twice_stays() -> None:
    nodes = [*GATE, node("Mul", "t k", "y"), node("Relu", "t", "z")]
    graph = Graph("twice", nodes, {"axes": AXES, "k": weights(4, 1, 1)}, outputs="y z", opset=18)
    assert large_products(graph.model(), graph.feeds()) == 2


def test_product_that_is_an_output_stays() -> None:
    nodes = [*GATE, node("Mul", "t k", "y")]
    graph = Graph("out", nodes, {"axes": AXES, "k": weights(4, 1, 1)}, outputs="y t", opset=18)
    assert large_products(graph.model(), graph.feeds()) == 2


def test_unknown_sizes() -> None:
    tensors = [onnx.numpy_helper.from_array(AXES, "axes"), onnx.numpy_helper.from_array(weights(4, 1, 1), "k")]
    model = build([*GATE, node("Mul", "t k", "y")], [info("x", ["n", 4, "h", "w"])], ["y"], tensors, 18)
    feeds = {"x": np.random.default_rng(0).uniform(-1, 1, (2, 4, 5, 7)).astype(np.float32)}
    conversion = convert(model)
    same_answer(model, conversion, feeds)
    assert conversion.op_counts["MUL"] == 2
