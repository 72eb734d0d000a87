"""Multiply-adds, parameters and memory of graphs whose counts are known, and that ONNX and TFLite files agree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgekit.converters.onnx_model import load_onnx
from edgekit.converters.onnx_to_litert import to_litert
from edgekit.errors import BadInput, BadModel, UnknownName
from edgekit.graph.costs import GraphCosts, totals
from edgekit.graph.costs_memory import lifetimes, live_bytes, planned_bytes
from edgekit.graph.costs_read import graph_costs


def weight(name: str, *shape: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.random.default_rng(0).normal(0, 0.1, shape).astype(np.float32), name)


def value(name: str, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def save(
    path: Path,
    nodes: list[onnx.NodeProto],
    weights: list[onnx.TensorProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
) -> Path:
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    onnx.save(
        helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("some.vendor", 1)], ir_version=9
        ),
        path,
    )
    return path


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """3x3 convolution with ReLU, depthwise, grouped and transposed convolution, pooling, a dense layer, an exp."""
    nodes = [
        helper.make_node("Conv", ["x", "w0", "b0"], ["c0"], "stem", strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c0"], ["r0"], "relu"),
        helper.make_node("Conv", ["r0", "w1"], ["c1"], "depthwise", group=8, pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["c1", "w2"], ["c2"], "grouped", group=2),
        helper.make_node("ConvTranspose", ["c2", "w3"], ["c3"], "up", strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["c3"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "w4", "b4"], ["y0"], "dense", transB=1),
        helper.make_node("Sigmoid", ["y0"], ["y"], "sigmoid"),
    ]
    weights = [
        weight("w0", 8, 3, 3, 3),
        weight("b0", 8),
        weight("w1", 8, 1, 3, 3),
        weight("w2", 12, 4, 1, 1),
        weight("w3", 12, 6, 2, 2),
        weight("w4", 5, 6),
        weight("b4", 5),
    ]
    return save(tmp_path / "n.onnx", nodes, weights, [value("x", "batch", 3, 16, 16)], [value("y", "batch", 5)])


MACS = {"conv": 8 * 8 * 8 * 27 + 8 * 8 * 12 * 6 * 4, "depthwise": 8 * 8 * 8 * 9, "grouped": 8 * 8 * 12 * 4, "fc": 30}


def test_every_count_of_a_small_network(network: Path) -> None:
    costs = graph_costs(network)
    assert dict(totals(costs)) == MACS
    assert costs.macs == sum(MACS.values())
    assert costs.parameters == 8 * 27 + 8 + 72 + 48 + 288 + 30 + 5
    assert costs.weight_bytes == 4 * costs.parameters
    assert [op.name for op in costs.ops] == [
        "stem",
        "depthwise",
        "grouped",
        "up",
        "pool",
        "flatten",
        "dense",
        "sigmoid",
    ]
    stem = costs.ops[0]
    assert (stem.cin, stem.cout, stem.out_h, stem.out_w, stem.kernel_h, stem.stride) == (3, 8, 8, 8, 3, 2)
    assert stem.bytes_moved == 4 * (3 * 256 + 8 * 64 + 8 * 27 + 8)


def test_the_batch_multiplies_work_and_not_weights(network: Path) -> None:
    one, four = graph_costs(network), graph_costs(network, {"x": (4, 3, 16, 16)})
    conv_like = {"conv", "depthwise", "grouped"}
    assert {k: v for k, v in totals(four).items() if k in conv_like} == {k: 4 * MACS[k] for k in conv_like}
    assert four.parameters == one.parameters
    assert four.macs == 4 * one.macs


def test_both_file_formats_have_the_same_counts(network: Path, tmp_path: Path) -> None:
    tflite = tmp_path / "n.tflite"
    tflite.write_bytes(to_litert(load_onnx(network)).model.data)
    ours, theirs = graph_costs(network), graph_costs(tflite)
    for op_class in ("conv", "depthwise", "fc"):
        assert totals(theirs)[op_class] == totals(ours)[op_class]
    assert theirs.macs == ours.macs
    assert "PAD" not in {op.kind for op in theirs.ops}  # part of the convolution with stride 2


def test_a_batch_norm_and_an_activation_are_part_of_the_convolution(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "conv"),
        helper.make_node("BatchNormalization", ["c", "s", "b", "m", "v"], ["n"], "bn"),
        helper.make_node("Relu", ["n"], ["r"], "relu"),
        helper.make_node("Relu", ["x"], ["q"], "alone"),
        helper.make_node("Add", ["r", "q"], ["y"], "add"),
    ]
    weights = [weight("w", 4, 4, 1, 1), *(weight(name, 4) for name in "sbmv")]
    path = save(tmp_path / "bn.onnx", nodes, weights, [value("x", 1, 4, 5, 5)], [value("y", 1, 4, 5, 5)])
    costs = graph_costs(path)
    assert [(op.name, op.op_class) for op in costs.ops] == [
        ("conv", "conv"),
        ("alone", "elementwise"),
        ("add", "elementwise"),
    ]
    assert costs.peak_activation_bytes == 3 * 448  # 400 bytes each, aligned to 64


def test_an_activation_that_something_else_bypasses_is_not_fused(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "conv"),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("Add", ["r", "c"], ["y"], "add"),
    ]
    path = save(
        tmp_path / "b.onnx", nodes, [weight("w", 4, 4, 1, 1)], [value("x", 1, 4, 5, 5)], [value("y", 1, 4, 5, 5)]
    )
    assert [op.name for op in graph_costs(path).ops] == ["conv", "relu", "add"]


def test_constants_are_folded_and_unknown_ops_are_marked(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"], "shape"),
        helper.make_node("Reshape", ["x", "s"], ["z"], "reshape"),
        helper.make_node("Mystery", ["z"], ["y"], "mystery", domain="some.vendor"),
    ]
    path = save(tmp_path / "u.onnx", nodes, [], [value("x", 2, 3)], [value("y", 2, 3)])
    costs = graph_costs(path)
    assert [(op.name, op.kind, op.op_class) for op in costs.ops] == [
        ("reshape", "Reshape", "free"),
        ("mystery", "some.vendor.Mystery", "unknown"),
    ]


def test_a_dynamic_size_must_be_given_and_must_be_an_input(tmp_path: Path) -> None:
    path = save(
        tmp_path / "d.onnx",
        [helper.make_node("Relu", ["x"], ["y"])],
        [],
        [value("x", 1, 3, "h", "w")],
        [value("y", 1, 3, "h", "w")],
    )
    with pytest.raises(BadInput, match="--shape x="):
        graph_costs(path)
    with pytest.raises(UnknownName, match="z"):
        graph_costs(path, {"x": (1, 3, 4, 4), "z": (1,)})
    assert graph_costs(path, {"x": (1, 3, 4, 6)}).ops[0].out_elements == 72
    with pytest.raises(BadModel, match="no file"):
        graph_costs(tmp_path / "absent.onnx")


@pytest.mark.parametrize(
    ("file", "macs"),
    [
        ("coral/mobilenet_v1_0.25_128_quant.tflite", 13_570_304),
        ("mlperf_tiny/ad01_int8.tflite", 264_192),
    ],
)
def test_published_tflite_files(shared: Path, file: str, macs: int) -> None:
    costs: GraphCosts = graph_costs(shared / "models" / file)
    assert costs.macs == macs
    assert {op.weight_bits for op in costs.ops if op.macs} == {8}
    assert not [op.kind for op in costs.ops if op.op_class == "unknown"]


def test_memory_is_shared_by_values_that_never_meet() -> None:
    ops = [(["x"], ["a"]), (["a"], ["b"]), (["b"], ["y"])]
    sizes = {"x": 640, "a": 6400, "b": 640, "y": 64}
    lives = lifetimes(ops, sizes, ["x"], ["y"])
    assert planned_bytes(lives) == 6400 + 640
    assert live_bytes(lives, 3) == (7040, 7040, 704)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(1, 5000)), max_size=30))
def test_an_arena_holds_what_lives_at_once_and_never_more_than_all(raw: list[tuple[int, int, int]]) -> None:
    lives = [(min(a, b), max(a, b), size) for a, b, size in raw]
    aligned = [-(-size // 64) * 64 for _, _, size in lives]
    at_once = max(
        (
            sum(size for (first, last, _), size in zip(lives, aligned, strict=True) if first <= t <= last)
            for t in range(21)
        ),
        default=0,
    )
    assert at_once <= planned_bytes(lives) <= sum(aligned)
