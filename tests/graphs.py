"""Small ONNX graphs with random weights, as ``OnnxModel`` artifacts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgekit.artifacts import OnnxModel
from edgekit.converters.onnx_model import describe

Dim = int | str


def model_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[Dim]],
    outputs: Mapping[str, Sequence[Dim]],
    weights: Mapping[str, Sequence[int]] | None = None,
    metadata: Mapping[str, object] | None = None,
    opset: int = 17,
) -> OnnxModel:
    """A float32 model; ``weights`` gives shapes, filled from a fixed seed; ``metadata`` is written as JSON."""
    random = np.random.default_rng(5)
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name, shape in outputs.items()],
        [numpy_helper.from_array(random.normal(0, 0.3, shape).astype(np.float32), name)
         for name, shape in (weights or {}).items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    for key, value in (metadata or {}).items():
        proto.metadata_props.add(key=key, value=json.dumps(value))
    return describe(proto)


def node(
    op_type: str, inputs: Sequence[str], outputs: Sequence[str], source: str = "", **attributes: Any
) -> onnx.NodeProto:
    """A node named after its first output; ``source`` is the user's line, as the exporter writes it."""
    made = helper.make_node(op_type, list(inputs), list(outputs), f"node_{outputs[0]}", **attributes)
    if source:
        made.metadata_props.add(key="edgekit.source", value=source)
    return made


def conv_net(height: Dim = "H", width: Dim = "W", channels: int = 3, **changes: Any) -> OnnxModel:
    """image (1, C, H, W) -> features (1, 4, H, W) and scores (1, 4): two convolutions with ReLU, then the mean."""
    nodes = [
        node("Conv", ["image", "w0", "b0"], ["c0"], "net.py:3 in forward", pads=[1, 1, 1, 1]),
        node("Relu", ["c0"], ["r0"], "net.py:4 in forward"),
        node("Conv", ["r0", "w1", "b1"], ["c1"], "net.py:5 in forward", pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], ["features"], "net.py:6 in forward"),
        node("GlobalAveragePool", ["features"], ["p"], "net.py:7 in forward"),
        node("Flatten", ["p"], ["scores"], "net.py:7 in forward"),
    ]
    arguments: dict[str, Any] = {
        "nodes": nodes,
        "inputs": {"image": [1, channels, height, width]},
        "outputs": {"features": [1, 4, height, width], "scores": [1, 4]},
        "weights": {"w0": (8, channels, 3, 3), "b0": (8,), "w1": (4, 8, 3, 3), "b1": (4,)},
    }
    return model_of(**{**arguments, **changes})


def classifier(classes: int = 5, side: Dim = 16) -> OnnxModel:
    """image (1, 3, side, side) -> scores (1, classes)."""
    nodes = [
        node("Conv", ["image", "w0"], ["c0"], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Relu", ["c0"], ["r0"]),
        node("GlobalAveragePool", ["r0"], ["p"]),
        node("Flatten", ["p"], ["f"]),
        node("Gemm", ["f", "w1"], ["scores"], transB=1),
    ]
    return model_of(nodes, {"image": [1, 3, side, side]}, {"scores": [1, classes]},
                    {"w0": (8, 3, 3, 3), "w1": (classes, 8)})
