"""Subgraphs that an op runs: WHILE and IF are built here.

A tensor of the surrounding graph may be used inside freely. Constants are written into each subgraph (on one shared
buffer); anything else becomes an input, which a loop hands on unchanged: the engine copies it once for the whole loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgekit.converters.onnx_to_litert.builder import Builder
from edgekit.converters.onnx_to_litert.graph import Graph, Shape, Tensor

__all__ = ["Loop", "Variable", "branch", "if_then_else"]


@dataclass(slots=True, eq=False)
class Variable:
    """A value that a loop carries: before the loop, as the condition and the body see it, and what the body makes."""

    initial: Tensor
    tested: Tensor
    now: Tensor
    next: Tensor


class Loop:
    """A WHILE op. Emit into ``test`` and ``body``, set ``next`` of the variables, then ``run``.

    Variables keep the shape of their initial value. ``next`` is the variable itself until it is set.
    """

    def __init__(self, b: Builder) -> None:
        self.outer = b
        self.test = Builder(Graph(f"{b.source}/condition"), b)
        self.body = Builder(Graph(f"{b.source}/body"), b)
        self._variables: list[Variable] = []

    def variable(self, initial: Tensor) -> Variable:
        """A new variable that starts with ``initial``."""
        tested, now = (_input(inner, initial) for inner in (self.test, self.body))
        made = Variable(initial, tested, now, now)
        self._variables.append(made)
        return made

    def counter(self) -> Variable:
        """A variable of shape (1,) that counts the runs of the body, int32."""
        made = self.variable(self.outer.const(np.zeros(1, np.int32)))
        made.next = self.body.binary("ADD", made.now, self.body.const(np.ones(1, np.int32)))
        return made

    def run(self, condition: Tensor) -> dict[Variable, Tensor]:
        """The last value of each variable; ``condition`` is a bool of ``test``, of shape (1,)."""
        self.test.graph.outputs = [condition]
        self.body.graph.outputs = [self._separate(variable) for variable in self._variables]
        outside = _bind([self.test, self.body])
        self.body.graph.outputs.extend(self.body.graph.inputs[len(self._variables) :])
        inputs = [*(variable.initial for variable in self._variables), *outside]
        results = self.outer.emit_many(
            "WHILE",
            inputs,
            [(tensor.shape, tensor.dtype) for tensor in inputs],
            condSubgraphIndex=self.test.graph,
            bodySubgraphIndex=self.body.graph,
        )
        return dict(zip(self._variables, results, strict=False))

    def _separate(self, variable: Variable) -> Tensor:
        """The result, copied where the engine could not move it: it copies results onto the inputs one by one."""
        elsewhere = {id(other.now) for other in self._variables if other is not variable}
        copied = variable.next.data is not None or id(variable.next) in elsewhere
        return self.body.copy(variable.next) if copied else variable.next


def branch(b: Builder, name: str) -> Builder:
    """A builder for one branch of an IF op in the graph of ``b``; set the outputs of its graph."""
    return Builder(Graph(f"{b.source}/{name}"), b)


def if_then_else(
    b: Builder,
    condition: Tensor,
    then: Builder,
    otherwise: Builder,
    types: Sequence[tuple[Shape, np.dtype[np.generic]]],
) -> list[Tensor]:
    """An IF op over two branches whose outputs have the ``types`` (shape, dtype)."""
    for inner in (then, otherwise):
        inner.graph.outputs = [inner.copy(t) if t.data is not None else t for t in inner.graph.outputs]
    outside = _bind([then, otherwise])
    return b.emit_many(
        "IF", [condition, *outside], types, thenSubgraphIndex=then.graph, elseSubgraphIndex=otherwise.graph
    )


def _input(inner: Builder, tensor: Tensor) -> Tensor:
    made = Tensor(tensor.name, tensor.dtype, tensor.shape, quantization=tensor.quantization)
    inner.graph.inputs.append(made)
    return inner.note_shape(made)


def _bind(builders: Sequence[Builder]) -> list[Tensor]:
    """The tensors from outside that the graphs read; each becomes an input of every graph, in the same order."""
    found: dict[int, Tensor] = {}
    for inner in builders:
        own = {id(tensor) for tensor in inner.graph.inputs}
        own.update(id(tensor) for op in inner.graph.ops for tensor in op.outputs)
        read = [tensor for op in inner.graph.ops for tensor in op.inputs if tensor is not None]
        for tensor in (*read, *inner.graph.outputs):
            if tensor.data is None and id(tensor) not in own:
                found.setdefault(id(tensor), tensor)
    for inner in builders:
        inside = {key: _input(inner, tensor) for key, tensor in found.items()}
        for op in inner.graph.ops:
            op.inputs = [None if tensor is None else inside.get(id(tensor), tensor) for tensor in op.inputs]
        inner.graph.outputs = [inside.get(id(tensor), tensor) for tensor in inner.graph.outputs]
    return list(found.values())
