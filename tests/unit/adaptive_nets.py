"""Small networks with several exits for the tests of edgekit.adaptive, and both engines run by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from ai_edge_litert.interpreter import Interpreter
from onnx import TensorProto, helper, numpy_helper

from edgekit.artifacts import Array, OnnxModel, Signature
from edgekit.converters.onnx_model import describe

CLASSES = 5


class Net:
    """Grows a network node by node; ``x`` is the image (1, 3, h, w)."""

    def __init__(self, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, Array] = {}
        self._count = 0

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        """The name of the result of a new node."""
        self._count += 1
        name = f"{op.lower()}_{self._count}"
        self._nodes.append(helper.make_node(op, inputs, [name], name, **attributes))
        return name

    def constant(self, array: Array) -> str:
        """The name of a new weight."""
        name = f"w{len(self._constants)}"
        self._constants[name] = array
        return name

    def conv(self, value: str, before: int, after: int, stride: int = 1) -> str:
        """A 3x3 convolution that keeps the spread of values."""
        weight = self._rng.standard_normal((after, before, 3, 3)) * (2 / (9 * before)) ** 0.5
        bias = self._rng.standard_normal(after) * 0.1
        return self.node("Conv", value, self.constant(weight.astype(np.float32)),
                         self.constant(bias.astype(np.float32)), pads=[1] * 4, strides=[stride] * 2)

    def head(self, value: str, channels: int, by_shape: bool = False) -> str:
        """Mean over space and a linear layer; ``by_shape``: flattened by arithmetic on sizes, as exporters write it."""
        mean = self.node("GlobalAveragePool", value)
        if by_shape:
            first, rest = self.constant(np.array([0], np.int64)), self.constant(np.array([-1], np.int64))
            batch = self.node("Gather", self.node("Shape", value), first, axis=0)
            flat = self.node("Reshape", mean, self.node("Concat", batch, rest, axis=0))
        else:
            flat = self.node("Flatten", mean)
        weight = self._rng.standard_normal((CLASSES, channels)).astype(np.float32)
        return self.node("Gemm", flat, self.constant(weight), transB=1)

    def model(self, exits: Sequence[str], side: int | None = None) -> OnnxModel:
        """The network with the outputs exit0, exit1, ...; ``side`` fixes the size of the image."""
        names = {name: f"exit{number}" for number, name in enumerate(exits)}
        nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in self._nodes]
        for node in nodes:
            for names_of in (node.input, node.output):
                renamed = [names.get(name, name) for name in names_of]
                del names_of[:]
                names_of.extend(renamed)
        size = [side, side] if side else ["h", "w"]
        graph = helper.make_graph(
            nodes, "net", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, *size])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, CLASSES]) for name in names.values()],
            [numpy_helper.from_array(array, name) for name, array in self._constants.items()])
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        return describe(onnx.shape_inference.infer_shapes(proto))


def wide_two_exits(heads: int) -> OnnxModel:
    """Two exits behind a trunk of 200 KB that is the same for all; ``heads``: the seed of their weights."""
    net, width = Net(), 64
    first = net.node("Relu", net.conv("x", 3, width, 2))
    trunk = net.node("Relu", net.conv(first, width, width))
    early = first
    net._rng = np.random.default_rng(100 + heads)
    return net.model([net.head(early, width), net.head(trunk, width)])


def two_exits(side: int | None = None) -> OnnxModel:
    """Convolution, exit, convolution, exit."""
    net = Net(3)
    first = net.node("Relu", net.conv("x", 3, 8, 2))
    shallow = net.head(first, 8)
    second = net.node("Relu", net.conv(first, 8, 16))
    return net.model([shallow, net.head(second, 16)], side)


def image(side: int, seed: int = 0) -> Array:
    """Random pixels (1, 3, side, side)."""
    return np.random.default_rng(seed).standard_normal((1, 3, side, side)).astype(np.float32)


def run_onnx(model: OnnxModel, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """ONNX Runtime's answers, without its own rewrites."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.data, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    wanted = {value.name for value in session.get_inputs()}
    return dict(zip(names, session.run(names, {name: feeds[name] for name in wanted}), strict=True))


def chain_litert(data: bytes, signatures: Sequence[Signature], start: Array) -> dict[str, Array]:
    """All values of the stages in a row; ``start`` is the image in ONNX order."""
    interpreter = Interpreter(model_content=data, num_threads=1)
    values: dict[str, Array] = {signatures[0].inputs[0].name: np.ascontiguousarray(start.transpose(0, 2, 3, 1))}
    for signature in signatures:
        runner = interpreter.get_signature_runner(signature.name)
        outputs = runner(**{spec.name: values[spec.name] for spec in signature.inputs})
        values |= {name: np.array(array) for name, array in outputs.items()}
    return values
