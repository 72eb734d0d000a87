"""Short notation for small ONNX graphs, and ONNX Runtime's unoptimised answer for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from edgekit.artifacts import Array, Conversion
from tests.ops.harness import assert_same, build, run_litert

_RNG = np.random.default_rng(17)


def weights(*shape: int) -> Array:
    """Fixed random weights; each call gives others."""
    return _RNG.standard_normal(shape).astype(np.float32)


def ints(*values: int) -> Array:
    """An int64 vector."""
    return np.array(values, np.int64)


def scalar(value: float) -> Array:
    """A float32 scalar."""
    return np.array(value, np.float32)


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    """A node named after its first output; names are separated by blanks, "-" leaves an input out."""
    names = ["" if name == "-" else name for name in inputs.split()]
    made = outputs.split()
    return helper.make_node(op, names, made, f"node_{made[0]}", **attributes)


@dataclass(frozen=True)
class Graph:
    """A graph over ``x`` and ``more_inputs``; ``after``: the ops that a rewrite shall leave, None for all of them."""

    id: str
    nodes: Sequence[onnx.NodeProto]
    constants: Mapping[str, Array]
    after: Mapping[str, int] | None = None
    shape: Sequence[int] = (2, 4, 6, 5)
    outputs: str = "y"
    opset: int = 20
    dtype: int = TensorProto.FLOAT
    more_inputs: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def model(self) -> onnx.ModelProto:
        """The graph with the types of its values inferred."""
        shapes = {"x": self.shape, **self.more_inputs}
        infos = [helper.make_tensor_value_info(name, self.dtype, shape) for name, shape in shapes.items()]
        tensors = [numpy_helper.from_array(data, name) for name, data in self.constants.items()]
        return build(self.nodes, infos, self.outputs.split(), tensors, self.opset)

    def feeds(self) -> dict[str, Array]:
        """Fixed random arrays for the inputs, from -4 to 4."""
        rng = np.random.default_rng(1)
        dtype = helper.tensor_dtype_to_np_dtype(self.dtype)
        shapes = {"x": self.shape, **self.more_inputs}
        return {name: rng.uniform(-4, 4, shape).astype(dtype) for name, shape in shapes.items()}


def answer(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    """ONNX Runtime's answer with none of its own rewrites, which are not what is under test."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return [np.asarray(result) for result in session.run(None, dict(feeds))]


def info(name: str, shape: Sequence[int | str], dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    """A tensor of a graph's interface; a dimension that is a string is dynamic."""
    return helper.make_tensor_value_info(name, dtype, list(shape))


def same_answer(
    model: onnx.ModelProto, conversion: Conversion, feeds: Mapping[str, Array], tolerance: float = 1e-5
) -> None:
    """LiteRT's answer equals ONNX Runtime's, within ``tolerance`` of the range."""
    assert_same(run_litert(conversion, feeds), answer(model, feeds), tolerance)
