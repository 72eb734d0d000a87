"""Which inputs and outputs become N, H, W, C: the rule of --io-layout, case by case."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.recipe import ConvertRecipe, IoLayout
from tests.onnx_graphs import Graph, answer, ints, node, same_answer, scalar, weights
from tests.ops.harness import convert

IMAGE = (2, 4, 6, 5)
STORED = (2, 6, 5, 4)
KERNEL = {"w": weights(4, 4, 1, 1)}
NORM = {name: np.abs(weights(4)) for name in "somv"}
BATCH_NORM = node("BatchNormalization", "x s o m v", "c")
RESIZE = node(
    "Resize", "x - sc", "c", mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"
)
TWICE = {"sc": np.array([1, 1, 2, 2], np.float32)}
TAIL = node("Flatten", "c", "y")
#: (graph over the rank-4 input x, layout of x in "auto"); the results have another rank, so they have no say
INPUTS = [
    (Graph("Conv", [node("Conv", "x w", "c"), TAIL], KERNEL), "nhwc"),
    (Graph("ConvTranspose", [node("ConvTranspose", "x w", "c"), TAIL], KERNEL), "nhwc"),
    (Graph("MaxPool", [node("MaxPool", "x", "c", kernel_shape=[2, 2]), TAIL], {}), "nhwc"),
    (Graph("AveragePool", [node("AveragePool", "x", "c", kernel_shape=[2, 2]), TAIL], {}), "nhwc"),
    (Graph("GlobalAveragePool", [node("GlobalAveragePool", "x", "c"), TAIL], {}), "nhwc"),
    (Graph("Resize", [RESIZE, TAIL], TWICE), "nhwc"),
    (Graph("BatchNormalization", [BATCH_NORM, TAIL], NORM), "nhwc"),
    (
        Graph(
            "past elementwise ops",
            [node("Sub", "x a", "p"), node("Div", "p b", "q"), node("Relu", "q", "r"), node("Conv", "r w", "c"), TAIL],
            {**KERNEL, "a": weights(4, 1, 1), "b": scalar(3)},
        ),
        "nhwc",
    ),
    (
        Graph("second operand", [node("Mul", "a x", "p"), node("Conv", "p w", "c"), TAIL], {**KERNEL, "a": scalar(2)}),
        "nhwc",
    ),
    (Graph("MatMul", [node("MatMul", "x v", "c"), TAIL], {"v": weights(5, 3)}), "onnx"),
    (Graph("Flatten", [node("Flatten", "x", "y")], {}), "onnx"),
    (Graph("Softmax", [node("Softmax", "x", "c", axis=1), TAIL], {}), "onnx"),
    (Graph("ReduceMean", [node("ReduceMean", "x a", "y", keepdims=0)], {"a": ints(2, 3)}), "onnx"),
    (
        Graph(
            "Transpose before Conv",
            [node("Transpose", "x", "t", perm=[0, 3, 1, 2]), node("Conv", "t w", "c"), TAIL],
            {"w": weights(4, 5, 1, 1)},
        ),
        "onnx",
    ),
    (
        Graph(
            "Concat before Conv",
            [node("Concat", "x x", "t", axis=1), node("Conv", "t w", "c"), TAIL],
            {"w": weights(4, 8, 1, 1)},
        ),
        "onnx",
    ),
    (Graph("as a kernel", [node("Conv", "a x", "c"), TAIL], {"a": weights(1, 4, 9, 9)}), "onnx"),
    (Graph("elementwise only", [node("Relu", "x", "c"), TAIL], {}), "onnx"),
]  # fmt: skip
CONV = node("Conv", "x w", "c")
#: (graph with the rank-4 output y, its layout in "auto")
OUTPUTS = [
    (Graph("Conv", [node("Conv", "x w", "y")], KERNEL), "nhwc"),
    (Graph("MaxPool", [node("MaxPool", "x", "y", kernel_shape=[2, 2])], {}), "nhwc"),
    (Graph("GlobalAveragePool", [node("GlobalAveragePool", "x", "y")], {}), "nhwc"),
    (Graph("Resize", [node("Resize", "x - sc", "y", mode="linear")], TWICE), "nhwc"),
    (Graph("past elementwise ops", [CONV, node("Relu", "c", "r"), node("Sigmoid", "r", "y")], KERNEL), "nhwc"),
    (Graph("sum", [CONV, node("Add", "c x", "y")], KERNEL), "nhwc"),
    (Graph("Softmax", [CONV, node("Softmax", "c", "y", axis=1)], KERNEL), "onnx"),
    (Graph("Transpose", [CONV, node("Transpose", "c", "y", perm=[0, 2, 3, 1])], KERNEL), "onnx"),
    (Graph("Reshape", [CONV, node("Reshape", "c s", "y")], {**KERNEL, "s": ints(2, 2, 2, 30)}), "onnx"),
    (Graph("Concat", [CONV, node("Concat", "c c", "y", axis=1)], KERNEL), "onnx"),
    (Graph("MatMul", [node("MatMul", "x v", "y")], {"v": weights(5, 3)}), "onnx"),
    (Graph("the input itself", [node("Identity", "x", "y")], {}), "onnx"),
]


@pytest.mark.parametrize(("graph", "layout"), INPUTS, ids=lambda value: value.id if isinstance(value, Graph) else "")
def test_layout_of_inputs(graph: Graph, layout: str) -> None:
    model = graph.model()
    for wish in ("auto", "onnx", "nhwc"):
        conversion = convert(model, ConvertRecipe(io_layout=wish))
        found = conversion.model.inputs[0]
        assert found.layout == (layout if wish == "auto" else wish)
        assert found.shape == (STORED if found.layout == "nhwc" else IMAGE)
        same_answer(model, conversion, graph.feeds())


@pytest.mark.parametrize(("graph", "layout"), OUTPUTS, ids=lambda value: value.id if isinstance(value, Graph) else "")
def test_layout_of_outputs(graph: Graph, layout: str) -> None:
    model, feeds = graph.model(), graph.feeds()
    wanted = answer(model, feeds)[0].shape
    for wish in ("auto", "onnx", "nhwc"):
        conversion = convert(model, ConvertRecipe(io_layout=wish))
        found = conversion.model.outputs[0]
        assert found.layout == (layout if wish == "auto" else wish)
        assert found.shape == (tuple(wanted[axis] for axis in (0, 2, 3, 1)) if found.layout == "nhwc" else wanted)
        same_answer(model, conversion, feeds)


@pytest.mark.parametrize("wish", ["auto", "onnx", "nhwc"])
def test_only_rank_four_is_ever_nhwc(wish: IoLayout) -> None:
    graph = Graph("1-D", [node("Conv", "x w", "y")], {"w": weights(4, 4, 1)}, shape=(2, 4, 6))
    conversion = convert(graph.model(), ConvertRecipe(io_layout=wish))
    assert [spec.layout for spec in conversion.model.inputs + conversion.model.outputs] == ["onnx", "onnx"]
    same_answer(graph.model(), conversion, graph.feeds())
