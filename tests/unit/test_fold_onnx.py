"""Constants that a graph computes from constants, as exporters write the sizes of pads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgekit.graph.costs_read import graph_costs
from edgekit.graph.fold_onnx import folded


def padded_network() -> onnx.ModelProto:
    """A convolution behind a Pad whose sizes come out of Reshape, Cast: shape inference does not see through them."""
    nodes = [
        helper.make_node("Reshape", ["pads", "flat"], ["line"]),
        helper.make_node("Cast", ["line"], ["sizes"], to=TensorProto.INT64),
        helper.make_node("Pad", ["x", "sizes"], ["wide"]),
        helper.make_node("Conv", ["wide", "w"], ["y"], kernel_shape=[3, 3], strides=[2, 2]),
    ]
    pads = np.array([[0, 0, 0, 0], [0, 0, 1, 1]], np.int32)
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, "H", "W"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(pads, "pads"), numpy_helper.from_array(np.array([-1]), "flat"),
         numpy_helper.from_array(np.zeros((8, 3, 3, 3), np.float32), "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_a_convolution_behind_computed_pads_is_counted(tmp_path: Path) -> None:
    onnx.save(padded_network(), tmp_path / "m.onnx")
    found = graph_costs(tmp_path / "m.onnx", {"x": (1, 3, 32, 32)})
    assert found.macs == 16 * 16 * 8 * 27
    assert [op.op_class for op in found.ops if op.op_class == "unknown"] == []


def test_folding_keeps_what_depends_on_inputs_and_leaves_the_given_model_alone() -> None:
    given = padded_network()
    found = folded(given)
    assert [node.op_type for node in found.graph.node] == ["Pad", "Conv"]
    assert len(given.graph.node) == 4
    (sizes,) = (each for each in found.graph.initializer if each.name == "sizes")
    assert numpy_helper.to_array(sizes).tolist() == [0, 0, 0, 0, 0, 0, 1, 1]
