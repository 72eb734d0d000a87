"""QDQ graphs become integer ops with the same scales."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.converters.onnx_model import describe
from edgekit.converters.onnx_to_litert import to_litert
from edgekit.parity import compare, with_fair_tolerance
from edgekit.recipe import ConvertRecipe
from tests.ops.harness import build, convert, reference, run_litert

_RNG = np.random.default_rng(5)


class Qdq:
    """Builds a graph in QDQ form, tensor by tensor."""

    def __init__(self, activation: type = np.int8) -> None:
        self.activation = activation
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def const(self, data: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(data), name))
        return name

    def op(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=f"n_{name}", **attributes))
        return name

    def qdq(self, value: str, scale: float, zero_point: int = 0) -> str:
        shift = 128 if self.activation == np.uint8 else 0
        parameters = [self.const(np.float32(scale)), self.const(self.activation(zero_point + shift))]
        return self.op("DequantizeLinear", [self.op("QuantizeLinear", [value, *parameters]), *parameters])

    def weights(self, *shape: int) -> str:
        data = _RNG.integers(-127, 128, shape).astype(np.int8)
        scales = _RNG.uniform(0.005, 0.01, shape[0]).astype(np.float32)
        zeros = np.zeros(shape[0], np.int8)
        return self.op("DequantizeLinear", [self.const(data), self.const(scales), self.const(zeros)], axis=0)

    def model(self, output: str, shape: Sequence[int]) -> onnx.ModelProto:
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))
        return build(self.nodes, [x], [output], self.constants, opset=17)


def conv_block(g: Qdq) -> str:
    x = g.qdq("x", 0.02, 5)
    y = g.op("Relu", [g.op("Conv", [x, g.weights(8, 3, 3, 3)], pads=[1, 1, 1, 1], strides=[2, 2])])
    y = g.qdq(y, 0.1, -128)
    depthwise = g.op("Conv", [y, g.weights(8, 1, 3, 3)], group=8, pads=[1, 1, 1, 1])
    z = g.qdq(depthwise, 0.2, 3)
    return g.qdq(g.op("Add", [y, z]), 0.25, 0)


@pytest.mark.parametrize("activation", [np.int8, np.uint8])
def test_convolutions_and_residual_run_on_int8(activation: type) -> None:
    g = Qdq(activation)
    model = g.model(conv_block(g), (1, 3, 10, 10))
    conversion = convert(model)
    counts = conversion.op_counts
    assert (counts["QUANTIZE"], counts["DEQUANTIZE"]) == (1, 1)  # at the ends only
    feeds = {"x": _RNG.uniform(-2, 2, (1, 3, 10, 10)).astype(np.float32)}
    (ours,), (theirs,) = run_litert(conversion, feeds), reference(model, feeds)
    steps = np.abs(ours - theirs) / 0.25
    assert steps.max() <= 1.01  # one rounding step of the last scale
    assert np.mean(steps > 0.5) < 0.1
    assert np.ptp(theirs) > 2


def test_pooling_reshape_and_dense_layers_pass_the_integers_on() -> None:
    g = Qdq()
    x = g.qdq("x", 0.02)
    pooled = g.qdq(g.op("MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2]), 0.02)
    mean = g.qdq(g.op("GlobalAveragePool", [pooled]), 0.01)
    flat = g.op("Flatten", [mean])
    dense = g.qdq(g.op("Gemm", [flat, g.weights(5, 3)], transB=1), 0.02)
    gate = g.qdq(g.op("Sigmoid", [dense]), 1 / 256, -128)
    model = g.model(gate, (1, 3, 8, 8))
    conversion = convert(model)
    assert (conversion.op_counts["QUANTIZE"], conversion.op_counts["DEQUANTIZE"]) == (1, 1)
    feeds = {"x": _RNG.uniform(-2, 2, (1, 3, 8, 8)).astype(np.float32)}
    (ours,), (theirs,) = run_litert(conversion, feeds), reference(model, feeds)
    assert np.abs(ours - theirs).max() <= 2.01 / 256


def test_a_requantization_between_two_scales_stays() -> None:
    g = Qdq()
    y = g.qdq(g.op("MaxPool", [g.qdq("x", 0.02)], kernel_shape=[2, 2]), 0.05)
    model = g.model(y, (1, 3, 8, 8))
    conversion = convert(model)
    assert conversion.op_counts["QUANTIZE"] == 2
    feeds = {"x": _RNG.uniform(-2, 2, (1, 3, 8, 8)).astype(np.float32)}
    np.testing.assert_allclose(run_litert(conversion, feeds)[0], reference(model, feeds)[0], atol=0.051)


def test_an_op_between_unquantized_values_stays_float() -> None:
    g = Qdq()
    x = g.qdq("x", 0.02)
    y = g.op("Conv", [x, g.weights(4, 3, 1, 1)])  # its result is not quantized
    model = g.model(y, (1, 3, 4, 4))
    conversion = convert(model)
    assert conversion.op_counts["DEQUANTIZE"] == 1
    feeds = {"x": _RNG.uniform(-2, 2, (1, 3, 4, 4)).astype(np.float32)}
    np.testing.assert_allclose(run_litert(conversion, feeds)[0], reference(model, feeds)[0], atol=1e-4)


def test_a_quantized_graph_is_compared_at_a_fair_tolerance() -> None:
    g = Qdq()
    quantized = describe(g.model(conv_block(g), (1, 3, 10, 10)))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
    plain = describe(build([helper.make_node("Relu", ["x"], ["y"])], [x], ["y"]))
    assert with_fair_tolerance(ConvertRecipe(), plain).tolerance == ConvertRecipe().tolerance
    assert with_fair_tolerance(ConvertRecipe(), quantized).tolerance == 0.02
    assert with_fair_tolerance(ConvertRecipe(tolerance=0.1), quantized).tolerance == 0.1
    assert compare(to_litert(quantized).model, quantized).passed


def test_a_float16_graph_is_compared_at_a_fair_tolerance() -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT16, [4, 64])
    w = numpy_helper.from_array(np.random.default_rng(3).standard_normal((64, 64)).astype(np.float16), "w")
    half = describe(build([helper.make_node("MatMul", ["x", "w"], ["y"])], [x], ["y"], [w]))
    assert with_fair_tolerance(ConvertRecipe(), half).tolerance == 0.01
    assert with_fair_tolerance(ConvertRecipe(tolerance=0.1), half).tolerance == 0.1
    assert compare(to_litert(half).model, half).passed


def test_a_scale_that_cuts_values_off_does_not_pass_at_that_tolerance() -> None:
    g, wrong = Qdq(), Qdq()
    right = describe(g.model(g.qdq(g.op("Relu", [g.qdq("x", 0.02)]), 0.02), (1, 64)))
    other = describe(wrong.model(wrong.qdq(wrong.op("Relu", [wrong.qdq("x", 0.02)]), 0.008), (1, 64)))
    assert not compare(to_litert(other).model, right).passed
