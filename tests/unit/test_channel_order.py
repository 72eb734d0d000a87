"""Channel shuffles as bookkeeping: which ops are left, and that the answers stay right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from edgekit.artifacts import Array, Conversion
from edgekit.converters.onnx_model import describe
from edgekit.converters.onnx_to_litert import to_litert
from edgekit.converters.onnx_to_litert.channel_order_moves import Channels, Mover
from edgekit.converters.onnx_to_litert.graph import Op, Tensor
from tests.onnx_graphs import Graph, answer, info, ints, node, same_answer, weights
from tests.ops.harness import assert_same, build, run_litert

# -- moves -----------------------------------------------------------------------------------------------------------

FLOAT = np.dtype(np.float32)


def planned(value: Channels, front: tuple[int, ...] = (1, 4, 4)) -> list[Op]:
    """The ops that store ``value``."""
    ops: list[Op] = []
    Mover(ops).plan(value, front, "x").make(None)
    return ops


def image(name: str, channels: int) -> Tensor:
    return Tensor(name, FLOAT, (1, 4, 4, channels))


def test_all_channels_of_one_tensor_need_no_op() -> None:
    assert planned(Channels.of(image("x", 6), 0)) == []


def test_more_than_five_parts_are_concatenated_in_two_steps_small_ones_first() -> None:
    parts = [image(f"x{width}", width) for width in (9, 1, 1, 2, 8, 7, 6)]
    ops = planned(Channels.joined([Channels.of(part, 0) for part in parts], 0))
    assert [(op.kind, len(op.inputs)) for op in ops] == [("CONCATENATION", 3), ("CONCATENATION", 5)]
    assert ops[0].outputs[0].shape[-1] == 4
    assert ops[1].outputs[0].shape == (1, 4, 4, 34)


def test_a_stretch_is_cut_out_once() -> None:
    ops: list[Op] = []
    mover, value = Mover(ops), Channels.of(image("x", 8), 0)
    first = mover.plan(value.take(np.arange(2, 5)), (1, 4, 4), "x").make(None)
    again = mover.plan(value.take(np.arange(2, 5)), (1, 4, 4), "x")
    assert again.cost_ns == 0
    assert again.make(None) is first
    assert len(ops) == 1


def test_interleaved_halves_are_one_transpose_and_blocks_too() -> None:
    value = Channels.of(image("x", 32), 0)
    halves = np.arange(32).reshape(2, 16).T.reshape(-1)
    blocks = np.arange(32).reshape(4, 4, 2).swapaxes(0, 1).reshape(-1)
    for order in (halves, blocks):
        assert [op.kind for op in planned(value.take(order), (1, 64, 64))] == ["RESHAPE", "TRANSPOSE", "RESHAPE"]


# -- whole graphs ----------------------------------------------------------------------------------------------------


def shuffle(x: str, y: str, groups: int, shape: Sequence[int]) -> tuple[list[onnx.NodeProto], dict[str, Array]]:
    """The channels of ``x``, NCHW, of ``groups`` groups interleaved."""
    n, channels, height, width = shape
    nodes = [
        node("Reshape", f"{x} {y}_split", f"{y}_g"), node("Transpose", f"{y}_g", f"{y}_t", perm=[0, 2, 1, 3, 4]),
        node("Reshape", f"{y}_t {y}_merge", y),
    ]  # fmt: skip
    split, merge = ints(n, groups, channels // groups, height, width), ints(n, channels, height, width)
    return nodes, {f"{y}_split": split, f"{y}_merge": merge}


def converted(graph: Graph) -> Conversion:
    """``graph`` converted, after its answer was found to equal ONNX Runtime's."""
    model = graph.model()
    conversion = to_litert(describe(model))
    same_answer(model, conversion, graph.feeds())
    return conversion


def moves(conversion: Conversion) -> dict[str, int]:
    kinds = ("TRANSPOSE", "GATHER", "CONCATENATION", "STRIDED_SLICE", "SPLIT")
    return {kind: conversion.op_counts[kind] for kind in kinds if kind in conversion.op_counts}


SHAPE = (2, 8, 6, 5)


def around(
    middle: Sequence[onnx.NodeProto], constants: dict[str, Array], outputs: str = "y", groups: int = 2
) -> Graph:
    """A convolution, a shuffle from ``c`` to ``s``, and ``middle``."""
    nodes, shapes = shuffle("c", "s", groups, SHAPE)
    first = {"w": weights(8, 8, 1, 1), "b": weights(8)}
    return Graph("shuffle", [node("Conv", "x w b", "c"), *nodes, *middle], {**first, **shapes, **constants},
                 shape=SHAPE, outputs=outputs)  # fmt: skip


LAST = node("Conv", "m k", "y")
K = {"k": weights(5, 8, 1, 1)}
TRANSPARENT: list[tuple[str, list[onnx.NodeProto], dict[str, Array]]] = [
    ("conv", [node("Conv", "s k", "y")], K),
    ("relu6", [node("Clip", "s lo hi", "m"), LAST], {**K, "lo": np.array(0, "f"), "hi": np.array(6, "f")}),
    ("sigmoid", [node("Sigmoid", "s", "m"), LAST], K),
    ("max pool", [node("MaxPool", "s", "m", kernel_shape=[2, 2]), LAST], K),
    ("mean pool", [node("AveragePool", "s", "m", kernel_shape=[2, 2]), LAST], K),
    ("add", [node("Add", "s v", "m"), LAST], {**K, "v": weights(8, 1, 1)}),
    ("scale", [node("Mul", "v s", "m"), LAST], {**K, "v": weights(1, 8, 1, 1)}),
    ("scalar", [node("Mul", "s v", "m"), LAST], {**K, "v": np.array(3, "f")}),
    ("over", [node("Div", "v s", "d"), node("Tanh", "d", "m"), LAST], {**K, "v": weights(8, 1, 1)}),
    ("prelu", [node("PRelu", "s v", "m"), LAST], {**K, "v": weights(8, 1, 1)}),
    ("depthwise", [node("Conv", "s v u", "m", group=8, pads=[1, 1, 1, 1]), LAST],
     {**K, "v": weights(8, 1, 3, 3), "u": weights(8)}),
    ("strided depthwise", [node("Conv", "s v", "m", group=8, pads=[1, 1, 1, 1], strides=[2, 2]), LAST],
     {**K, "v": weights(8, 1, 3, 3)}),
    ("resize", [node("Resize", "s - r", "m", mode="linear"), LAST],
     {**K, "r": np.array([1, 1, 2, 2], "f")}),
    ("mean and dense", [node("ReduceMean", "s sides", "p", keepdims=0), node("Gemm", "p d", "y")],
     {"sides": ints(2, 3), "d": weights(8, 3)}),
    ("twice", [node("Add", "s s", "m"), LAST], K),
    ("square", [node("Mul", "s s", "m"), LAST], K),
    ("its own sigmoid", [node("Sigmoid", "s", "g"), node("Mul", "s g", "m"), LAST], K),
    ("deconvolution", [node("ConvTranspose", "s v", "y", strides=[2, 2])], {"v": weights(8, 3, 3, 3)}),
    ("two readers", [node("Conv", "s k", "p"), node("Conv", "s j", "q"), node("Add", "p q", "y")],
     {**K, "j": weights(5, 8, 1, 1)}),
    ("shared weights", [node("Conv", "s k", "p"), node("Conv", "c k", "q"), node("Add", "p q", "y")], K),
]  # fmt: skip


@pytest.mark.parametrize("groups", [2, 4])
@pytest.mark.parametrize(("middle", "constants"), [case[1:] for case in TRANSPARENT], ids=[c[0] for c in TRANSPARENT])
def test_a_shuffle_costs_nothing_before(
    middle: list[onnx.NodeProto], constants: dict[str, Array], groups: int
) -> None:
    assert moves(converted(around(middle, constants, groups=groups))) == {}


MOVED = [
    ("output", [node("Relu", "s", "y")], {}, "y"),
    ("softmax", [node("Softmax", "s", "y", axis=1)], {}, "y"),
    ("sum over channels", [node("CumSum", "s one", "y")], {"one": np.array(1, np.int64)}, "y"),
    ("output and conv", [node("Conv", "s k", "y")], K, "y s"),
    ("flatten", [node("Flatten", "s", "y")], {}, "y"),
    ("add the unshuffled", [node("Add", "c s", "y")], {}, "y"),
    ("channel padding", [node("Pad", "s pads", "y")], {"pads": ints(0, 1, 0, 0, 0, 0, 0, 0)}, "y"),
    ("large shared weights", [node("Conv", "s k", "p"), node("Conv", "c k", "q"), node("Add", "p q", "y")],
     {"k": weights(2048, 8, 1, 1)}, "y"),
]  # fmt: skip


@pytest.mark.parametrize(("middle", "constants", "outputs"), [case[1:] for case in MOVED], ids=[c[0] for c in MOVED])
def test_what_does_not_take_any_order_gets_the_right_one(
    middle: list[onnx.NodeProto], constants: dict[str, Array], outputs: str
) -> None:
    assert sum(moves(converted(around(middle, constants, outputs))).values()) <= 2


def test_a_gather_of_all_channels_is_a_shuffle() -> None:
    constants = {"w": weights(8, 8, 1, 1), "order": ints(3, 0, 1, 2, 7, 6, 4, 5), "k": weights(3, 8, 1, 1)}
    nodes = [node("Conv", "x w", "c"), node("Gather", "c order", "s", axis=1), node("Conv", "s k", "y")]
    assert moves(converted(Graph("gather", nodes, constants, shape=SHAPE))) == {}


def test_grouped_convolutions_get_blocks() -> None:
    """ShuffleNet's first version: the shuffle passes the depthwise convolution and moves whole blocks of channels."""
    shape = (1, 32, 9, 7)
    nodes, shapes = shuffle("c", "s", 2, shape)
    constants = {"w": weights(32, 16, 1, 1), "v": weights(32, 1, 3, 3), "k": weights(32, 16, 1, 1), **shapes}
    nodes = [node("Conv", "x w", "c", group=2), *nodes, node("Conv", "s v", "d", group=32),
             node("Conv", "d k", "y", group=2)]  # fmt: skip
    assert converted(Graph("v1", nodes, constants, shape=shape)).op_counts.get("GATHER", 0) == 0


def units(count: int, channels: int = 96) -> Graph:
    """``count`` units of ShuffleNetV2 in a row."""
    shape = (1, channels, 8, 6)
    half = channels // 2
    nodes = [node("Conv", "x wa", "p"), node("Conv", "x wb", "q"), node("Concat", "p q", "u0", axis=1)]
    constants = {"wa": weights(half, channels, 1, 1) / 9, "wb": weights(half, channels, 1, 1) / 9}
    for at in range(count):
        step, shapes = shuffle(f"u{at}", f"s{at}", 2, shape)
        constants.update(shapes)
        constants.update({f"w{at}": weights(half, half, 1, 1) / 7, f"d{at}": weights(half, 1, 3, 3) / 3})
        nodes += [
            *step, node("Split", f"s{at}", f"a{at} b{at}", axis=1, num_outputs=2),
            node("Conv", f"b{at} w{at}", f"c{at}"), node("Relu", f"c{at}", f"r{at}"),
            node("Conv", f"r{at} d{at}", f"e{at}", group=half, pads=[1, 1, 1, 1]),
            node("Concat", f"a{at} e{at}", f"u{at + 1}", axis=1),
        ]  # fmt: skip
    last, shapes = shuffle(f"u{count}", "end", 2, shape)
    constants.update(shapes, k=weights(6, channels, 1, 1))
    return Graph("units", [*nodes, *last, node("Conv", "end k", "y")], constants, shape=shape)


@pytest.mark.parametrize("count", [1, 2, 4, 7])
def test_units_of_shufflenet_move_nothing_but_stretches(count: int) -> None:
    conversion = converted(units(count))
    assert not {"TRANSPOSE", "GATHER", "RESHAPE"} & set(conversion.op_counts)
    assert conversion.op_counts["CONCATENATION"] <= 2 * count + 1


def test_units_before_an_output_are_right() -> None:
    graph = units(3)
    converted(Graph("units", graph.nodes[:-1], {k: v for k, v in graph.constants.items() if k != "k"},
                    shape=graph.shape, outputs="end"))  # fmt: skip


@pytest.mark.parametrize("sizes", [(1, 6, 5), (3, 4, 9)])
def test_dynamic_batch_and_sides(sizes: tuple[int, int, int]) -> None:
    """The shapes of the reshapes are computed from the input's, as torch writes them."""
    nodes = [
        node("Conv", "x w", "c"), node("Shape", "x", "dims"), node("Gather", "dims zero", "n"),
        node("Gather", "dims sides", "hw"), node("Concat", "n two half hw", "split", axis=0),
        node("Concat", "n all hw", "merge", axis=0), node("Reshape", "c split", "g"),
        node("Transpose", "g", "t", perm=[0, 2, 1, 3, 4]), node("Reshape", "t merge", "s"),
        node("Split", "s", "a b", axis=1, num_outputs=2), node("Conv", "b k", "e"), node("Concat", "a e", "u", axis=1),
        node("Conv", "u j", "y"),
    ]  # fmt: skip
    constants = {
        "w": weights(64, 8, 1, 1), "k": weights(32, 32, 1, 1), "j": weights(3, 64, 1, 1), "zero": ints(0),
        "sides": ints(2, 3), "two": ints(2), "half": ints(32), "all": ints(64),
    }  # fmt: skip
    tensors = [onnx.numpy_helper.from_array(data, name) for name, data in constants.items()]
    model = build(nodes, [info("x", ["n", 8, "h", "w"])], ["y"], tensors, 20)
    conversion = to_litert(describe(model))
    n, height, width = sizes
    feeds = {"x": np.random.default_rng(3).uniform(-2, 2, (n, 8, height, width)).astype(np.float32)}
    assert_same(run_litert(conversion, feeds), answer(model, feeds), 1e-5)
    assert not {"TRANSPOSE", "GATHER", "SHAPE"} & set(conversion.op_counts)


# -- random graphs ---------------------------------------------------------------------------------------------------


class _Draft:
    """A random NCHW graph whose values all have the same sides."""

    def __init__(self, data: st.DataObject) -> None:
        self.draw = data.draw
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Array] = {}
        self.values: list[tuple[str, int]] = [("x", 8)]

    def emit(self, op: str, inputs: Sequence[str], outputs: int = 1, **attributes: Any) -> list[str]:
        names = [f"v{len(self.nodes)}_{index}" for index in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), names, **attributes))
        return names

    def add(self, op: str, inputs: Sequence[str], widths: Sequence[int], **attributes: Any) -> None:
        self.values += zip(self.emit(op, inputs, len(widths), **attributes), widths, strict=True)

    def const(self, data: Array) -> str:
        name = f"k{len(self.constants)}"
        self.constants[name] = data
        return name

    def weight(self, *shape: int) -> str:
        data = np.random.default_rng(len(self.constants)).standard_normal(shape).astype(np.float32)
        return self.const(data / np.sqrt(np.prod(shape[1:])).astype(np.float32))

    def step(self) -> None:
        x, width = self.values[-1 - self.draw(st.integers(0, min(3, len(self.values) - 1)))]
        kind = self.draw(st.sampled_from(["shuffle", "shuffle", "shuffle", "split", "concat", "conv", "depthwise",
                                          "grouped", "unary", "constant", "binary", "slice", "pool"]))  # fmt: skip
        getattr(self, f"_{kind}")(x, width)

    def _shuffle(self, x: str, width: int) -> None:
        divisors = [groups for groups in range(2, width) if width % groups == 0]
        if divisors:
            groups = self.draw(st.sampled_from(divisors))
            split = self.emit("Reshape", [x, self.const(ints(1, groups, width // groups, 5, 4))])
            turned = self.emit("Transpose", split, perm=[0, 2, 1, 3, 4])
            self.add("Reshape", [*turned, self.const(ints(1, width, 5, 4))], [width])

    def _split(self, x: str, width: int) -> None:
        if width > 1:
            first = self.draw(st.integers(1, width - 1))
            self.add("Split", [x, self.const(ints(first, width - first))], [first, width - first], axis=1)

    def _slice(self, x: str, width: int) -> None:
        begin = self.draw(st.integers(0, width - 1))
        step = self.draw(st.sampled_from([1, 1, 2]))
        bounds = [self.const(ints(number)) for number in (begin, width, 1, step)]
        self.add("Slice", [x, *bounds], [len(range(begin, width, step))])

    def _concat(self, x: str, width: int) -> None:
        other, more = self.draw(st.sampled_from(self.values))
        if width + more <= 24:
            self.add("Concat", [x, other], [width + more], axis=1)

    def _conv(self, x: str, width: int) -> None:
        units = self.draw(st.integers(1, 8))
        self.add("Conv", [x, self.weight(units, width, 1, 1)], [units])

    def _grouped(self, x: str, width: int) -> None:
        if width % 2 == 0:
            self.add("Conv", [x, self.weight(width, width // 2, 1, 1)], [width], group=2)

    def _depthwise(self, x: str, width: int) -> None:
        self.add("Conv", [x, self.weight(width, 1, 3, 3)], [width], group=width, pads=[1, 1, 1, 1])

    def _unary(self, x: str, width: int) -> None:
        self.add(self.draw(st.sampled_from(["Relu", "Sigmoid", "Neg"])), [x], [width])

    def _constant(self, x: str, width: int) -> None:
        self.add("Mul", [x, self.weight(width, 1, 1)], [width])

    def _binary(self, x: str, width: int) -> None:
        others = [name for name, more in self.values if more == width]
        self.add("Add", [x, self.draw(st.sampled_from(others))], [width])

    def _pool(self, x: str, width: int) -> None:
        self.add("MaxPool", [x], [width], kernel_shape=[3, 3], pads=[1, 1, 1, 1])


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(st.data())
def test_random_graphs_of_shuffles_answer_as_onnx_runtime_does(data: st.DataObject) -> None:
    draft = _Draft(data)
    for _ in range(data.draw(st.integers(3, 14))):
        draft.step()
    if not draft.nodes:
        return
    names = [name for name, _ in draft.values[1:]]
    outputs = sorted({names[-1], data.draw(st.sampled_from(names))})
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in draft.constants.items()]
    model = build(draft.nodes, [info("x", [1, 8, 5, 4])], outputs, tensors, 20)
    conversion = to_litert(describe(model))
    same_answer(model, conversion, {"x": np.random.default_rng(5).uniform(-2, 2, (1, 8, 5, 4)).astype(np.float32)})
