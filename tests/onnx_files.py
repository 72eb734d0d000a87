"""A two-operand model to damage, and the message that refuses what became of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.artifacts import OnnxModel
from edgekit.converters.onnx_model import describe, parse_onnx
from edgekit.errors import BadModel

FLOATS = np.arange(3, dtype=np.float32)


def info(name: str, shape: list[int | str] | None = None, dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, [2, 3] if shape is None else shape)


def add_weight(
    change: Callable[[onnx.TensorProto], None] | None = None, inputs: list[str] | None = None, **options: int
) -> onnx.ModelProto:
    """``y = x + w``; ``change`` edits the weight's tensor."""
    weight = numpy_helper.from_array(FLOATS, "w")
    if change:
        change(weight)
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"], "add")],
        "add",
        [info(name) for name in inputs or ["x"]],
        [info("y")],
        [weight],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=options.get("ir", 9))


def read(proto: onnx.ModelProto) -> OnnxModel:
    return describe(parse_onnx(proto.SerializeToString()))


def refusal(proto: onnx.ModelProto) -> str:
    with pytest.raises(BadModel) as caught:
        read(proto)
    return str(caught.value)
