"""One ONNX node as a lowering function sees it, and the way to refuse it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgekit.artifacts import Array
from edgekit.converters.onnx_to_litert.builder import Builder
from edgekit.converters.onnx_to_litert.graph import DTYPES, is_static
from edgekit.converters.onnx_to_litert.refusal import Refused
from edgekit.converters.onnx_to_litert.view import View
from edgekit.errors import InternalError

if TYPE_CHECKING:
    import onnx_ir as ir

    OnnxGraph = ir.Graph
    LowerBody = Callable[[Builder, OnnxGraph, Sequence[View]], list[View]]

__all__ = ["BodyRefused", "Node", "Refused"]


class BodyRefused(Exception):
    """A node inside the body of this node was refused, and is on the list."""


@dataclass(frozen=True, slots=True)
class Node:
    """``inputs`` are the values read (None: left out); ``opset`` is the version of the node's domain.

    ``lower_body`` lowers a graph attribute: (builder, graph, views of its inputs) -> views of its outputs.
    """

    ir: ir.Node
    inputs: Sequence[View | None]
    opset: int
    lower_body: LowerBody | None = None

    @property
    def op_type(self) -> str:
        """The ONNX op."""
        return self.ir.op_type

    @property
    def output_count(self) -> int:
        """Number of outputs, the unused ones included."""
        return len(self.ir.outputs)

    def has_input(self, index: int) -> bool:
        """Whether the optional input is there."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def has_output(self, index: int) -> bool:
        """Whether somebody reads the optional output, or it is an output of the graph."""
        if index >= len(self.ir.outputs):
            return False
        value = self.ir.outputs[index]
        return bool(value.name) and (bool(value.uses()) or value.is_graph_output())

    def view(self, index: int) -> View:
        """The input ``index``; refused when it is missing."""
        view = self.inputs[index] if index < len(self.inputs) else None
        if view is None:
            raise Refused(f"its input {index} is missing")
        if view.dtype.name not in DTYPES:
            raise Refused(f"LiteRT has no tensors of {view.dtype.name}, as its input {index} is")
        return view

    def const(self, index: int, what: str) -> Array:
        """The constant value of the input ``index``; refused when it is known only at run time."""
        data = self.view(index).const
        if data is None:
            raise Refused(f"its {what} is computed at run time", f"Make the {what} a constant.")
        return data

    def optional_const(self, index: int, what: str) -> Array | None:
        """As ``const``, None where the input is left out."""
        return self.const(index, what) if self.has_input(index) else None

    def floats(self, index: int) -> View:
        """The input ``index``, refused unless its dtype is one LiteRT computes in (float32)."""
        view = self.view(index)
        if view.dtype != np.float32:
            raise Refused(f"LiteRT has no {self.op_type} for {view.dtype.name}", "Convert the model to float32.")
        return view

    def static_shape(self, index: int) -> tuple[int, ...]:
        """The shape of the input ``index``; refused when a dimension is dynamic."""
        shape = self.view(index).shape
        if not is_static(shape):
            raise Refused("it needs a fixed shape here", "Fix the input's shape with --shape.")
        return shape

    def graph(self, name: str) -> OnnxGraph:
        """A graph attribute."""
        return self.ir.attributes[name].as_graph()

    def body(self, b: Builder, name: str, inputs: Sequence[View]) -> list[View]:
        """The outputs of the graph attribute ``name`` for ``inputs``, lowered into ``b``."""
        if self.lower_body is None:
            raise InternalError(f"The body '{name}' of {self.op_type} is lowered outside of a graph.")
        return self.lower_body(b, self.graph(name), inputs)

    def has(self, name: str) -> bool:
        """Whether the attribute is set."""
        return name in self.ir.attributes

    def integer(self, name: str, default: int) -> int:
        """An integer attribute."""
        return int(self.ir.attributes.get_int(name, default))

    def integers(self, name: str, default: Sequence[int] = ()) -> tuple[int, ...]:
        """A list of integers."""
        return tuple(self.ir.attributes.get_ints(name, default))

    def real(self, name: str, default: float) -> float:
        """A float attribute."""
        return float(self.ir.attributes.get_float(name, default))

    def reals(self, name: str) -> tuple[float, ...]:
        """A list of floats, empty by default."""
        return tuple(self.ir.attributes.get_floats(name, ()))

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of strings, empty by default."""
        return tuple(self.ir.attributes.get_strings(name, ()))

    def text(self, name: str, default: str) -> str:
        """A string attribute."""
        return str(self.ir.attributes.get_string(name, default))

    def tensor(self, name: str) -> Array | None:
        """A tensor attribute."""
        attribute = self.ir.attributes.get(name)
        return None if attribute is None else attribute.as_tensor().numpy()
