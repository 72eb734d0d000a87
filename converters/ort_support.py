"""Which nodes of a graph this ONNX Runtime can run, asked of the engine itself, all at once.

ONNX Runtime stops at the first op that it does not know. It does, however, list its kernels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from edgekit.converters.source_lines import source_of
from edgekit.errors import MissingExtra

if TYPE_CHECKING:
    import onnx

__all__ = ["unsupported_nodes"]

_CPU = "CPUExecutionProvider"
_BUILT_IN = ("Constant",)  # the engine makes these into weights while it reads the file
_Kernels = dict[tuple[str, str], list[tuple[int, int]]]


def unsupported_nodes(proto: onnx.ModelProto) -> list[str]:
    """One line for each node of ``proto`` (and of its subgraphs) that has no CPU kernel: name, op, source, reason.

    Element types are not looked at: a kernel that lacks one is reported by the engine. Raises MissingExtra without
    onnxruntime. To be called in a child process, since it loads the engine.
    """
    kernels = _kernels()
    opsets = {_standard(opset.domain): opset.version for opset in proto.opset_import}
    local = {(function.domain, function.name) for function in proto.functions}
    lines = []
    for node in _all_nodes(proto.graph):
        reason = "" if (node.domain, node.op_type) in local else _reason(node, kernels, opsets)
        if reason:
            where = f" [{source_of(node)}]" if source_of(node) else ""
            name = node.name or next((output for output in node.output if output), "?")
            lines.append(f"node '{name}' ({node.op_type}){where}: {reason}.")
    return lines


def _kernels() -> _Kernels:
    """(domain, op) -> ranges of the versions of the op's definition that have a CPU kernel."""
    try:
        from onnxruntime.capi import onnxruntime_pybind11_state as native
    except ImportError as error:
        raise MissingExtra.of("onnxruntime", "ort") from error
    found: _Kernels = {}
    for kernel in native.get_all_opkernel_def():
        if kernel.provider == _CPU:
            found.setdefault((_standard(kernel.domain), kernel.op_name), []).append(kernel.version_range)
    return found


def _reason(node: onnx.NodeProto, kernels: _Kernels, opsets: dict[str, int]) -> str:
    import onnx

    domain = _standard(node.domain)
    if domain == "" and node.op_type in _BUILT_IN:
        return ""
    if domain != "" and (domain, node.op_type) not in kernels:
        return f"the domain '{node.domain}' has no such op here"
    if domain not in ("", "ai.onnx.ml"):
        return ""  # versions of ONNX Runtime's own ops are its own affair
    try:
        schema = onnx.defs.get_schema(node.op_type, opsets.get(domain, 1), domain)
    except onnx.defs.SchemaError:
        return f"opset {opsets.get(domain, 1)} has no such op"
    if schema.deprecated:
        return f"opset {opsets.get(domain, 1)} has removed this op"
    ranges = kernels.get((domain, node.op_type), [])
    if any(first <= schema.since_version <= last for first, last in ranges):
        return ""
    # the type information that comes with onnx leaves these two out
    if getattr(schema, "has_function", False) or getattr(schema, "has_context_dependent_function", False):
        return ""  # the engine expands it into ops that it has
    return f"there is no kernel for version {schema.since_version} of this op"


def _all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            subgraphs: Iterable[onnx.GraphProto] = [attribute.g] if attribute.HasField("g") else attribute.graphs
            for subgraph in subgraphs:
                yield from _all_nodes(subgraph)


def _standard(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain
