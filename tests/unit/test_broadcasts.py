"""Repeating and reordering that the op next to it can do; shapes that only the run knows."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.artifacts import Array, Conversion
from tests.onnx_graphs import Graph, answer, ints, node, weights
from tests.ops.harness import assert_same, build, convert, reference, run_litert


def converted(graph: Graph) -> Conversion:
    """``graph`` converted, after its answer was found right."""
    model, feeds = graph.model(), {"x": weights(*graph.shape)}
    conversion = convert(model)
    assert_same(run_litert(conversion, feeds), answer(model, feeds), 1e-5)
    return conversion


NORM = node("ReduceL2", "x one", "n", keepdims=1)


@pytest.mark.parametrize("op", ["Div", "Mul", "Sub", "Add", "Max"])
@pytest.mark.parametrize("inputs", ["x t", "t x"])
def test_a_value_repeated_for_arithmetic_stays_small(op: str, inputs: str) -> None:
    nodes = [NORM, node("Expand", "n size", "t"), node(op, inputs, "y")]
    conversion = converted(Graph(op, nodes, {"one": ints(1), "size": ints(2, 4, 6, 5)}))
    assert "BROADCAST_TO" not in conversion.op_counts


def test_a_repeated_value_that_gives_the_result_its_size_stays_repeated() -> None:
    nodes = [NORM, node("Expand", "n size", "t"), node("Add", "t n", "y")]
    assert converted(Graph("both small", nodes, {"one": ints(1), "size": ints(2, 4, 6, 5)})).op_counts["BROADCAST_TO"]


def test_a_repeated_value_that_is_also_an_output_is_there() -> None:
    nodes = [NORM, node("Expand", "n size", "t"), node("Mul", "x t", "y")]
    converted(Graph("output", nodes, {"one": ints(1), "size": ints(2, 4, 6, 5)}, outputs="y t"))


SHUFFLE = node("DepthToSpace", "c", "y", blocksize=2, mode="CRD")


def test_a_convolution_in_front_of_a_pixel_shuffle_makes_the_channels_in_its_order() -> None:
    nodes = [node("Conv", "x w b", "c", pads=[1, 1, 1, 1]), SHUFFLE]
    conversion = converted(Graph("shuffle", nodes, {"w": weights(12, 4, 3, 3), "b": weights(12)}))
    assert not {"GATHER", "TRANSPOSE", "RESHAPE"} & set(conversion.op_counts)


def test_a_convolution_that_others_read_keeps_its_order() -> None:
    nodes = [node("Conv", "x w b", "c", pads=[1, 1, 1, 1]), SHUFFLE, node("Neg", "c", "z")]
    converted(Graph("two readers", nodes, {"w": weights(12, 4, 3, 3), "b": weights(12)}, outputs="y z"))


def test_picked_channels_that_are_not_all_of_them_stay_picked() -> None:
    nodes = [node("Conv", "x w", "c"), node("Gather", "c places", "y", axis=1)]
    converted(Graph("some", nodes, {"w": weights(6, 4, 1, 1), "places": ints(5, 0, 2)}))
    nodes = [node("Conv", "x w", "c"), node("Gather", "c places", "y", axis=1)]
    converted(Graph("twice", nodes, {"w": weights(3, 4, 1, 1), "places": ints(2, 2, 0)}))


def dynamic(nodes: list[onnx.NodeProto], constants: dict[str, Array], shape: list[str | int]) -> onnx.ModelProto:
    """A network with the input ``x`` of a shape with names in it."""
    tensors = [numpy_helper.from_array(data, name) for name, data in constants.items()]
    return build(nodes, [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)], ["y"], tensors)


@pytest.mark.parametrize("length", [1, 4])
def test_a_value_of_computed_size_is_repeated_to_a_size_known_at_run_time(length: int) -> None:
    """A causal mask: what is compared has sizes that no tensor of the graph's interface has."""
    nodes = [
        node("Shape", "x", "s", start=1),
        node("Squeeze", "s zero", "l"),
        node("Range", "none l step", "r"),
        node("Unsqueeze", "r zero", "row"),
        node("Unsqueeze", "r one", "column"),
        node("LessOrEqual", "row column", "mask"),
        node("Shape", "x", "b", end=1),
        node("Concat", "b s s", "size", axis=0),
        node("Expand", "mask size", "full"),
        node("Cast", "full", "y", to=TensorProto.FLOAT),
    ]
    constants = {"zero": ints(0), "one": ints(1), "none": np.array(0, np.int64), "step": np.array(1, np.int64)}
    model = dynamic(nodes, constants, ["n", "l"])
    feeds = {"x": weights(2, length)}
    assert_same(run_litert(convert(model), feeds), reference(model, feeds), 0)


def test_a_convolution_knows_its_channels_where_the_reshape_in_front_does_not() -> None:
    """Exporters write the last size of a map of tokens as -1."""
    nodes = [
        node("Shape", "x", "b", end=1),
        node("Shape", "x", "hw", start=2),
        node("Transpose", "x", "last", perm=[0, 2, 3, 1]),
        node("Concat", "b hw minus", "size", axis=0),
        node("Relu", "last", "relu"),
        node("Reshape", "relu size", "map"),
        node("Transpose", "map", "image", perm=[0, 3, 1, 2]),
        node("Conv", "image w", "y", pads=[1, 1, 1, 1]),
    ]
    model = dynamic(nodes, {"minus": ints(-1), "w": weights(5, 4, 3, 3)}, ["n", 4, "h", "w"])
    feeds = {"x": weights(2, 4, 5, 6)}
    assert_same(run_litert(convert(model), feeds), reference(model, feeds), 1e-5)
