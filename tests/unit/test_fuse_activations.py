"""Finding Gelu, HardSigmoid and HardSwish in the parts that exporters write."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto

from edgekit.converters.passes.fuse_gelu import fuse_gelu
from edgekit.converters.passes.fuse_hard_swish import fuse_hard_swish
from edgekit.converters.passes.fuse_mish import fuse_mish
from tests.onnx_graphs import Graph, answer, ints, node, scalar
from tests.ops.harness import assert_same
from tests.pass_check import Pass, check

FLAT = (3, 8)

# -- fuse_gelu -------------------------------------------------------------------------------------------------------

ROOT = {"root": scalar(2**0.5), "one": scalar(1), "half": scalar(0.5), "inv": scalar(0.5**0.5), "wrong": scalar(0.7)}
ERF = [node("Div", "x root", "d"), node("Erf", "d", "e"), node("Add", "e one", "a")]


def gelu(label: str, nodes: Sequence[onnx.NodeProto], after: dict[str, int] | None = None, outputs: str = "y") -> Graph:
    used = {name for step in nodes for name in step.input}
    return Graph(label, nodes, {k: v for k, v in ROOT.items() if k in used}, after, FLAT, outputs)


GELU = [
    gelu("x (1 + erf) then half", [*ERF, node("Mul", "x a", "p"), node("Mul", "p half", "y")], {"Gelu": 1}),
    gelu("(1 + erf) x then half", [*ERF, node("Mul", "a x", "p"), node("Mul", "half p", "y")], {"Gelu": 1}),
    gelu("half (1 + erf) then x", [*ERF, node("Mul", "a half", "p"), node("Mul", "x p", "y")], {"Gelu": 1}),
    gelu("half x, then (1 + erf)", [*ERF, node("Mul", "x half", "p"), node("Mul", "p a", "y")], {"Gelu": 1}),
    gelu("half x first", [node("Mul", "half x", "p"), *ERF, node("Mul", "a p", "y")], {"Gelu": 1}),
    gelu(
        "times 1 / root, one first",
        [node("Mul", "inv x", "d"), node("Erf", "d", "e"), node("Add", "one e", "a"), node("Mul", "x a", "p"),
         node("Mul", "p half", "y")],
        {"Gelu": 1},
    ),
    gelu(
        "two in a row",
        [*ERF, node("Mul", "x a", "p"), node("Mul", "p half", "q"), node("Div", "q root", "d2"),
         node("Erf", "d2", "e2"), node("Add", "e2 one", "a2"), node("Mul", "q a2", "p2"), node("Mul", "p2 half", "y")],
        {"Gelu": 2},
    ),
    gelu(
        "half x has another reader",
        [*ERF, node("Mul", "x half", "p"), node("Mul", "p a", "y"), node("Relu", "p", "z")],
        {"Gelu": 1, "Mul": 1, "Relu": 1},
        "y z",
    ),
]  # fmt: skip
NOT_GELU = [
    gelu("no half", [*ERF, node("Mul", "x a", "y")]),
    gelu("half of one plus erf only", [*ERF, node("Mul", "a half", "y")]),
    gelu("half twice", [*ERF, node("Mul", "a half", "p"), node("Mul", "p half", "y")]),
    gelu("another factor", [*ERF, node("Mul", "x a", "p"), node("Mul", "p wrong", "y")]),
    gelu("another scale", [node("Div", "x wrong", "d"), *ERF[1:], node("Mul", "x a", "p"), node("Mul", "p half", "y")]),
    gelu(
        "another offset",
        [*ERF[:2], node("Add", "e wrong", "a"), node("Mul", "x a", "p"), node("Mul", "p half", "y")],
    ),
    gelu("divisor over x", [node("Div", "root x", "d"), *ERF[1:], node("Mul", "x a", "p"), node("Mul", "p half", "y")]),
    gelu(
        "gate has two readers",
        [*ERF, node("Mul", "x a", "p"), node("Mul", "p half", "y"), node("Relu", "a", "z")],
        None,
        "y z",
    ),
    gelu(
        "product has two readers",
        [*ERF, node("Mul", "x a", "p"), node("Mul", "p half", "y"), node("Relu", "p", "z")],
        None,
        "y z",
    ),
    gelu(
        "erf has two readers",
        [*ERF, node("Mul", "x a", "p"), node("Mul", "p half", "y"), node("Relu", "e", "z")],
        None,
        "y z",
    ),
    gelu("x of something else", [node("Relu", "x", "r"), *ERF, node("Mul", "r a", "p"), node("Mul", "p half", "y")]),
    gelu("added, not multiplied", [*ERF, node("Mul", "x a", "p"), node("Add", "p half", "y")]),
]


@pytest.mark.parametrize("graph", [*GELU, *NOT_GELU], ids=lambda graph: graph.id)
def test_fuse_gelu(graph: Graph) -> None:
    check(fuse_gelu, graph)


@pytest.mark.parametrize("inner", ["d", "e", "a", "p"])
def test_fuse_gelu_keeps_what_is_an_output(inner: str) -> None:
    nodes = [*ERF, node("Mul", "x a", "p"), node("Mul", "p half", "y")]
    before = gelu("output", nodes, outputs=f"{inner} y").model()
    after = ir.serde.serialize_model(fuse_gelu(ir.serde.deserialize_model(before))[0])
    feeds = {"x": np.linspace(-4, 4, 24, dtype=np.float32).reshape(FLAT)}
    assert_same(answer(after, feeds), answer(before, feeds), 1e-6)


# -- fuse_mish -------------------------------------------------------------------------------------------------------

GATED = [node("Softplus", "x", "s"), node("Tanh", "s", "t")]
MISH = [
    Graph("x first", [*GATED, node("Mul", "x t", "y")], {}, {"Mish": 1}, FLAT),
    Graph("gate first", [*GATED, node("Mul", "t x", "y")], {}, {"Mish": 1}, FLAT),
    Graph(
        "two in a row",
        [
            *GATED,
            node("Mul", "x t", "u"),
            node("Softplus", "u", "s2"),
            node("Tanh", "s2", "t2"),
            node("Mul", "u t2", "y"),
        ],
        {},
        {"Mish": 2},
        FLAT,
    ),
]
NOT_MISH = [
    Graph("of something else", [*GATED, node("Relu", "x", "r"), node("Mul", "r t", "y")], {}, None, FLAT),
    Graph("added", [*GATED, node("Add", "x t", "y")], {}, None, FLAT),
    Graph("another gate", [GATED[0], node("Sigmoid", "s", "t"), node("Mul", "x t", "y")], {}, None, FLAT),
    Graph("softplus is read twice", [*GATED, node("Mul", "x t", "y"), node("Neg", "s", "z")], {}, None, FLAT, "y z"),
    Graph("tanh is read twice", [*GATED, node("Mul", "x t", "y"), node("Neg", "t", "z")], {}, None, FLAT, "y z"),
    Graph("softplus is an output", [*GATED, node("Mul", "x t", "y")], {}, None, FLAT, "y s"),
    Graph("tanh is an output", [*GATED, node("Mul", "x t", "y")], {}, None, FLAT, "t y"),
    Graph("squared", [*GATED, node("Mul", "t t", "y")], {}, None, FLAT),
]


@pytest.mark.parametrize("graph", [*MISH, *NOT_MISH], ids=lambda graph: graph.id)
def test_fuse_mish(graph: Graph) -> None:
    check(fuse_mish, graph)


# -- fuse_hard_swish -------------------------------------------------------------------------------------------------

LINE = {"three": scalar(3), "zero": scalar(0), "six": scalar(6), "sixth": scalar(1 / 6), "five": scalar(5)}
CLIP = [node("Add", "x three", "a"), node("Clip", "a zero six", "c")]
GATE = node("HardSigmoid", "x", "s", alpha=1 / 6, beta=0.5)


def swish(
    label: str,
    nodes: Sequence[onnx.NodeProto],
    after: dict[str, int] | None = None,
    outputs: str = "y",
    opset: int = 20,
) -> Graph:
    used = {name for step in nodes for name in step.input}
    constants = {k: v for k, v in LINE.items() if k in used}
    return Graph(label, nodes, constants, after, FLAT, outputs, opset)


SWISH = [
    swish("sigmoid by division", [*CLIP, node("Div", "c six", "y")], {"HardSigmoid": 1}),
    swish("sigmoid by product", [*CLIP, node("Mul", "sixth c", "y")], {"HardSigmoid": 1}),
    swish("three first", [node("Add", "three x", "a"), CLIP[1], node("Mul", "c sixth", "y")], {"HardSigmoid": 1}),
    swish("swish of hard sigmoid", [GATE, node("Mul", "x s", "y")], {"HardSwish": 1}),
    swish("hard sigmoid first", [GATE, node("Mul", "s x", "y")], {"HardSwish": 1}),
    swish("swish by parts", [*CLIP, node("Div", "c six", "s"), node("Mul", "x s", "y")], {"HardSwish": 1}),
    swish("swish, product first", [*CLIP, node("Mul", "x c", "p"), node("Div", "p six", "y")], {"HardSwish": 1}),
    swish("swish, product and sixth", [*CLIP, node("Mul", "c x", "p"), node("Mul", "p sixth", "y")], {"HardSwish": 1}),
    swish(
        "sigmoid kept by another reader",
        [GATE, node("Mul", "x s", "y"), node("Relu", "s", "z")],
        {"HardSwish": 1, "HardSigmoid": 1, "Relu": 1},
        "y z",
    ),
    swish(
        "clip kept by another reader",
        [*CLIP, node("Div", "c six", "y"), node("Relu", "c", "z")],
        {"Add": 1, "Clip": 1, "HardSigmoid": 1, "Relu": 1},
        "y z",
    ),
    swish(
        "clip kept as an output",
        [*CLIP, node("Div", "c six", "y")],
        {"Add": 1, "Clip": 1, "HardSigmoid": 1},
        "c y",
    ),
    swish(
        "two in a row",
        [*CLIP, node("Div", "c six", "s"), node("Mul", "x s", "q"), node("Add", "q three", "a2"),
         node("Clip", "a2 zero six", "c2"), node("Div", "c2 six", "s2"), node("Mul", "q s2", "y")],
        {"HardSwish": 2},
    ),
]  # fmt: skip
NOT_SWISH = [
    swish("another divisor", [*CLIP, node("Div", "c five", "y")]),
    swish("divided by it", [*CLIP, node("Div", "six a", "y")]),
    swish("another offset", [node("Add", "x five", "a"), CLIP[1], node("Div", "c six", "y")]),
    swish("another bound", [CLIP[0], node("Clip", "a zero five", "c"), node("Div", "c six", "y")]),
    swish("no lower bound", [CLIP[0], node("Clip", "a - six", "c"), node("Div", "c six", "y")]),
    swish("no upper bound", [CLIP[0], node("Clip", "a zero", "c"), node("Div", "c six", "y")]),
    swish("another slope", [node("HardSigmoid", "x", "s"), node("Mul", "x s", "y")]),
    swish("gate of something else", [node("Relu", "x", "r"), GATE, node("Mul", "r s", "y")]),
    swish(
        "product of something else",
        [*CLIP, node("Relu", "x", "r"), node("Mul", "r c", "p"), node("Div", "p six", "y")],
    ),
    swish("product kept", [*CLIP, node("Mul", "x c", "p"), node("Div", "p six", "y")], None, "p y"),
    swish(
        "bound at run time",
        [CLIP[0], node("ReduceMax", "x", "m", keepdims=0), node("Clip", "a zero m", "c"), node("Div", "c six", "y")],
    ),
]


@pytest.mark.parametrize("graph", [*SWISH, *NOT_SWISH], ids=lambda graph: graph.id)
def test_fuse_hard_swish(graph: Graph) -> None:
    check(fuse_hard_swish, graph)


def test_fuse_hard_swish_reads_bounds_that_are_attributes() -> None:
    nodes = [CLIP[0], node("Clip", "a", "c", min=0.0, max=6.0), node("Div", "c six", "y")]
    check(fuse_hard_swish, swish("opset 9", nodes, {"HardSigmoid": 1}, opset=9))


def test_integers_have_no_hard_sigmoid() -> None:
    """(x + 3) clipped to 0..6, divided by 6 in integers, is 0 or 1."""
    constants = {"three": ints(3), "zero": np.array(0, np.int64), "six": np.array(6, np.int64)}
    nodes = [*CLIP, node("Div", "c six", "y")]
    check(fuse_hard_swish, Graph("integers", nodes, constants, None, FLAT, dtype=TensorProto.INT64))


@pytest.mark.parametrize("rewrite", [fuse_gelu, fuse_hard_swish])
def test_constants_of_a_higher_rank_than_x_make_the_result_one_of_that_rank(rewrite: Pass) -> None:
    for nodes, constants in (
        ([*ERF, node("Mul", "x a", "p"), node("Mul", "p half", "y")], ROOT),
        ([*CLIP, node("Div", "c six", "y")], LINE),
    ):
        used = {name for step in nodes for name in step.input}
        lifted = {
            k: v.reshape(1, 1, 1) if k in ("half", "three", "one") else v for k, v in constants.items() if k in used
        }
        before = Graph("rank", nodes, lifted, None, FLAT).model()
        after = ir.serde.serialize_model(rewrite(ir.serde.deserialize_model(before))[0])
        feeds = {"x": np.linspace(-4, 4, 24, dtype=np.float32).reshape(FLAT)}
        assert_same(answer(after, feeds), answer(before, feeds), 1e-6)
