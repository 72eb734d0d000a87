"""Folding scales and shifts of channels into convolutions."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.artifacts import Array
from edgekit.converters.passes.fold_affine import fold_affine
from tests.onnx_graphs import Graph, node, scalar, weights
from tests.pass_check import check

KERNEL = {"w": weights(6, 4, 3, 3)}
BIASED = {"w": weights(6, 4, 3, 3), "b": weights(6)}
NORM = {"s": weights(6), "o": weights(6), "m": weights(6), "v": np.abs(weights(6)) + 0.1}
CONV = node("Conv", "x w", "t")
CONV_B = node("Conv", "x w b", "t", pads=[1, 1, 1, 1])
BN = node("BatchNormalization", "t s o m v", "y")


def affine(label: str, op: str, constant: Array, after: dict[str, int] | None, first: bool = False) -> Graph:
    operands = "c t" if first else "t c"
    return Graph(f"{label}", [CONV_B, node(op, operands, "y")], {**BIASED, "c": constant}, after)


AFFINE = [
    Graph("norm", [CONV, BN], {**KERNEL, **NORM}, {"Conv": 1}),
    Graph("norm after bias", [CONV_B, BN], {**BIASED, **NORM}, {"Conv": 1}),
    Graph(
        "norm with epsilon",
        [CONV_B, node("BatchNormalization", "t s o m v", "y", epsilon=0.3)],
        {**BIASED, **NORM},
        {"Conv": 1},
    ),
    Graph(
        "norm in an older opset",
        [CONV_B, node("BatchNormalization", "t s o m v", "y")],
        {**BIASED, **NORM},
        {"Conv": 1},
        opset=9,
    ),
    affine("mul per channel", "Mul", weights(6, 1, 1), {"Conv": 1}),
    affine("mul per channel, rank 4", "Mul", weights(1, 6, 1, 1), {"Conv": 1}),
    affine("mul by a scalar", "Mul", scalar(0.37), {"Conv": 1}),
    affine("mul by one element", "Mul", weights(1, 1, 1), {"Conv": 1}),
    affine("constant first", "Mul", weights(6, 1, 1), {"Conv": 1}, first=True),
    affine("add", "Add", weights(6, 1, 1), {"Conv": 1}),
    affine("sub", "Sub", weights(6, 1, 1), {"Conv": 1}),
    affine("sub from", "Sub", weights(6, 1, 1), {"Conv": 1}, first=True),
    affine("div", "Div", weights(6, 1, 1), {"Conv": 1}),
    Graph("without bias", [CONV, node("Add", "t c", "y")], {**KERNEL, "c": weights(6, 1, 1)}, {"Conv": 1}),
    Graph(
        "bias left out by name",
        [node("Conv", "x w -", "t"), node("Add", "t c", "y")],
        {**KERNEL, "c": weights(6, 1, 1)},
        {"Conv": 1},
    ),
    Graph(
        "chain of four",
        [CONV_B, node("BatchNormalization", "t s o m v", "n"), node("Mul", "n c", "q"), node("Add", "q d", "r"),
         node("Div", "r e", "y")],
        {**BIASED, **NORM, "c": weights(6, 1, 1), "d": weights(6, 1, 1), "e": scalar(3)},
        {"Conv": 1},
    ),
    Graph(
        "constant node",
        [node("Constant", "", "c", value=numpy_helper.from_array(weights(6, 1, 1))), CONV_B, node("Mul", "t c", "y")],
        BIASED,
        {"Conv": 1},
    ),
    Graph("groups", [node("Conv", "x w", "t", group=2), BN], {"w": weights(6, 2, 3, 3), **NORM}, {"Conv": 1}),
    Graph(
        "depthwise",
        [node("Conv", "x w", "t", group=4), node("Mul", "t c", "y")],
        {"w": weights(4, 1, 3, 3), "c": weights(4, 1, 1)},
        {"Conv": 1},
    ),
    Graph(
        "one dimension",
        [node("Conv", "x w", "t"), node("Mul", "t c", "y")],
        {"w": weights(6, 4, 3), "c": weights(6, 1)},
        {"Conv": 1},
        (2, 4, 9),
    ),
    Graph(
        "transposed",
        [node("ConvTranspose", "x w", "t"), BN],
        {"w": weights(4, 6, 3, 3), **NORM},
        {"ConvTranspose": 1},
    ),
    Graph(
        "transposed in groups",
        [node("ConvTranspose", "x w b", "t", group=2, strides=[2, 2]), BN],
        {"w": weights(4, 3, 3, 3), "b": weights(6), **NORM},
        {"ConvTranspose": 1},
    ),
    Graph(
        "kernel shared by two convolutions",
        [node("Conv", "x w", "t"), node("Conv", "x w", "u"), node("Mul", "t c", "p"), node("Add", "p u", "y")],
        {**KERNEL, "c": weights(6, 1, 1)},
        {"Conv": 2, "Add": 1},
    ),
    Graph(
        "scale shared by two convolutions",
        [node("Conv", "x w", "t"), node("Conv", "x w", "u"), node("Mul", "t c", "p"), node("Mul", "u c", "q"),
         node("Add", "p q", "y")],
        {**KERNEL, "c": weights(6, 1, 1)},
        {"Conv": 2, "Add": 1},
    ),
    Graph(
        "names that are taken",
        [CONV, node("Mul", "t c", "u"), node("Relu", "u", "w/folded"), node("Neg", "w/folded", "y")],
        {"w": weights(6, 4, 3, 3), "c": weights(6, 1, 1)},
        {"Conv": 1, "Relu": 1, "Neg": 1},
    ),
]  # fmt: skip
NOT_AFFINE = [
    affine("mul along the width", "Mul", weights(5), None),
    affine("mul along the height", "Mul", weights(6, 1), None),
    affine("mul by a whole image", "Mul", weights(6, 6, 5), None),
    affine("mul of another rank", "Mul", weights(1, 1, 1, 1, 1), None),
    affine("mul per sample", "Mul", weights(2, 1, 1, 1), None),
    affine("divided by it", "Div", weights(6, 1, 1), None, first=True),
    Graph("two readers", [CONV, BN, node("Relu", "t", "z")], {**KERNEL, **NORM}, outputs="y z"),
    Graph("output in between", [CONV, BN], {**KERNEL, **NORM}, outputs="t y"),
    Graph("squared", [CONV, node("Mul", "t t", "y")], KERNEL),
    Graph("scale at run time", [CONV, node("Mul", "t c", "y")], KERNEL, more_inputs={"c": (6, 1, 1)}),
    Graph("kernel at run time", [CONV, node("Mul", "t c", "y")], {"c": scalar(2)}, more_inputs={"w": (6, 4, 3, 3)}),
    Graph(
        "bias at run time",
        [node("Conv", "x w b", "t"), node("Mul", "t c", "y")],
        {**KERNEL, "c": scalar(2)},
        more_inputs={"b": (6,)},
    ),
    Graph(
        "norm in training mode",
        [CONV, node("BatchNormalization", "t s o m v", "y m2 v2", training_mode=1)],
        {**KERNEL, **NORM},
    ),
    Graph(
        "norm at run time",
        [CONV, BN],
        {**KERNEL, **{k: v for k, v in NORM.items() if k != "s"}},
        more_inputs={"s": (6,)},
    ),
    Graph("another op between", [CONV, node("Relu", "t", "r"), node("Mul", "r c", "y")], {**KERNEL, "c": scalar(2)}),
    Graph(
        "width equal to channels",
        [node("Conv", "x w", "t"), node("Mul", "t c", "y")],
        {"w": weights(5, 4, 1, 1), "c": weights(5)},
    ),
]


@pytest.mark.parametrize("graph", [*AFFINE, *NOT_AFFINE], ids=lambda graph: graph.id)
def test_fold_affine(graph: Graph) -> None:
    check(fold_affine, graph, 3e-6)


def test_division_by_zero_stays_where_it_is() -> None:
    zeros = np.array([1, 1, 0, 1, 1, 1], np.float32).reshape(6, 1, 1)
    model = affine("zero", "Div", zeros, None).model()
    assert not fold_affine(ir.serde.deserialize_model(model))[1]


def test_fold_affine_of_double_precision_is_left_alone() -> None:
    graph = Graph(
        "double",
        [CONV, node("Mul", "t c", "y")],
        {"w": weights(6, 4, 3, 3).astype(np.float64), "c": np.array(2.0)},
        dtype=TensorProto.DOUBLE,
    )
    assert not fold_affine(ir.serde.deserialize_model(graph.model()))[1]  # ONNX Runtime has no such Conv to compare


def test_fold_affine_keeps_weights_that_are_inputs_with_a_default() -> None:
    """From IR version 4 on, an initializer that is also an input is a default that the caller may replace."""
    model = Graph("default", [CONV, BN], {**KERNEL, **NORM}).model()
    model.graph.input.append(helper.make_tensor_value_info("s", TensorProto.FLOAT, [6]))
    assert not fold_affine(ir.serde.deserialize_model(model))[1]
