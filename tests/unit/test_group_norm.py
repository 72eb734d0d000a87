"""Group and instance normalisation behind a convolution: found in parts, computed where the channels lie."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgekit.artifacts import Array
from edgekit.converters.passes.fuse_group_norm import fuse_group_norm
from tests.onnx_graphs import Graph, info, ints, node, same_answer, weights
from tests.ops.harness import build, convert
from tests.pass_check import ops

CHANNELS = 6
CONV = node("Conv", "x w", "c")
BACK = [node("Shape", "c", "s"), node("Reshape", "n s", "r")]
AFFINE = [node("Mul", "r factor", "m"), node("Add", "m shift", "a"), node("MaxPool", "a", "y", kernel_shape=[1, 1])]
AS_EXPORTED = [CONV, node("Reshape", "c parts", "t"), node("InstanceNormalization", "t one zero", "n"), *BACK, *AFFINE]


def constants(groups: int, **more: Array) -> dict[str, Array]:
    """Those of a convolution and a group normalisation as torch writes them."""
    return {
        "w": weights(CHANNELS, 4, 1, 1), "parts": ints(0, groups, -1), "one": np.ones(groups, np.float32),
        "zero": np.zeros(groups, np.float32), "factor": weights(CHANNELS, 1, 1), "shift": weights(CHANNELS, 1, 1),
        **more,
    }  # fmt: skip


def counts_of(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> Mapping[str, int]:
    """What ``model`` becomes, once its answer was found to be right."""
    conversion = convert(model)
    same_answer(model, conversion, feeds)
    return conversion.op_counts


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_parts_become_one_op_without_transpositions(groups: int) -> None:
    graph = Graph("groups", AS_EXPORTED, constants(groups))
    counts = counts_of(graph.model(), graph.feeds())
    # two of full size for centred values and squares, one for the factors, and small ones that spread the statistics
    assert counts["MUL"] == 3 + 2 * (groups in (2, 3))
    assert (counts["ADD"], counts["SUB"], counts.get("TRANSPOSE", 0)) == (2, 1, 0)


def test_own_scale_and_bias_of_the_groups() -> None:
    graph = Graph("scaled", AS_EXPORTED, constants(3, one=weights(3), zero=weights(3)))
    assert counts_of(graph.model(), graph.feeds()).get("TRANSPOSE", 0) == 0


def test_constant_target() -> None:
    nodes = [*AS_EXPORTED[:3], node("Reshape", "n s", "r"), *AFFINE]
    graph = Graph("constant", nodes, constants(3, s=ints(2, CHANNELS, 6, 5)))
    assert counts_of(graph.model(), graph.feeds()).get("TRANSPOSE", 0) == 0


def test_result_in_another_shape() -> None:
    nodes = [*AS_EXPORTED[:3], node("Reshape", "n s", "y")]
    graph = Graph("flat", nodes, {key: constants(3, s=ints(0, -1))[key] for key in ("w", "parts", "one", "zero", "s")})
    counts_of(graph.model(), graph.feeds())


def test_groups_of_elements_that_cut_through_channels() -> None:
    """Torch never writes it, but 4 groups of 6 channels of 30 elements are 4 times 45 elements."""
    graph = Graph("cut", AS_EXPORTED, constants(4))
    counts_of(graph.model(), graph.feeds())


def test_dynamic_sizes() -> None:
    tensors = [onnx.numpy_helper.from_array(data, name) for name, data in constants(2).items()]
    model = build(AS_EXPORTED, [info("x", ["n", 4, "h", "w_"])], ["y"], tensors, 17)
    feeds = {"x": np.random.default_rng(0).uniform(-4, 4, (2, 4, 5, 7)).astype(np.float32)}
    assert counts_of(model, feeds).get("TRANSPOSE", 0) == 0


@pytest.mark.parametrize(
    "change",
    [
        {"parts": ints(2, 3, -1)},
        {"parts": ints(0, 3, -1, 1)},
        {"s": ints(0, 0, 2, -1)},
    ],
    ids=["batch by number", "rank 4", "copies the groups"],
)
def test_left_alone(change: dict[str, Any]) -> None:
    nodes = [*AS_EXPORTED[:3], node("Reshape", "n s", "y")]
    known = {**{key: constants(3)[key] for key in ("w", "parts", "one", "zero")}, "s": ints(2, -1), **change}
    model = ir.serde.deserialize_model(Graph("alone", nodes, known).model())
    after, modified = fuse_group_norm(model)
    assert not modified
    assert "GroupNormalization" not in ops(ir.serde.serialize_model(after))


def test_reader_of_the_normalised_groups() -> None:
    nodes = [*AS_EXPORTED, node("Relu", "n", "z")]
    graph = Graph("read twice", nodes, constants(3), outputs="y z")
    assert not fuse_group_norm(ir.serde.deserialize_model(graph.model()))[1]
    counts_of(graph.model(), graph.feeds())


@pytest.mark.parametrize("opset", [18, 21])
@pytest.mark.parametrize("fed", [False, True], ids=["constant", "fed"])
def test_group_normalization_of_a_convolution(opset: int, fed: bool) -> None:
    length = 3 if opset < 21 else CHANNELS
    pool = node("MaxPool", "g", "y", kernel_shape=[1, 1])
    nodes = [CONV, node("GroupNormalization", "c a b", "g", num_groups=3), pool]
    vectors = {"a": weights(length), "b": weights(length)}
    given = {"w": weights(CHANNELS, 4, 1, 1), **({} if fed else vectors)}
    more = dict.fromkeys(vectors, (length,)) if fed else {}
    graph = Graph("op", nodes, given, opset=opset, more_inputs=more)
    assert counts_of(graph.model(), graph.feeds()).get("TRANSPOSE", 0) == 0


def test_instance_normalization_of_a_convolution_multiplies_once() -> None:
    nodes = [CONV, node("InstanceNormalization", "c a b", "y")]
    given = {"w": weights(CHANNELS, 4, 1, 1), "a": weights(CHANNELS), "b": weights(CHANNELS)}
    graph = Graph("instance", nodes, given)
    assert counts_of(graph.model(), graph.feeds())["MUL"] == 3
