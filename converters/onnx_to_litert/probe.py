"""The converted graph with every named value as an output, to compare it layer by layer with the source."""

from __future__ import annotations

import msgspec

from edgekit.artifacts import LiteRTModel, OnnxModel, TensorSpec
from edgekit.converters.onnx_to_litert.fuse import fuse
from edgekit.converters.onnx_to_litert.importer import import_model, lower_checked
from edgekit.converters.onnx_to_litert.writer import SIGNATURE, write
from edgekit.recipe import ConvertRecipe

__all__ = ["OpSource", "Probe", "probe"]


class OpSource(msgspec.Struct, frozen=True):
    """One LiteRT op of the file, in its order, and the ONNX node that it came from."""

    kind: str
    node: str


class Probe(msgspec.Struct, frozen=True):
    """``model``: the same ops as the converted file, with the values of ``orders`` as outputs too.

    ``orders``: ONNX value -> which ONNX axis each stored axis is. ``ops``: those of the main subgraph.
    """

    model: LiteRTModel
    orders: dict[str, tuple[int, ...]]
    ops: tuple[OpSource, ...]


def probe(model: OnnxModel, recipe: ConvertRecipe) -> Probe:
    """``model`` lowered as ``to_litert`` does, fused, then opened up. Raises as ``to_litert``."""
    graph_model = import_model(model)
    lowered = lower_checked(graph_model, model, recipe)
    graph = lowered.graph
    fuse(graph)
    alive = {id(tensor) for op in graph.ops for tensor in op.outputs}
    taken = {id(tensor) for tensor in graph.outputs}
    orders: dict[str, tuple[int, ...]] = {}
    for name, view in lowered.views.items():
        # float values only: the integers are shapes, and a quantized value is compared where it is real again
        if id(view.tensor) in alive and view.dtype.kind == "f":
            orders[name] = view.order
            if id(view.tensor) not in taken:
                taken.add(id(view.tensor))
                view.tensor.name = name
                graph.outputs.append(view.tensor)
    graph.sizes = lowered.hints({})
    outputs = tuple(
        TensorSpec(tensor.name, tensor.dtype.name, tuple(max(dim, -1) for dim in tensor.shape))
        for tensor in graph.outputs
    )
    return Probe(
        LiteRTModel(write({SIGNATURE: graph}), lowered.inputs, outputs),
        {tensor.name: orders[tensor.name] for tensor in graph.outputs if tensor.name in orders},
        tuple(OpSource(op.kind, op.source) for op in graph.ops),
    )
