"""Graphs that random tests broke: where XNNPACK misreads a plain lowering, and shapes known only at run time."""

from __future__ import annotations

import pytest
from onnx import numpy_helper

from edgekit.recipe import ConvertRecipe, IoLayout
from tests.onnx_graphs import Graph, info, node, same_answer, scalar, weights
from tests.ops.harness import build, convert


@pytest.mark.parametrize("io_layout", ["onnx", "nhwc"])
@pytest.mark.parametrize("before", ["", "Relu", "Abs"])
@pytest.mark.parametrize("batch", [1, "n"])
def test_a_matrix_times_itself(io_layout: IoLayout, before: str, batch: int | str) -> None:
    """BATCH_MATMUL of one TRANSPOSE's result with itself: only one operand is read in the new order."""
    nodes = [node(before, "x", "t")] if before else []
    nodes += [node("MatMul", "t t" if before else "x x", "u"), node("Tanh", "u", "y")]
    model = build(nodes, [info("x", (batch, 4, 6, 6))], ["y"])
    same_answer(model, convert(model, ConvertRecipe(io_layout=io_layout)), {"x": weights(1, 4, 6, 6)})


def test_a_matrix_times_itself_behind_a_convolution() -> None:
    nodes = [node("Conv", "x w", "c"), node("MatMul", "c c", "m"), node("Conv", "m w", "y")]
    graph = Graph("gram", nodes, {"w": weights(4, 4, 1, 1)}, shape=(2, 4, 6, 6))
    same_answer(graph.model(), convert(graph.model()), graph.feeds())


@pytest.mark.parametrize("pool", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("bound", ["Min", "Max"])
def test_a_pool_over_single_elements(pool: str, bound: str) -> None:
    """A 1 x 1 pool of stride 1 behind MINIMUM or MAXIMUM and an activation: unset memory came out."""
    nodes = [node(bound, "x k", "m"), node("Relu", "m", "r"), node(pool, "r", "y", kernel_shape=[1, 1])]
    graph = Graph("pool", nodes, {"k": scalar(0.5)}, shape=(1, 4, 6, 6))
    conversion = convert(graph.model())
    assert "MAX_POOL_2D" not in conversion.op_counts
    assert "AVERAGE_POOL_2D" not in conversion.op_counts
    same_answer(graph.model(), conversion, graph.feeds())


def test_a_pool_over_single_elements_with_strides_is_none() -> None:
    nodes = [node("HardSigmoid", "x", "h"), node("MaxPool", "h", "y", kernel_shape=[1, 1], strides=[2, 1])]
    graph = Graph("pool", nodes, {}, shape=(1, 4, 6, 6))
    same_answer(graph.model(), convert(graph.model()), graph.feeds())


@pytest.mark.parametrize("axis", [0, 1, 2, 3, 4, -1])
def test_flatten_with_dynamic_dimensions_on_both_sides(axis: int) -> None:
    model = build([node("Flatten", "x", "y", axis=axis)], [info("x", ("n", 4, "h", 6))], ["y"])
    conversion = convert(model)
    for shape in ((1, 4, 3, 6), (3, 4, 5, 6)):
        same_answer(model, conversion, {"x": weights(*shape)}, 0)


def test_a_reshape_that_gives_the_sizes_of_both_sides() -> None:
    """As ``x.reshape(n * c, h * w)`` is exported with dynamic sizes."""
    nodes = [
        node("Shape", "x", "s"), node("Split", "s", "n c h w", num_outputs=4), node("Mul", "n c", "a"),
        node("Mul", "h w", "b"), node("Concat", "a b", "t", axis=0), node("Conv", "x k", "v"),
        node("Reshape", "v t", "y"),
    ]  # fmt: skip
    kernel = numpy_helper.from_array(weights(4, 4, 1, 1), "k")
    model = build(nodes, [info("x", ("n", 4, "h", 6))], ["y"], [kernel])
    conversion = convert(model)
    for shape in ((1, 4, 3, 6), (3, 4, 5, 6)):
        same_answer(model, conversion, {"x": weights(*shape)})
