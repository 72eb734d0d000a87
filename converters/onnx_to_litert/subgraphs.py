"""Subgraphs that an op runs: their values from outside become inputs; WHILE and IF are built here.

A tensor of the surrounding graph may be used inside freely. Constants are written into each subgraph (on one shared
buffer); anything else is passed in, and a loop hands it on unchanged, which costs one copy for the whole loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgekit.converters.onnx_to_litert.builder import Builder
from edgekit.converters.onnx_to_litert.graph import Graph, Shape, Tensor

__all__ = ["branches", "while_loop"]

Step = Callable[[Builder, list[Tensor]], list[Tensor]]


def while_loop(b: Builder, initial: Sequence[Tensor], condition: Step, body: Step) -> list[Tensor]:
    """What the loop variables hold when ``condition`` (one bool of shape () or (1,)) turns false, as a WHILE op.

    Both functions get the builder of their subgraph and the variables' current values. The variables keep the shapes
    of ``initial``.
    """
    test, loop = (Builder(Graph(f"{b.source}/{part}"), b) for part in ("condition", "body"))
    for inner in (test, loop):
        inner.graph.inputs = [_input(inner, tensor) for tensor in initial]
    test.graph.outputs = condition(test, list(test.graph.inputs))
    loop.graph.outputs = _separate(loop, body(loop, list(loop.graph.inputs)))
    outer = _bind([test, loop])
    loop.graph.outputs.extend(loop.graph.inputs[len(initial) :])
    inputs = [*initial, *outer]
    types = [(tensor.shape, tensor.dtype) for tensor in inputs]
    results = b.emit_many("WHILE", inputs, types, condSubgraphIndex=test.graph, bodySubgraphIndex=loop.graph)
    return results[: len(initial)]


def branches(
    b: Builder, condition: Tensor, then: Builder, otherwise: Builder, types: Sequence[tuple[Shape, object]]
) -> list[Tensor]:
    """An IF op over two finished subgraphs of ``b`` whose outputs have the same ``types`` (shape, dtype)."""
    for inner in (then, otherwise):
        inner.graph.outputs = [inner.copy(t) if t.data is not None else t for t in inner.graph.outputs]
    outer = _bind([then, otherwise])
    return b.emit_many(
        "IF", [condition, *outer], types, thenSubgraphIndex=then.graph, elseSubgraphIndex=otherwise.graph
    )


def _input(inner: Builder, tensor: Tensor) -> Tensor:
    return inner.note_shape(Tensor(tensor.name, tensor.dtype, tensor.shape, quantization=tensor.quantization))


def _separate(loop: Builder, outputs: Sequence[Tensor]) -> list[Tensor]:
    """Outputs that the engine can copy onto the inputs one after the other: an input may only go to its own place."""
    inputs = loop.graph.inputs
    places = {id(tensor): index for index, tensor in enumerate(inputs)}
    return [
        loop.copy(tensor) if tensor.data is not None or places.get(id(tensor), index) != index else tensor
        for index, tensor in enumerate(outputs)
    ]


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
        inner.graph.inputs.extend(inside.values())
        for op in inner.graph.ops:
            op.inputs = [None if tensor is None else inside.get(id(tensor), tensor) for tensor in op.inputs]
        inner.graph.outputs = [inside.get(id(tensor), tensor) for tensor in inner.graph.outputs]
    return list(found.values())
