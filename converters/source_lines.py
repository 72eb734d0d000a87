"""The user's source line on every node of an exported graph.

torch writes a stack trace of several hundred bytes, an FX node and a scope to each node, with the paths of the machine
it ran on. What helps a person who reads "Conv 'node_conv2d_7' is not supported" is one line, so that is what is kept:

    edgekit.source = "nets/unet.py:31 in forward"
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

__all__ = ["SOURCE_KEY", "annotate", "innermost_user_line", "line_of", "metadata", "source_of"]

SOURCE_KEY = "edgekit.source"
_TRACE_KEY = "pkg.torch.onnx.stack_trace"
_FRAME = re.compile(r'File "([^"]+)", line (\d+), in ([^\s]+)')
#: packages whose frames are the exporter's and not the user's
_MACHINERY = ("torch", "onnxscript", "onnx_ir")
_STDLIB = Path(os.__file__).parent


def metadata(node: onnx.NodeProto) -> dict[str, str]:
    """The metadata of ``node`` as a dictionary."""
    return {entry.key: entry.value for entry in node.metadata_props}


def source_of(node: onnx.NodeProto) -> str:
    """The user's source line of ``node``, "" where the file does not say."""
    return metadata(node).get(SOURCE_KEY, "")


def line_of(properties: Mapping[str, str]) -> str:
    """The user's source line from a node's metadata, as EdgeKit or as torch's exporter wrote it; "" without either."""
    return properties.get(SOURCE_KEY) or innermost_user_line(properties.get(_TRACE_KEY, ""))


def innermost_user_line(trace: str) -> str:
    """``file:line in function`` of the innermost frame of ``trace`` outside torch; "" when all are inside."""
    for path, line, function in reversed(_FRAME.findall(trace)):
        if not _is_machinery(path):
            return f"{_place(path)}:{line} in {function}"
    return ""


def annotate(proto: onnx.ModelProto) -> None:
    """Replace the exporter's metadata of ``proto``, in place, by one source line per node.

    A node without a line of the user's (made by a rewrite, or by torch for the sizes of dynamic axes) takes that of its
    nearest producer, else of its nearest consumer, else of its neighbour in the list.
    """
    del proto.graph.metadata_props[:]
    for graph in [proto.graph, *proto.functions]:
        _annotate_nodes(list(graph.node))
    for value in _values(proto.graph):
        del value.metadata_props[:]


def _values(graph: onnx.GraphProto) -> Iterator[onnx.ValueInfoProto | onnx.TensorProto]:
    yield from graph.input
    yield from graph.output
    yield from graph.value_info
    yield from graph.initializer
    for node in graph.node:
        for subgraph in _subgraphs(node):
            yield from _values(subgraph)


def _subgraphs(node: onnx.NodeProto) -> Iterable[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _annotate_nodes(nodes: list[onnx.NodeProto], inherited: str = "") -> None:
    """``inherited`` is the line of the node whose body ``nodes`` are, for bodies without a trace of their own."""
    lines = [innermost_user_line(metadata(node).get(_TRACE_KEY, "")) for node in nodes]
    _spread(nodes, lines)
    fallback = inherited or next((line for line in lines if line), "")
    for node, line in zip(nodes, lines, strict=True):
        kept = line or fallback or _any_line(metadata(node).get(_TRACE_KEY, ""))
        del node.metadata_props[:]
        if kept:
            node.metadata_props.add(key=SOURCE_KEY, value=kept)
        for subgraph in _subgraphs(node):
            del subgraph.metadata_props[:]
            _annotate_nodes(list(subgraph.node), kept)


def _spread(nodes: list[onnx.NodeProto], lines: list[str]) -> None:
    """Fill the empty ``lines`` from producers (in list order, which is topological), then from consumers."""
    made_by: dict[str, str] = {}
    for index, node in enumerate(nodes):
        lines[index] = lines[index] or next((made_by[name] for name in node.input if made_by.get(name)), "")
        made_by |= dict.fromkeys(node.output, lines[index])
    read_by: dict[str, str] = {}
    for index in range(len(nodes) - 1, -1, -1):
        lines[index] = lines[index] or next((read_by[name] for name in nodes[index].output if read_by.get(name)), "")
        if lines[index]:
            read_by |= dict.fromkeys(nodes[index].input, lines[index])


def _any_line(trace: str) -> str:
    frames = _FRAME.findall(trace)
    return f"{_place(frames[-1][0])}:{frames[-1][1]} in {frames[-1][2]}" if frames else ""


@cache
def _is_machinery(filename: str) -> bool:
    """Whether ``filename`` is the exporter's or Python's own, and no place where a person would change a network."""
    path = Path(filename)
    installed = _below_site_packages(path)
    if installed is not None or not path.is_absolute():
        return (installed or path).parts[0] in _MACHINERY or filename.startswith("<")
    return path.is_relative_to(_STDLIB) or path.name == "torch_to_onnx.py"


@cache
def _place(filename: str) -> str:
    """``filename`` without what belongs to this machine: from its package on, or relative to the working folder."""
    path = Path(filename)
    installed = _below_site_packages(path)
    if installed is not None:
        return installed.as_posix()
    if path.is_relative_to(Path.cwd()):
        return path.relative_to(Path.cwd()).as_posix()
    folder = path.parent
    while (folder / "__init__.py").is_file() and folder != folder.parent:
        folder = folder.parent
    return path.relative_to(folder).as_posix()


def _below_site_packages(path: Path) -> Path | None:
    for parent in path.parents:
        if parent.name in ("site-packages", "dist-packages"):
            return path.relative_to(parent)
    return None
