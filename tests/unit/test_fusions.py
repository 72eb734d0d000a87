"""Fusions on the LiteRT graph: what they remove, what they must leave, and that answers stay."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.artifacts import Array, Conversion
from tests.ops.harness import assert_same, build, convert, reference, run_litert

_RNG = np.random.default_rng(21)


def weights(*shape: int) -> Array:
    return _RNG.standard_normal(shape).astype(np.float32)


def model(nodes: list[onnx.NodeProto], shape: tuple[int, ...], outputs: list[str], **constants: Any) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))
    tensors = [numpy_helper.from_array(np.asarray(data), name) for name, data in constants.items()]
    return build(nodes, [x], outputs, tensors, opset=17)


def check(proto: onnx.ModelProto, shape: tuple[int, ...]) -> Conversion:
    feeds = {"x": _RNG.uniform(-1, 1, shape).astype(np.float32)}
    conversion = convert(proto)
    assert_same(run_litert(conversion, feeds), reference(proto, feeds), 5e-6)
    return conversion


def norm_and_dense(outputs: list[str]) -> onnx.ModelProto:
    nodes = [
        helper.make_node("LayerNormalization", ["x", "g", "b"], ["n"]),
        helper.make_node("MatMul", ["n", "w"], ["m"]),
        helper.make_node("Add", ["m", "c"], ["y"]),
        helper.make_node("MatMul", ["n", "v"], ["z"]),
    ]
    constants = {"g": weights(8), "b": weights(8), "w": weights(8, 5), "c": weights(5), "v": weights(8, 3)}
    return model(nodes, (2, 4, 8), outputs, **constants)


def test_scale_and_shift_of_a_norm_go_into_the_dense_layers_behind_it() -> None:
    counts = check(norm_and_dense(["y", "z"]), (2, 4, 8)).op_counts
    assert (counts["FULLY_CONNECTED"], counts["MUL"], counts["ADD"]) == (2, 2, 1)  # what the norm itself computes


def test_scale_and_shift_stay_where_somebody_else_reads_them() -> None:
    counts = check(norm_and_dense(["y", "z", "n"]), (2, 4, 8)).op_counts
    assert (counts["MUL"], counts["ADD"]) == (3, 2)


def test_a_flatten_in_front_of_a_dense_layer_permutes_the_weights() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"]),
        helper.make_node("Flatten", ["c"], ["f"]),
        helper.make_node("Gemm", ["f", "w"], ["y"], transB=1),
    ]
    proto = model(nodes, (2, 3, 5, 5), ["y"], k=weights(4, 3, 2, 2), w=weights(6, 64))
    assert "TRANSPOSE" not in check(proto, (2, 3, 5, 5)).op_counts


def test_a_flatten_that_is_an_output_keeps_its_order() -> None:
    nodes = [helper.make_node("Conv", ["x", "k"], ["c"]), helper.make_node("Flatten", ["c"], ["f"])]
    proto = model(nodes, (2, 3, 5, 5), ["f"], k=weights(4, 3, 2, 2))
    assert check(proto, (2, 3, 5, 5)).op_counts["TRANSPOSE"] == 1


def test_a_mean_drops_its_axes_itself() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"]),
        helper.make_node("GlobalAveragePool", ["c"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("Gemm", ["f", "w"], ["y"], transB=1),
    ]
    proto = model(nodes, (2, 3, 5, 5), ["y"], k=weights(4, 3, 2, 2), w=weights(6, 4))
    assert dict(check(proto, (2, 3, 5, 5)).op_counts) == {"CONV_2D": 1, "FULLY_CONNECTED": 1, "MEAN": 1}


@pytest.mark.parametrize("activation", ["Relu", "HardSwish"])
def test_activations_join_only_where_the_op_has_them(activation: str) -> None:
    nodes = [helper.make_node("Conv", ["x", "k"], ["c"]), helper.make_node(activation, ["c"], ["y"])]
    counts = check(model(nodes, (1, 3, 5, 5), ["y"], k=weights(4, 3, 2, 2)), (1, 3, 5, 5)).op_counts
    assert sum(counts.values()) == (1 if activation == "Relu" else 2)


def test_an_activation_whose_input_is_needed_too_stays_apart() -> None:
    nodes = [helper.make_node("Conv", ["x", "k"], ["c"]), helper.make_node("Relu", ["c"], ["y"])]
    counts = check(model(nodes, (1, 3, 5, 5), ["y", "c"], k=weights(4, 3, 2, 2)), (1, 3, 5, 5)).op_counts
    assert counts["RELU"] == 1


def test_an_upscaling_transposed_convolution_needs_no_sizes() -> None:
    nodes = [helper.make_node("ConvTranspose", ["x", "k", "b"], ["y"], strides=[2, 2])]
    proto = model(nodes, (1, 3, 5, 4), ["y"], k=weights(3, 4, 2, 2), b=weights(4))
    assert dict(check(proto, (1, 3, 5, 4)).op_counts) == {"CONV_2D": 1, "DEPTH_TO_SPACE": 1}
