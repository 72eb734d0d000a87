"""ONNX Runtime's own quantized ops written as QDQ: at most the last bit differs from its integer kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.artifacts import Array
from edgekit.converters.passes.unfold_contrib import unfold_contrib
from edgekit.errors import UnsupportedOps
from tests.onnx_graphs import answer
from tests.ops.harness import convert, run_litert
from tests.pass_check import leftovers, ops

RANDOM = np.random.default_rng(31)
SHAPE = (2, 4, 6, 5)
XS, XZ, YS, YZ = np.float32(0.05), np.uint8(120), np.float32(0.04), np.uint8(110)


def integers(dtype: type, *shape: int) -> Array:
    limits = np.iinfo(dtype)
    return RANDOM.integers(limits.min, limits.max + 1, shape).astype(dtype)


def model_of(
    op: str,
    inputs: Sequence[Any],
    shape: tuple[int, ...] = SHAPE,
    kind: int = TensorProto.UINT8,
    **more: Any,
) -> onnx.ModelProto:
    """One node; of its inputs a text is the uint8 input of the graph, None is left out, the others are constants."""
    names = ["" if given is None else given if isinstance(given, str) else f"c{at}" for at, given in enumerate(inputs)]
    constants = [
        numpy_helper.from_array(np.asarray(given), f"c{at}")
        for at, given in enumerate(inputs)
        if given is not None and not isinstance(given, str)
    ]
    graph = helper.make_graph(
        [helper.make_node(op, names, ["y"], "the_node", domain="com.microsoft", **more)],
        "contrib",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("y", kind, None)],
        constants,
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def gemm(per_channel: bool, result: bool) -> onnx.ModelProto:
    scale: Any = np.linspace(0.01, 0.03, 5, dtype=np.float32) if per_channel else np.float32(0.02)
    zero: Any = np.zeros(5, np.int8) if per_channel else np.int8(0)
    after: list[Any] = [np.float32(0.9), np.uint8(128)] if result else []
    inputs = ["x", XS, XZ, integers(np.int8, 5, 8), scale, zero, integers(np.int8, 5).astype(np.int32) * 9, *after]
    kind = TensorProto.UINT8 if result else TensorProto.FLOAT
    return model_of("QGemm", inputs, (3, 8), kind, transB=1, alpha=1.0)


ONE: list[Any] = ["x", XS, XZ]
OTHER: list[Any] = [integers(np.uint8, 4, 1, 1), np.float32(0.03), np.uint8(90)]
POOL: dict[str, Any] = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
MODELS: dict[str, tuple[onnx.ModelProto, dict[str, int]]] = {
    "QLinearAdd": (model_of("QLinearAdd", [*ONE, *OTHER, YS, YZ]), {"Add": 1}),
    "QLinearMul": (model_of("QLinearMul", [*ONE, *OTHER, YS, YZ]), {"Mul": 1}),
    "QLinearSigmoid": (model_of("QLinearSigmoid", [*ONE, np.float32(1 / 256), np.uint8(0)]), {"Sigmoid": 1}),
    "QLinearLeakyRelu": (model_of("QLinearLeakyRelu", [*ONE, YS, YZ], alpha=0.2), {"LeakyRelu": 1}),
    "QLinearAveragePool": (model_of("QLinearAveragePool", [*ONE, YS, YZ], **POOL), {"AveragePool": 1}),
    "QLinearGlobalAveragePool": (
        model_of("QLinearGlobalAveragePool", [*ONE, YS, YZ], channels_last=0), {"GlobalAveragePool": 1},
    ),
    "QLinearConcat": (
        model_of("QLinearConcat", [YS, YZ, *ONE, integers(np.uint8, 2, 3, 6, 5), *OTHER[1:]], axis=1), {"Concat": 1},
    ),
    "QGemm": (gemm(False, True), {"Gemm": 1}),
    "QGemm per channel": (gemm(True, True), {"Gemm": 1}),
    "QGemm to floats": (gemm(True, False), {"Gemm": 1}),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_unfolded(name: str) -> None:
    before, wanted = MODELS[name]
    feeds = {"x": integers(np.uint8, *(dim.dim_value for dim in before.graph.input[0].type.tensor_type.shape.dim))}
    model, modified = unfold_contrib(ir.serde.deserialize_model(before))
    after = ir.serde.serialize_model(model)
    assert modified
    found = ops(after)
    assert {op: found.get(op, 0) for op in wanted} == wanted
    assert not any(node.domain == "com.microsoft" for node in after.graph.node)
    assert not leftovers(after) - leftovers(before)
    reference = answer(before, feeds)[0]
    for result in (answer(after, feeds)[0], run_litert(convert(before), feeds)[0]):
        assert result.dtype == reference.dtype
        assert result.shape == reference.shape
        step = 1 if reference.dtype == np.uint8 else 1e-3
        assert np.abs(result.astype(np.float64) - reference).max() <= step
    assert not unfold_contrib(model)[1]


def test_channels_last_is_refused_by_name() -> None:
    model = model_of("QLinearGlobalAveragePool", [*ONE, YS, YZ], channels_last=1)
    with pytest.raises(UnsupportedOps, match=r"QLinearGlobalAveragePool.*com.microsoft"):
        convert(model)


def test_nearest_resize_of_integers() -> None:
    scales = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "s")
    how: dict[str, Any] = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    resize = helper.make_node("Resize", ["x", "", "s"], ["y"], **how)
    x = helper.make_tensor_value_info("x", TensorProto.UINT8, SHAPE)
    y = helper.make_tensor_value_info("y", TensorProto.UINT8, None)
    model = helper.make_model(
        helper.make_graph([resize], "g", [x], [y], [scales]), opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    )
    feeds = {"x": integers(np.uint8, *SHAPE)}
    np.testing.assert_array_equal(run_litert(convert(model), feeds)[0], answer(model, feeds)[0])


def test_moved_integers_keep_their_scale() -> None:
    """XNNPACK takes a TRANSPOSE by its operand, and fails to prepare if the result has no scale."""
    parameters = [numpy_helper.from_array(np.asarray(value), name) for value, name in ((XS, "s"), (XZ, "z"))]
    shape = numpy_helper.from_array(np.array([2, -1], np.int64), "shape")
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("Transpose", ["q"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Reshape", ["t", "shape"], ["r"]),
        helper.make_node("DequantizeLinear", ["r", "s", "z"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", [x], [y], [*parameters, shape])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    feeds = {"x": RANDOM.uniform(-4, 4, SHAPE).astype(np.float32)}
    np.testing.assert_allclose(run_litert(convert(model), feeds)[0], answer(model, feeds)[0], atol=1e-6)
