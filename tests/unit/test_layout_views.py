"""Layout bookkeeping: orders through reshapes, common orders of operands, and chains of layout ops against numpy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgekit.artifacts import Array, Conversion
from edgekit.converters.onnx_to_litert.builder import Builder
from edgekit.converters.onnx_to_litert.graph import Graph, Shape, Tensor
from edgekit.converters.onnx_to_litert.view import NHWC, View, _groups, align, channels_last, reshape_view, store
from edgekit.recipe import ConvertRecipe
from tests.onnx_graphs import Graph as OnnxGraph
from tests.onnx_graphs import ints, node, weights
from tests.ops.harness import assert_same, convert, reference, run_litert

FLOAT = np.dtype(np.float32)
N, H, W = "NHW"  # placeholders for symbols in the tables below


class Bench:
    """A builder, symbols by letter, and tensors that carry them."""

    def __init__(self) -> None:
        self.graph = Graph("main")
        self.builder = Builder(self.graph)

    def dims(self, *dims: int | str) -> Shape:
        return tuple(self.builder.new_dim(("letter", dim)) if isinstance(dim, str) else dim for dim in dims)

    def view(self, shape: tuple[int | str, ...], order: Shape | None = None) -> View:
        """A view of the ONNX ``shape``, stored in ``order``."""
        onnx_shape = self.dims(*shape)
        order = tuple(range(len(shape))) if order is None else order
        tensor = Tensor("x", FLOAT, tuple(onnx_shape[axis] for axis in order))
        self.builder.note_shape(tensor)
        return View(tensor, order)

    @property
    def kinds(self) -> list[str]:
        return [op.kind for op in self.graph.ops]


# -- views -----------------------------------------------------------------------------------------------------------


def test_a_view_translates_axes_and_shapes() -> None:
    view = Bench().view((2, 3, 5, 7), NHWC)
    assert view.tensor.shape == (2, 5, 7, 3)
    assert view.shape == (2, 3, 5, 7)
    assert [view.axis(axis) for axis in (0, 1, 2, 3, -1, -3)] == [0, 3, 1, 2, 2, 3]
    assert not view.is_identity
    assert channels_last(4) == NHWC
    assert channels_last(3) == (0, 2, 1)
    assert channels_last(2) == (0, 1)


def test_a_constant_view_gives_its_value_in_onnx_order() -> None:
    data = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    view = View(Tensor("c", FLOAT, (3, 4, 2), np.ascontiguousarray(data.transpose(1, 2, 0))), (1, 2, 0))
    assert view.const is not None
    np.testing.assert_array_equal(view.const, data)


def test_store_moves_only_what_has_to_move() -> None:
    bench = Bench()
    view = bench.view((2, 3, 5, 7), NHWC)
    assert store(bench.builder, view, NHWC) is view.tensor
    moved = store(bench.builder, view)
    assert moved.shape == (2, 3, 5, 7)
    assert store(bench.builder, view) is moved, "the same TRANSPOSE is not written twice"
    assert bench.kinds == ["TRANSPOSE"]


@pytest.mark.parametrize("shape", [(2, 3, 1, 1), (2, 1, 5, 7), (1, 3, 1, 1), (1, 1, 1, 7)])
def test_moving_axes_of_size_one_is_a_reshape(shape: Shape) -> None:
    bench = Bench()
    view = bench.view(shape, NHWC)
    assert store(bench.builder, view).shape == shape
    assert bench.kinds in ([], ["RESHAPE"])


@pytest.mark.parametrize(
    ("old", "new", "groups"),
    [
        ((2, 3, 4), (2, 3, 4), [([0], [0]), ([1], [1]), ([2], [2])]),
        ((2, 3, 4), (6, 4), [([0, 1], [0]), ([2], [1])]),
        ((6, 4), (2, 3, 4), [([0], [0, 1]), ([1], [2])]),
        ((2, 6, 4), (4, 3, 4), [([0, 1], [0, 1]), ([2], [2])]),
        ((2, 3, 4), (24,), [([0, 1, 2], [0])]),
        ((2, 1, 4), (1, 2, 4, 1), [([0], [1]), ([2], [2])]),
        ((1, 1), (1,), []),
        ((N, 3, 4), (N, 12), [([0], [0]), ([1, 2], [1])]),
        ((N, 12, H, W), (N, 2, 6, H, W), [([0], [0]), ([1], [1, 2]), ([2], [3]), ([3], [4])]),
        ((N, 3, H), (N, "M"), [([0], [0]), ([1, 2], [1])]),
        ((N, 3), (3, N), [([0, 1], [0, 1])]),
        ((2, 3), (5,), None),
        ((2, 3), (2, 2), None),
        ((0, 3), (0,), None),
    ],
)
def test_groups(old: tuple[int | str, ...], new: tuple[int | str, ...], groups: object) -> None:
    bench = Bench()
    assert _groups(bench.dims(*old), bench.dims(*new)) == groups


@pytest.mark.parametrize(
    ("old", "new", "order", "kinds"),
    [
        ((2, 6, 5, 7), (2, 2, 3, 5, 7), (0, 3, 4, 1, 2), ["RESHAPE"]),  # channels split
        ((2, 6, 5, 7), (2, 6, 35), (0, 2, 1), ["RESHAPE"]),  # sides merged
        ((2, 6, 5, 7), (1, 2, 6, 5, 7), None, ["RESHAPE"]),  # an axis of size 1 in front
        ((2, 6, 1, 1), (2, 6), None, ["RESHAPE"]),  # the flattening of a pooled image
        ((N, 6, H, W), (N, 2, 3, H, W), (0, 3, 4, 1, 2), ["RESHAPE"]),
        ((N, 6, 5, 7), (N, 6, 35), (0, 2, 1), ["RESHAPE"]),
        ((2, 6, 5, 7), (2, 210), None, ["TRANSPOSE", "RESHAPE"]),  # the flattening of an image cuts through channels
        ((N, 6, 5, 7), (N, 210), None, ["TRANSPOSE", "RESHAPE"]),
    ],
)
def test_reshape_of_a_channels_last_image(
    old: tuple[int | str, ...], new: tuple[int | str, ...], order: Shape | None, kinds: list[str]
) -> None:
    bench = Bench()
    result = reshape_view(bench.builder, bench.view(old, NHWC), bench.dims(*new))
    assert result.shape == bench.dims(*new)
    kept = [kind for kind in bench.kinds if kind in ("RESHAPE", "TRANSPOSE")]
    assert kept == kinds
    if order is not None:
        assert result.order == order


def test_a_reshape_that_is_undone_leads_back_to_the_stored_image() -> None:
    bench = Bench()
    view = bench.view((2, 6, 5, 7), NHWC)
    there = reshape_view(bench.builder, view, (2, 3, 2, 35))
    back = reshape_view(bench.builder, there, (2, 6, 5, 7))
    assert back.order == NHWC
    assert back.tensor is view.tensor


# -- align -----------------------------------------------------------------------------------------------------------


def test_align_rearranges_constants_for_nothing() -> None:
    bench = Bench()
    image = bench.view((2, 3, 5, 7), NHWC)
    per_channel = View.of(bench.builder.const(np.ones((3, 1, 1), np.float32)))
    number = View.of(bench.builder.const(np.float32(2)))
    tensors, order = align(bench.builder, [image, per_channel, number])
    assert order == NHWC
    assert [tensor.shape for tensor in tensors] == [(2, 5, 7, 3), (1, 1, 1, 3), ()]
    assert bench.kinds == []


def test_align_moves_the_smaller_operand() -> None:
    bench = Bench()
    image, gate = bench.view((2, 3, 5, 7), NHWC), bench.view((2, 1, 5, 7))
    for views in ([image, gate], [gate, image]):
        tensors, order = align(bench.builder, views)
        assert order == NHWC
        assert {tensor.shape for tensor in tensors} == {(2, 5, 7, 3), (2, 5, 7, 1)}
    assert "TRANSPOSE" not in bench.kinds


def test_align_of_equal_orders_moves_nothing() -> None:
    bench = Bench()
    views = [bench.view((2, 3, 5, 7), NHWC) for _ in range(3)]
    tensors, order = align(bench.builder, views)
    assert order == NHWC
    assert tensors == [view.tensor for view in views]
    assert bench.kinds == []


# -- whole graphs ----------------------------------------------------------------------------------------------------


def lowered(graph: OnnxGraph, recipe: ConvertRecipe = ConvertRecipe(), tolerance: float = 1e-5) -> Conversion:
    """``graph`` converted, after its answer was found to equal ONNX Runtime's."""
    model, feeds = graph.model(), graph.feeds()
    conversion = convert(model, recipe)
    assert_same(run_litert(conversion, feeds), reference(model, feeds), tolerance)
    return conversion


def test_channel_shuffle() -> None:
    """ShuffleNet: groups of channels interleaved between two convolutions; only the shuffle itself moves data."""
    nodes = [
        node("Conv", "x w", "c"), node("Reshape", "c five", "g"), node("Transpose", "g", "t", perm=[0, 2, 1, 3, 4]),
        node("Reshape", "t four", "s"), node("Conv", "s v", "y"),
    ]  # fmt: skip
    constants = {
        "w": weights(6, 4, 1, 1), "v": weights(6, 6, 1, 1), "five": ints(2, 2, 3, 6, 5), "four": ints(2, 6, 6, 5),
    }  # fmt: skip
    conversion = lowered(OnnxGraph("shuffle", nodes, constants))
    assert conversion.op_counts.get("TRANSPOSE", 0) <= 1


def test_squeeze_and_excite() -> None:
    nodes = [
        node("Conv", "x w", "c"), node("GlobalAveragePool", "c", "p"), node("Conv", "p v b", "r"),
        node("Relu", "r", "q"),
        node("Conv", "q u", "e"), node("HardSigmoid", "e", "g"), node("Mul", "c g", "s"), node("Conv", "s k", "y"),
    ]  # fmt: skip
    constants = {
        "w": weights(8, 4, 1, 1), "v": weights(2, 8, 1, 1), "b": weights(2), "u": weights(8, 2, 1, 1),
        "k": weights(4, 8, 1, 1),
    }  # fmt: skip
    assert "TRANSPOSE" not in lowered(OnnxGraph("se", nodes, constants)).op_counts


def test_squeeze_and_excite_through_fully_connected_layers() -> None:
    nodes = [
        node("Conv", "x w", "c"), node("ReduceMean", "c sides", "p", keepdims=0), node("Gemm", "p v", "e"),
        node("Sigmoid", "e", "g"), node("Unsqueeze", "g sides", "u"), node("Mul", "c u", "y"),
    ]  # fmt: skip
    constants = {"w": weights(8, 4, 1, 1), "v": weights(8, 8), "sides": ints(2, 3)}
    assert "TRANSPOSE" not in lowered(OnnxGraph("se", nodes, constants)).op_counts


def test_flatten_of_an_image_before_a_layer_keeps_the_onnx_order_of_elements() -> None:
    nodes = [node("Conv", "x w", "c"), node("Flatten", "c", "f"), node("Gemm", "f v", "y")]
    lowered(OnnxGraph("flatten", nodes, {"w": weights(3, 4, 1, 1), "v": weights(90, 7)}))
    lowered(OnnxGraph("flatten", nodes[:2], {"w": weights(3, 4, 1, 1)}, outputs="f"))


def test_pooled_image_is_flattened_for_nothing() -> None:
    nodes = [node("Conv", "x w", "c"), node("GlobalAveragePool", "c", "p"), node("Flatten", "p", "y")]
    assert "TRANSPOSE" not in lowered(OnnxGraph("flatten", nodes, {"w": weights(3, 4, 1, 1)})).op_counts


def test_a_transpose_pair_around_a_layer_cancels() -> None:
    """ConvNeXt: NCHW -> NHWC, LayerNormalization and a linear layer over channels, and back."""
    nodes = [
        node("Conv", "x w", "c"), node("Transpose", "c", "t", perm=[0, 2, 3, 1]),
        node("LayerNormalization", "t s", "n"), node("MatMul", "n v", "m"),
        node("Transpose", "m", "u", perm=[0, 3, 1, 2]), node("Add", "u x", "a"), node("Conv", "a w", "y"),
    ]  # fmt: skip
    constants = {"w": weights(4, 4, 1, 1), "s": weights(4), "v": weights(4, 4)}
    assert "TRANSPOSE" not in lowered(OnnxGraph("convnext", nodes, constants)).op_counts


# -- random chains ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """One op of a chain: its node, the constants it reads, and what numpy makes of its operand."""

    node: onnx.NodeProto
    constants: dict[str, Array]
    apply: Callable[[Array], Array]


def _transpose(draw: st.DrawFn, index: int, shape: Shape) -> Step:
    perm = draw(st.permutations(range(len(shape))))
    made = helper.make_node("Transpose", [f"v{index}"], [f"v{index + 1}"], perm=perm)
    return Step(made, {}, lambda x: x.transpose(perm))


def _reshape(draw: st.DrawFn, index: int, shape: Shape) -> Step:
    target = list(shape)
    for _ in range(draw(st.integers(1, 3))):
        cut = draw(st.integers(0, len(target) - 1))
        factors = [f for f in range(2, target[cut]) if target[cut] % f == 0]
        if len(target) > 1 and (not factors or draw(st.booleans()) or len(target) >= 5):
            cut = min(cut, len(target) - 2)
            target[cut : cut + 2] = [target[cut] * target[cut + 1]]
        elif factors:
            factor = draw(st.sampled_from(factors))
            target[cut : cut + 1] = [factor, target[cut] // factor]
        elif len(target) < 5:
            target.insert(cut, 1)
    made = helper.make_node("Reshape", [f"v{index}", f"s{index}"], [f"v{index + 1}"])
    return Step(made, {f"s{index}": ints(*target)}, lambda x: x.reshape(target))


def _elementwise(draw: st.DrawFn, index: int, shape: Shape) -> Step:
    axes = draw(st.lists(st.sampled_from(range(len(shape))), unique=True))
    data = weights(*(dim if axis in axes else 1 for axis, dim in enumerate(shape)))
    data = data[(0,) * draw(st.integers(0, next((a for a, d in enumerate(data.shape) if d > 1), data.ndim)))]
    made = helper.make_node("Add", [f"v{index}", f"c{index}"], [f"v{index + 1}"])
    return Step(made, {f"c{index}": np.ascontiguousarray(data)}, lambda x: x + data)


def _reduce(draw: st.DrawFn, index: int, shape: Shape) -> Step:
    axes = tuple(draw(st.lists(st.sampled_from(range(len(shape))), min_size=1, max_size=2, unique=True)))
    keep = len(axes) == len(shape) or draw(st.booleans())
    made = helper.make_node("ReduceMax", [f"v{index}", f"a{index}"], [f"v{index + 1}"], keepdims=int(keep))
    return Step(made, {f"a{index}": ints(*axes)}, lambda x: x.max(axis=axes, keepdims=keep))


def _slice(draw: st.DrawFn, index: int, shape: Shape) -> Step:
    axis = draw(st.integers(0, len(shape) - 1))
    start = draw(st.integers(0, shape[axis] - 1))
    stop = draw(st.integers(start + 1, shape[axis]))
    names = [f"{kind}{index}" for kind in ("b", "e", "x")]
    made = helper.make_node("Slice", [f"v{index}", *names], [f"v{index + 1}"])
    cut = (slice(None),) * axis + (slice(start, stop),)
    return Step(made, dict(zip(names, (ints(start), ints(stop), ints(axis)), strict=True)), lambda x: x[cut])


def _softmax(draw: st.DrawFn, index: int, shape: Shape) -> Step:
    axis = draw(st.integers(0, len(shape) - 1))

    def apply(x: Array) -> Array:
        parts = np.exp(x - x.max(axis=axis, keepdims=True))
        return np.asarray(parts / parts.sum(axis=axis, keepdims=True))

    return Step(helper.make_node("Softmax", [f"v{index}"], [f"v{index + 1}"], axis=axis), {}, apply)


_STEPS = [_transpose, _transpose, _reshape, _reshape, _elementwise, _reduce, _slice, _softmax]


@st.composite
def chains(draw: st.DrawFn) -> tuple[onnx.ModelProto, Array, Array]:
    """A chain of 2 to 8 layout ops, an input for it, and numpy's answer."""
    shape = tuple(draw(st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=5)))
    x = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
    result: Array = x
    nodes: list[onnx.NodeProto] = []
    constants: dict[str, Array] = {}
    for index in range(draw(st.integers(2, 8))):
        step = draw(st.sampled_from(_STEPS))(draw, index, result.shape)
        nodes.append(step.node)
        constants |= step.constants
        result = step.apply(result)
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("v0", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(f"v{len(nodes)}", TensorProto.FLOAT, result.shape)],
        [numpy_helper.from_array(data, name) for name, data in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), x, result


def _check_chain(chain: tuple[onnx.ModelProto, Array, Array]) -> None:
    model, x, wanted = chain
    onnx.checker.check_model(model, full_check=True)
    assert_same(run_litert(convert(model, ConvertRecipe(io_layout="onnx")), {"v0": x}), [wanted], 1e-5)


@given(chains())
@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
def test_random_chains_equal_numpy(chain: tuple[onnx.ModelProto, Array, Array]) -> None:
    _check_chain(chain)


@pytest.mark.slow
@given(chains())
@settings(max_examples=3000, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
def test_many_random_chains_equal_numpy(chain: tuple[onnx.ModelProto, Array, Array]) -> None:
    _check_chain(chain)
