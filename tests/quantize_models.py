"""Small networks in LiteRT's format for the tests of quantization."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgekit.artifacts import Array, LiteRTModel
from edgekit.converters.onnx_model import describe
from edgekit.converters.onnx_to_litert import to_litert

FLOAT = onnx.TensorProto.FLOAT


def onnx_net(
    nodes: Sequence[onnx.NodeProto], inputs: Mapping[str, Sequence[int | str]], outputs: Mapping[str, Sequence[int]],
    weights: Mapping[str, Array],
) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes), "net", [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in weights.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def swish_classifier(seed: int = 0, width: int = 16, size: int = 32, batch: int | str = 1) -> onnx.ModelProto:
    """Convolutions with hard swish, which XNNPACK does not take in int8, and a linear layer: (1, 3, size, size)."""
    rng = np.random.default_rng(seed)
    weights = {
        "w0": rng.normal(0, 0.25, (width, 3, 3, 3)), "b0": rng.normal(0, 0.3, width),
        "w1": rng.normal(0, 0.3, (width, 1, 3, 3)), "b1": rng.normal(0, 0.3, width),
        "w2": rng.normal(0, 0.3, (2 * width, width, 1, 1)), "b2": rng.normal(0, 0.3, 2 * width),
        "w3": rng.normal(0, 0.3, (2 * width, 10)), "b3": rng.normal(0, 0.3, 10),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w0", "b0"], ["c0"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("HardSwish", ["c0"], ["h0"]),
        helper.make_node("Conv", ["h0", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1], group=width),
        helper.make_node("HardSwish", ["c1"], ["h1"]),
        helper.make_node("Conv", ["h1", "w2", "b2"], ["c2"]),
        helper.make_node("HardSwish", ["c2"], ["h2"]),
        helper.make_node("GlobalAveragePool", ["h2"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["scores"]),
    ]
    return onnx_net(nodes, {"x": (batch, 3, size, size)}, {"scores": (1, 10) if batch == 1 else ("N", 10)},  # type: ignore[dict-item]
                    {name: array.astype(np.float32) for name, array in weights.items()})


def litert(proto: onnx.ModelProto) -> LiteRTModel:
    model = to_litert(describe(proto)).model
    assert isinstance(model, LiteRTModel)
    return model


def images(count: int, size: int = 32, seed: int = 1) -> Array:
    """float32 (count, 3, size, size): smooth shapes and a little noise."""
    rng = np.random.default_rng(seed)
    coarse = np.repeat(np.repeat(rng.standard_normal((count, 3, 4, 4)), size // 4, axis=2), size // 4, axis=3)
    mixed: Array = (coarse + 0.1 * rng.standard_normal((count, 3, size, size))).astype(np.float32)
    return mixed
