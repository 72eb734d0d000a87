"""Ops that the ONNX standard defines by a function body: the body as a graph, for operands of known types.

Used where EdgeKit has no lowering of its own. The body may depend on the types and on which operands are there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgekit.converters.onnx_to_litert.view import View

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

__all__ = ["FunctionBody", "function_body", "has_body"]


@dataclass(frozen=True, slots=True)
class FunctionBody:
    """``graph`` has the inputs that are there, and an output for each output of the node; ``opsets`` are its own."""

    graph: ir.Graph
    opsets: Mapping[str, int]


def function_body(node: ir.Node, inputs: Sequence[View | None], opset: int) -> FunctionBody | None:
    """The body of ``node``'s op for ``inputs``; None when the standard gives none."""
    import onnx
    import onnx_ir as ir

    try:
        schema = onnx.defs.get_schema(node.op_type, opset, "" if node.domain == "ai.onnx" else node.domain)
    except onnx.defs.SchemaError:
        return None
    proto = ir.serde.serialize_node(node)
    function = _function(schema, proto, inputs, opset)
    if function is None:
        return None
    rename = dict.fromkeys(function.input, "")
    rename.update({name: name for name, view in zip(function.input, inputs, strict=False) if view is not None})
    attributes = {attribute.name: attribute for attribute in proto.attribute}
    defaults = {name: entry.default_value for name, entry in schema.attributes.items() if entry.default_value.name}
    defaults.update({attribute.name: attribute for attribute in function.attribute_proto})
    graph = onnx.GraphProto(name=node.op_type)
    for inner in function.node:
        graph.node.append(_filled(inner, {**defaults, **attributes}, rename))
    graph.input.extend(onnx.ValueInfoProto(name=name) for name in function.input if rename[name])
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in function.output[: len(node.outputs)])
    opsets = {entry.domain: entry.version for entry in function.opset_import}
    return FunctionBody(ir.serde.deserialize_graph(graph), opsets)


def has_body(node: ir.Node, opset: int) -> bool:
    """Whether the standard gives a body for ``node``'s op, for some inputs at least."""
    import onnx

    try:
        schema: Any = onnx.defs.get_schema(node.op_type, opset, "")
    except onnx.defs.SchemaError:
        return False
    return bool(schema.has_function or schema.has_context_dependent_function)


def _function(
    schema: Any, node: onnx.NodeProto, inputs: Sequence[View | None], opset: int
) -> onnx.FunctionProto | None:
    # the type information that comes with onnx knows nothing of functions
    by_version = [(version, False) for version in schema.function_opset_versions]
    by_version += [(version, True) for version in schema.context_dependent_function_opset_versions]
    if not by_version:
        return None
    usable = [entry for entry in by_version if entry[0] <= opset] or [min(by_version)]
    version, needs_types = max(usable)
    if not needs_types:
        return _parsed(schema.get_function_with_opset_version(version))
    types = [b"" if view is None else _type(view) for view in inputs]
    data = schema.get_context_dependent_function_with_opset_version(version, node.SerializeToString(), types)
    return _parsed(data) if data else None


def _parsed(data: bytes) -> onnx.FunctionProto:
    import onnx

    function = onnx.FunctionProto()
    function.ParseFromString(data)
    return function


def _type(view: View) -> bytes:
    import onnx

    elem_type = onnx.helper.np_dtype_to_tensor_dtype(view.dtype)
    shape = [dim if dim >= 0 else None for dim in view.shape]
    return bytes(onnx.helper.make_tensor_type_proto(elem_type, shape).SerializeToString())


def _filled(
    node: onnx.NodeProto, attributes: Mapping[str, onnx.AttributeProto], rename: Mapping[str, str]
) -> onnx.NodeProto:
    """``node`` of a body with references to the caller's attributes resolved and absent operands left out."""
    import onnx

    filled = onnx.NodeProto()
    filled.CopyFrom(node)
    filled.name = ""
    del filled.input[:], filled.attribute[:]
    filled.input.extend(rename.get(name, name) for name in node.input)
    for attribute in node.attribute:
        if attribute.ref_attr_name:
            if attribute.ref_attr_name in attributes:
                given = filled.attribute.add()
                given.CopyFrom(attributes[attribute.ref_attr_name])
                given.name = attribute.name
            continue
        own = filled.attribute.add()
        own.CopyFrom(attribute)
        for graph in [own.g] if own.HasField("g") else own.graphs:
            inner = [_filled(child, attributes, rename) for child in graph.node]
            del graph.node[:]
            graph.node.extend(inner)
    return filled
