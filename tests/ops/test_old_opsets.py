"""Meanings that ops had in old opsets and that neither ONNX Runtime nor ONNX's reference knows any more."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from edgekit.converters.onnx_model import describe
from edgekit.converters.onnx_to_litert import to_litert
from tests.ops.harness import run_litert


def test_before_opset_7_the_second_operand_begins_at_an_axis() -> None:
    node = helper.make_node("Add", ["x", "y"], ["z"], axis=1, broadcast=1)
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in
             (("x", [2, 3, 4]), ("y", [3]), ("z", [2, 3, 4]))]
    graph = helper.make_graph([node], "old", infos[:2], infos[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 6)], ir_version=3)
    x, y = np.arange(24, dtype=np.float32).reshape(2, 3, 4), np.array([100, 200, 300], np.float32)
    (result,) = run_litert(to_litert(describe(model)), {"x": x, "y": y})
    np.testing.assert_array_equal(result, x + y[:, None])
