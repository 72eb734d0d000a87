"""Cutting an ONNX graph at named tensors: the part between some tensors and others, as a model of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgekit import isolate
from edgekit.artifacts import OnnxModel
from edgekit.converters.onnx_model import describe, parse_onnx
from edgekit.errors import BadModel, BadRecipe, UnknownName

if TYPE_CHECKING:
    import onnx

__all__ = ["cut", "reads"]


def cut(model: OnnxModel, inputs: Sequence[str], outputs: Sequence[str]) -> OnnxModel:
    """The part of ``model`` that makes the tensors ``outputs`` from the tensors ``inputs`` (both in the order given).

    Empty ``inputs`` or ``outputs`` stand for those of the model; inputs that the part does not read are left out then.
    Raises UnknownName for a tensor that the graph does not have, BadRecipe where the part needs an input that is not
    given or has an end of unknown type.
    """
    proto = parse_onnx(model.data)
    graph = proto.graph
    made = {name: node for node in graph.node for name in node.output if name}
    own_inputs = [spec.name for spec in model.inputs]
    known = [*own_inputs, *made]
    for name in (*inputs, *outputs):
        if name not in known:
            raise UnknownName.of("tensor", name, sorted(known)[:40])
    ends = list(outputs) or [spec.name for spec in model.outputs]
    needed, reached = _walk(graph, made, set(inputs), ends)
    starts = list(inputs) or [name for name in own_inputs if name in reached]
    missing = [name for name in own_inputs if name in reached and name not in starts]
    if missing:
        raise BadRecipe(f"The part from {list(inputs)} to {ends} also reads {missing}.", "Add them to its inputs.")
    types = _types(proto, [*starts, *ends])
    nodes = [node for index, node in enumerate(graph.node) if index in needed]
    kept = {name for node in nodes for name in reads(node)} | set(ends)
    weights = [tensor for tensor in graph.initializer if tensor.name in kept]
    values = [value for value in graph.value_info if value.name in kept]
    del graph.node[:], graph.initializer[:], graph.value_info[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    graph.initializer.extend(weights)
    graph.value_info.extend(values)
    graph.input.extend(types[name] for name in starts)
    graph.output.extend(types[name] for name in ends)
    return describe(proto)


def reads(node: onnx.NodeProto) -> set[str]:
    """Names that ``node`` reads, those of its bodies included."""
    names = {name for name in node.input if name}
    for attribute in node.attribute:
        for graph in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
            for inner in graph.node:
                names |= reads(inner)
            names |= {value.name for value in graph.output}
    return names


def _walk(
    graph: onnx.GraphProto, made: dict[str, onnx.NodeProto], starts: set[str], ends: Sequence[str]
) -> tuple[set[int], set[str]]:
    """Indices of the nodes between ``starts`` and ``ends``, and all names that were met on the way."""
    places = {id(node): index for index, node in enumerate(graph.node)}
    needed: set[int] = set()
    reached: set[str] = set()
    front = [name for name in ends if name not in starts]
    while front:
        name = front.pop()
        if name in reached:
            continue
        reached.add(name)
        node = made.get(name)
        if node is None or places[id(node)] in needed:
            continue
        needed.add(places[id(node)])
        front.extend(source for source in reads(node) if source not in starts)
    return needed, reached


def _types(proto: onnx.ModelProto, names: Sequence[str]) -> dict[str, onnx.ValueInfoProto]:
    """The types of the tensors ``names``; shape inference (in a child process) where the file does not say."""
    found = _declared(proto)
    if any(name not in found for name in names):
        data = isolate.call("edgekit.graph.cut:_inferred", proto.SerializeToString())
        if isinstance(data, bytes):
            found = _declared(parse_onnx(data))
    for name in names:
        if name not in found:
            raise BadRecipe(f"The type of the tensor '{name}' is not known.", "Cut at another one.")
    return found


def _declared(proto: onnx.ModelProto) -> dict[str, onnx.ValueInfoProto]:
    values = [*proto.graph.value_info, *proto.graph.output, *proto.graph.input]
    return {value.name: value for value in values if value.type.HasField("tensor_type")}


def _inferred(data: bytes) -> bytes:
    import onnx

    try:
        return bytes(onnx.shape_inference.infer_shapes(data).SerializeToString())
    except onnx.shape_inference.InferenceError as error:
        raise BadModel(f"The shapes of the graph are inconsistent: {error}.") from error
