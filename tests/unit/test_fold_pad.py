"""Folding zero padding into the convolution behind it."""

from __future__ import annotations

import pytest

from edgekit.artifacts import Array
from edgekit.converters.passes.fold_pad import fold_pad
from tests.onnx_graphs import Graph, ints, node, scalar, weights
from tests.pass_check import check

KERNEL = {"w": weights(6, 4, 3, 3)}


def padded(label: str, amounts: Array, after: dict[str, int] | None = None, **conv: object) -> Graph:
    return Graph(
        label,
        [node("Pad", "x p", "t"), node("Conv", "t w", "y", **conv)],
        {**KERNEL, "p": amounts},
        after,
    )


HALF = ints(0, 0, 1, 2, 0, 0, 1, 2)
PAD = [
    padded("plain", HALF, {"Conv": 1}),
    padded("one side", ints(0, 0, 0, 1, 0, 0, 1, 0), {"Conv": 1}),
    padded("on top of pads", HALF, {"Conv": 1}, pads=[1, 0, 0, 1], strides=[2, 2]),
    padded("valid", HALF, {"Conv": 1}, auto_pad="VALID"),
    Graph(
        "zero given",
        [node("Pad", "x p z", "t"), node("Conv", "t w", "y")],
        {**KERNEL, "p": HALF, "z": scalar(0)},
        {"Conv": 1},
    ),
    Graph(
        "attribute",
        [node("Pad", "x", "t", pads=HALF.tolist()), node("Conv", "t w", "y")],
        KERNEL,
        {"Conv": 1},
        opset=10,
    ),
    Graph(
        "two convolutions",
        [node("Pad", "x p", "t"), node("Conv", "t w", "u"), node("Conv", "t w", "v"), node("Add", "u v", "y")],
        {**KERNEL, "p": HALF},
        {"Conv": 2, "Add": 1},
    ),
    Graph(
        "another reader keeps it",
        [node("Pad", "x p", "t"), node("Conv", "t w", "y"), node("Relu", "t", "z")],
        {**KERNEL, "p": HALF},
        {"Conv": 1, "Relu": 1, "Pad": 1},
        outputs="y z",
    ),
    Graph(
        "an output keeps it",
        [node("Pad", "x p", "t"), node("Conv", "t w", "y")],
        {**KERNEL, "p": HALF},
        {"Conv": 1, "Pad": 1},
        outputs="t y",
    ),
    Graph(
        "two pads",
        [node("Pad", "x p", "s"), node("Pad", "s p", "t"), node("Conv", "t w", "y")],
        {**KERNEL, "p": HALF},
        {"Conv": 1},
    ),
    Graph(
        "one dimension",
        [node("Pad", "x p", "t"), node("Conv", "t w", "y")],
        {"w": weights(6, 4, 3), "p": ints(0, 0, 2, 0, 0, 1)},
        {"Conv": 1},
        (2, 4, 9),
    ),
]  # fmt: skip
NOT_PAD = [
    Graph(
        "channels",
        [node("Pad", "x p", "t"), node("Conv", "t w", "y")],
        {"w": weights(6, 5, 3, 3), "p": ints(0, 1, 0, 0, 0, 0, 0, 0)},
    ),
    padded("batch", ints(1, 0, 1, 1, 0, 0, 1, 1)),
    padded("negative", ints(0, 0, 1, -1, 0, 0, 1, 1)),
    padded("same", HALF, auto_pad="SAME_UPPER"),
    Graph(
        "another value",
        [node("Pad", "x p z", "t"), node("Conv", "t w", "y")],
        {**KERNEL, "p": HALF, "z": scalar(0.5)},
    ),
    Graph(
        "another value as attribute",
        [node("Pad", "x", "t", pads=HALF.tolist(), value=1.0), node("Conv", "t w", "y")],
        KERNEL,
        opset=10,
    ),
    Graph("reflected", [node("Pad", "x p", "t", mode="reflect"), node("Conv", "t w", "y")], {**KERNEL, "p": HALF}),
    Graph("edge", [node("Pad", "x p", "t", mode="edge"), node("Conv", "t w", "y")], {**KERNEL, "p": HALF}),
    Graph(
        "value at run time",
        [node("Pad", "x p z", "t"), node("Conv", "t w", "y")],
        {**KERNEL, "p": HALF},
        more_inputs={"z": ()},
    ),
    Graph(
        "axes",
        [node("Pad", "x p - a", "t"), node("Conv", "t w", "y")],
        {**KERNEL, "p": ints(1, 1), "a": ints(2)},
    ),
    Graph(
        "of the kernel",
        [node("Pad", "w p", "t"), node("Conv", "x t", "y")],
        {"w": weights(6, 4, 2, 2), "p": ints(0, 0, 1, 0, 0, 0, 0, 1)},
    ),
    Graph("before a pool", [node("Pad", "x p", "t"), node("MaxPool", "t", "y", kernel_shape=[3, 3])], {"p": HALF}),
]


@pytest.mark.parametrize("graph", [*PAD, *NOT_PAD], ids=lambda graph: graph.id)
def test_fold_pad(graph: Graph) -> None:
    check(fold_pad, graph)
