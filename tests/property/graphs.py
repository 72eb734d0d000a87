"""A hypothesis strategy for random ONNX graphs: valid shapes, bounded values, every kind of op the converter lowers.

``graphs()`` draws a graph of 3 to 12 nodes over one or two float inputs. Values are continuous functions of the inputs
(no Floor, no comparisons), so that two engines agree up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import onnx
from hypothesis import assume
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgekit.artifacts import Array
from edgekit.recipe import IoLayout

__all__ = ["Draft", "RandomGraph", "Value", "graphs"]

T = TypeVar("T")
Shape = tuple[int, ...]
OPSET = 18
MAX_ELEMENTS = 3000
#: beyond this a Tanh is put in, so that products of products do not overflow
MAX_BOUND = 200.0


@dataclass(frozen=True)
class Value:
    """A value of the graph; ``bound``: no element is farther from 0, roughly."""

    name: str
    shape: Shape
    bound: float

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)


class RandomGraph:
    """A model, arrays for its inputs, and the way it is to be converted."""

    def __init__(
        self, model: onnx.ModelProto, feeds: dict[str, Array], io_layout: IoLayout, dynamic: tuple[int, ...]
    ) -> None:
        self.model = model
        self.feeds = feeds
        self.io_layout = io_layout
        self.dynamic = dynamic

    def __repr__(self) -> str:
        """The graph as text: what a failing example is reported with."""
        text = onnx.printer.to_text(self.model)
        return f"\n{text}\n(io_layout={self.io_layout}, dynamic axes of the inputs: {self.dynamic})"


class Draft:
    """A graph being drawn: its values so far, and helpers for the ops."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Array] = {}
        self.values: list[Value] = []
        self.random = np.random.default_rng(draw(st.integers(0, 2**16)))

    def pick(self, *options: T) -> T:
        """One of the options."""
        return self.draw(st.sampled_from(options))

    def number(self, low: int, high: int) -> int:
        """An integer from ``low`` to ``high``."""
        return self.draw(st.integers(low, high))

    def flag(self) -> bool:
        """True or False."""
        return self.draw(st.booleans())

    def draw_value(self, values: Sequence[Value]) -> Value:
        """One of ``values``."""
        return values[self.number(0, len(values) - 1)]

    def const(self, data: Array | Sequence[int]) -> str:
        """The name of a new constant; lists are int64."""
        name = f"c{len(self.constants)}"
        self.constants[name] = data if isinstance(data, np.ndarray) else np.array(data, np.int64)
        return name

    def weight(self, *shape: int, scale: float = 1.0) -> str:
        """The name of a constant of random floats."""
        return self.const((self.random.uniform(-1, 1, shape) * scale).astype(np.float32))

    def add(self, op: str, inputs: Sequence[str | Value], bound: float, outputs: int = 1, **attributes: Any) -> Value:
        """Append a node; its result's shape is ONNX's own inference. The last of several ``outputs`` is returned."""
        made = [f"v{len(self.nodes)}_{index}" if outputs > 1 else f"v{len(self.nodes)}" for index in range(outputs)]
        node = self._node(op, inputs, made, attributes)
        for name, shape in zip(made, self._shapes(node, inputs), strict=True):
            self._value(name, shape, bound)
        result = self.values[-1]
        return self.add("Tanh", [result], 1.0) if bound > MAX_BOUND else result

    def add_of_shape(
        self, op: str, inputs: Sequence[str | Value], shape: Shape, bound: float, **attributes: Any
    ) -> Value:
        """As ``add`` for a node whose shape only a run would tell: it is given."""
        name = f"v{len(self.nodes)}"
        self._node(op, inputs, [name], attributes)
        return self._value(name, shape, bound)

    def ints(self, op: str, inputs: Sequence[str | Value], **attributes: Any) -> str:
        """Append a node whose result is no value of the graph but part of its shape arithmetic; its name."""
        name = f"s{len(self.nodes)}"
        self._node(op, inputs, [name], attributes)
        return name

    def _node(
        self, op: str, inputs: Sequence[str | Value], made: list[str], attributes: dict[str, Any]
    ) -> onnx.NodeProto:
        names = [operand.name if isinstance(operand, Value) else operand for operand in inputs]
        node = helper.make_node(op, names, made, f"n{len(self.nodes)}", **attributes)
        self.nodes.append(node)
        return node

    def _value(self, name: str, shape: Shape, bound: float) -> Value:
        assume(0 < int(np.prod(shape)) <= MAX_ELEMENTS and len(shape) <= 5)
        self.values.append(Value(name, shape, bound))
        return self.values[-1]

    def _shapes(self, node: onnx.NodeProto, inputs: Sequence[str | Value]) -> list[Shape]:
        infos = [
            helper.make_tensor_value_info(operand.name, TensorProto.FLOAT, operand.shape)
            for operand in {operand.name: operand for operand in inputs if isinstance(operand, Value)}.values()
        ]
        tensors = [numpy_helper.from_array(self.constants[name], name) for name in node.input if name in self.constants]
        outputs = [onnx.ValueInfoProto(name=name) for name in node.output]
        graph = helper.make_graph([node], "one", infos, outputs, tensors)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        return [tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim) for value in inferred.graph.output]


Step = Callable[[Draft, Value], Value | None]
"""Adds an op that reads the value; None where the value does not suit it."""


class Options:
    """What the strategy may draw: ops, those that take a value without axes too, shapes of inputs, number of nodes."""

    def __init__(
        self, steps: Sequence[Step], scalar_steps: Sequence[Step], inputs: Sequence[Shape], max_nodes: int = 12
    ) -> None:
        self.steps = steps
        self.scalar_steps = scalar_steps
        self.inputs = inputs
        self.max_nodes = max_nodes


@st.composite
def graphs(draw: st.DrawFn, options: Options) -> RandomGraph:
    """A random graph of ``options.steps``."""
    draft = Draft(draw)
    inputs = []
    for index in range(draw(st.sampled_from([1, 1, 2]))):
        shape = draw(st.sampled_from(options.inputs))
        inputs.append(Value(f"x{index}", shape, 2.0))
    draft.values.extend(inputs)
    for _ in range(draw(st.integers(3, options.max_nodes))):
        # mostly the newest value, so that the ops stand in a chain; else any, so that there are branches
        recent = draft.values[-1] if draw(st.integers(0, 3)) else draw(st.sampled_from(draft.values))
        draw(st.sampled_from(options.steps if recent.rank else options.scalar_steps))(draft, recent)
    assume(draft.nodes)
    return _finished(draft, inputs)


def _finished(draft: Draft, inputs: Sequence[Value]) -> RandomGraph:
    read = {name for node in draft.nodes for name in node.input}
    ends = [value for value in draft.values[len(inputs) :] if value.name not in read]
    dynamic = draft.draw(st.sampled_from([(), (), (0,), (0, 2), (2, 3)]))
    infos = []
    for value in inputs:
        dims = [f"{value.name}_{axis}" if axis in dynamic else dim for axis, dim in enumerate(value.shape)]
        infos.append(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, dims))
    unknown = [None] if dynamic else []
    outputs = [
        helper.make_tensor_value_info(value.name, TensorProto.FLOAT, unknown * value.rank or value.shape)
        for value in ends
    ]
    tensors = [numpy_helper.from_array(data, name) for name, data in draft.constants.items()]
    graph = helper.make_graph(draft.nodes, "random", infos, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    feeds = {value.name: draft.random.uniform(-2, 2, value.shape).astype(np.float32) for value in inputs}
    layouts: list[IoLayout] = ["auto", "onnx", "nhwc"]
    return RandomGraph(model, feeds, draft.pick(*layouts), dynamic)
