"""Looking at ONNX graphs: constants, sole readers, removal. Shared by the passes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from edgekit.artifacts import Array

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["add_weight", "const_of", "only_use", "producer", "remove", "scalar_of", "sole_reader"]


def const_of(value: ir.Value | None) -> Array | None:
    """The array of a constant (an initializer or the output of a Constant node), else None."""
    from edgekit.converters.onnx_to_litert.folding import constant_value

    if value is None:
        return None
    if value.const_value is not None and not value.is_graph_input():
        return value.const_value.numpy()
    node = value.producer()
    return constant_value(node) if node is not None and node.op_type == "Constant" and node.domain == "" else None


def scalar_of(value: ir.Value | None) -> float | None:
    """The number that a one-element float constant holds, else None.

    One of rank 2 and more may raise the rank of what it is added to or multiplied with, so it is no mere number.
    """
    data = const_of(value)
    plain = data is not None and data.size == 1 and data.ndim <= 1 and data.dtype.kind == "f"
    return float(data.reshape(-1)[0]) if data is not None and plain else None


def producer(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    """The node that makes ``value`` if its op is one of ``op_types``, else None."""
    node = None if value is None else value.producer()
    return node if node is not None and node.domain == "" and node.op_type in op_types else None


def sole_reader(value: ir.Value) -> ir.Node | None:
    """The one node that reads ``value``; None if there are more, or if it is an output of the graph."""
    uses = list(value.uses())
    return uses[0][0] if len(uses) == 1 and not value.is_graph_output() else None


def only_use(value: ir.Value, op_type: str) -> tuple[ir.Node, int] | None:
    """The node and the input at which ``value`` is read, if that is its only use, by ``op_type`` of the same graph."""
    uses = list(value.uses())
    if len(uses) != 1:
        return None
    node, index = uses[0]
    source = value.producer()
    same_graph = source is not None and node.graph is source.graph
    return (node, index) if same_graph and node.domain == "" and node.op_type == op_type else None


def add_weight(model: ir.Model, name: str, data: Array) -> ir.Value:
    """A new initializer; ``name`` gets a number if it is taken."""
    import onnx_ir as ir

    taken = {value.name for node in model.graph for value in node.outputs}
    taken.update(value.name for value in model.graph.inputs)
    unique, number = name, 0
    while unique in taken or unique in model.graph.initializers:
        number += 1
        unique = f"{name}_{number}"
    value = ir.val(unique, const_value=ir.tensor(np.ascontiguousarray(data), name=unique))
    model.graph.register_initializer(value)
    return value


def remove(model: ir.Model, nodes: Iterable[ir.Node]) -> None:
    """Take dead nodes out of the graph; weights that nobody reads any more go too."""
    for node in nodes:
        inputs = [value for value in node.inputs if value is not None]
        model.graph.remove(node, safe=True)
        for value in inputs:
            wanted = value.uses() or value.is_graph_output() or value.is_graph_input()
            if value.is_initializer() and not wanted:
                model.graph.initializers.pop(value.name or "", None)
