"""QLinearConv and QLinearMatMul written as QDQ: the same integers come out, and LiteRT gets integer ops."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.artifacts import Array
from edgekit.converters.passes.unfold_qlinear import unfold_qlinear
from tests.onnx_graphs import answer, node, scalar
from tests.ops.harness import convert, run_litert
from tests.pass_check import leftovers, ops

RANDOM = np.random.default_rng(29)
UINT8, INT8 = TensorProto.UINT8, TensorProto.INT8


def integers(dtype: type, *shape: int) -> Array:
    limits = np.iinfo(dtype)
    return RANDOM.integers(limits.min, limits.max + 1, shape).astype(dtype)


def model_of(
    op: str, constants: dict[str, Array], shape: tuple[int, ...], kind: int, **attributes: object
) -> onnx.ModelProto:
    """One node that reads ``x`` and, in the order in which they are given, the constants."""
    inputs = ["x", *constants]
    graph = helper.make_graph(
        [node(op, " ".join(inputs), "y", **attributes)],
        "quantized",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, None)],
        [numpy_helper.from_array(data, name) for name, data in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=9)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def conv(dtype: type, per_channel: bool = False, bias: bool = False) -> onnx.ModelProto:
    scale = np.linspace(0.01, 0.03, 6, dtype=np.float32) if per_channel else scalar(0.02)
    zeros = np.zeros(6, np.int8) if per_channel else np.array(0, np.int8)
    middle: Array = np.array(3 if dtype is np.int8 else 128, dtype)
    constants = {
        "xs": scalar(0.05), "xz": middle, "w": integers(np.int8, 6, 4, 3, 3), "ws": scale, "wz": zeros,
        "ys": scalar(0.4), "yz": middle,
    }  # fmt: skip
    if bias:
        constants["b"] = RANDOM.integers(-3000, 3000, 6).astype(np.int32)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return model_of("QLinearConv", constants, (2, 4, 6, 5), kind, pads=[1, 1, 1, 1], strides=[2, 1])


def matmul(dtype: type) -> onnx.ModelProto:
    middle: Array = np.array(3 if dtype is np.int8 else 128, dtype)
    constants = {
        "xs": scalar(0.05), "xz": middle, "w": integers(dtype, 8, 5), "ws": scalar(0.02), "wz": np.array(0, dtype),
        "ys": scalar(0.5), "yz": middle,
    }  # fmt: skip
    return model_of("QLinearMatMul", constants, (3, 8), helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


MODELS = {
    "conv of uint8": conv(np.uint8),
    "conv of int8": conv(np.int8),
    "conv per channel": conv(np.int8, per_channel=True),
    "conv with a bias": conv(np.uint8, bias=True),
    "conv per channel with a bias": conv(np.int8, per_channel=True, bias=True),
    "matmul of uint8": matmul(np.uint8),
    "matmul of int8": matmul(np.int8),
}


@pytest.mark.parametrize("name", MODELS)
def test_unfold_qlinear(name: str) -> None:
    before = MODELS[name]
    model, modified = unfold_qlinear(ir.serde.deserialize_model(before))
    after = ir.serde.serialize_model(model)
    onnx.checker.check_model(after, full_check=True)
    assert modified
    counts = ops(after)
    assert counts.pop("DequantizeLinear") == (3 if "bias" in name else 2)
    assert counts == {"QuantizeLinear": 1, "MatMul" if "matmul" in name else "Conv": 1}
    assert [value.name for value in after.graph.output] == ["y"]
    assert not leftovers(after)
    assert not unfold_qlinear(model)[1]
    info = before.graph.input[0].type.tensor_type
    x = integers(helper.tensor_dtype_to_np_dtype(info.elem_type).type, *(dim.dim_value for dim in info.shape.dim))
    wanted, found = answer(before, {"x": x})[0], answer(after, {"x": x})[0]
    assert found.dtype == wanted.dtype
    # the float form rounds a product that lies on a half the other way at times
    assert np.abs(found.astype(int) - wanted.astype(int)).max() <= 1
    assert np.mean(found == wanted) > 0.97


@pytest.mark.parametrize("name", MODELS)
def test_litert_gets_integer_ops_for_signed_integers(name: str) -> None:
    before = MODELS[name]
    conversion = convert(before)
    info = before.graph.input[0].type.tensor_type
    x = integers(helper.tensor_dtype_to_np_dtype(info.elem_type).type, *(dim.dim_value for dim in info.shape.dim))
    found, wanted = run_litert(conversion, {"x": x})[0], answer(before, {"x": x})[0]
    assert found.dtype == wanted.dtype
    assert np.abs(found.astype(int) - wanted.astype(int)).max() <= 1
    if found.dtype == np.int8:
        assert "DEQUANTIZE" not in conversion.op_counts


def test_a_graph_without_quantized_ops_is_left_alone() -> None:
    graph = helper.make_graph(
        [node("Relu", "x", "y")],
        "plain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=9)
    assert not unfold_qlinear(ir.serde.deserialize_model(model))[1]
