"""Cutting a network into stages, one behind the other."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgekit import isolate
from edgekit.artifacts import OnnxModel
from edgekit.converters.fix_shapes import fix_shapes
from edgekit.converters.onnx_model import describe, parse_onnx
from edgekit.errors import BadModel, BadRecipe, UnknownName
from edgekit.graph.cut import cut, reads

if TYPE_CHECKING:
    import onnx

__all__ = ["split_stages", "with_fixed_shapes"]

#: level of a value that the network's inputs give by nodes of which no cut tensor depends: any stage may compute it
_FREE = -1
_NAMED = 8


def with_fixed_shapes(model: OnnxModel, shapes: Mapping[str, tuple[int, ...]]) -> OnnxModel:
    """``model`` with the inputs ``shapes`` fixed, the shapes of inner values inferred and Shape nodes of known result
    made constants: those would read a value of the first stage in all others.

    Raises UnknownName and BadRecipe for shapes that do not fit, BadModel for an inconsistent graph.
    """
    proto = parse_onnx(model.data)
    fix_shapes(proto, shapes)
    data = isolate.call(f"{__name__}:_inferred", proto.SerializeToString(), subject="Inferring the shapes of the model")
    assert isinstance(data, bytes)
    proto = parse_onnx(data)
    _fold_shapes(proto.graph)
    return describe(proto)


def _inferred(data: bytes) -> bytes:
    import onnx

    try:
        return bytes(onnx.shape_inference.infer_shapes(data, data_prop=True).SerializeToString())
    except onnx.shape_inference.InferenceError as error:
        raise BadModel(f"The shapes of the graph are inconsistent: {error}.") from error


def _fold_shapes(graph: onnx.GraphProto) -> None:
    from onnx import numpy_helper

    known = {value.name: value.type.tensor_type.shape for value in (*graph.input, *graph.value_info, *graph.output)
             if value.type.tensor_type.HasField("shape")}
    ends = {value.name for value in graph.output}
    for node in [node for node in graph.node if node.op_type == "Shape" and not node.domain]:
        dims = [dim.dim_value if dim.HasField("dim_value") else -1
                for dim in (known[node.input[0]].dim if node.input[0] in known else ())]
        if node.input[0] not in known or min(dims, default=0) < 0 or node.output[0] in ends:
            continue
        window = {attribute.name: attribute.i for attribute in node.attribute}
        sizes = np.array(dims[window.get("start", 0):window.get("end", len(dims))], np.int64)
        graph.initializer.append(numpy_helper.from_array(sizes, node.output[0]))
        graph.node.remove(node)


def split_stages(model: OnnxModel, at: Sequence[str]) -> tuple[OnnxModel, ...]:
    """``model`` cut at the tensors ``at``, in the order of the network: one stage more than there are tensors.

    A stage takes the tensor before it and whatever inputs of the network it reads itself; it gives the tensor behind it
    and those outputs of the network that depend on no later cut. All stages in a row compute each node once.

    Raises UnknownName for a tensor that the graph does not compute, BadRecipe for one that is given twice, that is an
    end of the network, that does not depend on the one before, or past which a later stage would need another value.
    """
    graph = parse_onnx(model.data).graph
    cuts = _ordered(graph, at)
    levels = _levels(graph, cuts)
    groups: list[list[str]] = [[name] for name in cuts] + [[]]
    for value in graph.output:
        if value.name not in cuts:
            groups[max(levels.get(value.name, 0), 0)].append(value.name)
    if not groups[-1]:
        raise BadRecipe(f"Nothing is computed behind the tensor '{cuts[-1]}'.", "Cut at an earlier one.")
    return tuple(_stage(model, graph, list(start), ends) for start, ends in zip(["", *cuts], groups, strict=True)
                 for start in [[start] if start else []])


def _stage(model: OnnxModel, graph: onnx.GraphProto, start: list[str], ends: list[str]) -> OnnxModel:
    _, met = _reach(graph, ends, start)
    return cut(model, [*start, *(spec.name for spec in model.inputs if spec.name in met and spec.name not in start)],
               ends)


def _ordered(graph: onnx.GraphProto, at: Sequence[str]) -> list[str]:
    """``at`` as the nodes come."""
    made = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    ends = {value.name for value in graph.input}
    for name in at:
        if name in ends:
            raise BadRecipe(f"The tensor '{name}' is an input of the network: there is nothing in front of it.",
                            "Cut at a tensor that a node computes.")
        if name not in made:
            near = difflib.get_close_matches(name, made, _NAMED, 0.0)
            raise UnknownName(f"Unknown tensor '{name}'.", f"Of the {len(made)} tensors the nearest by name are: "
                                                           f"{', '.join(near) or 'none'}.")
        if at.count(name) > 1:
            raise BadRecipe(f"The tensor '{name}' is given twice.", "Name each tensor to cut at once.")
    return sorted(at, key=made.__getitem__)


def _reach(graph: onnx.GraphProto, ends: Iterable[str], starts: Collection[str] = ()) -> tuple[set[int], set[str]]:
    """Indices of the nodes that ``ends`` need, going back no further than ``starts``, and all names they read."""
    met = set(ends)
    needed = set()
    for index in range(len(graph.node) - 1, -1, -1):  # definitions come before uses
        node = graph.node[index]
        if any(name in met and name not in starts for name in node.output):
            needed.add(index)
            met |= reads(node)
    return needed, met


def _levels(graph: onnx.GraphProto, cuts: list[str]) -> dict[str, int]:
    """By value: how many of ``cuts`` were passed on the way to it, or _FREE; constants are left out.

    Raises BadRecipe where a node needs a value from before the last cut that it depends on.
    """
    weights = {tensor.name for tensor in graph.initializer}
    level = {value.name: _FREE for value in graph.input if value.name not in weights}
    number = {name: index + 1 for index, name in enumerate(cuts)}
    before, _ = _reach(graph, cuts)
    needed, _ = _reach(graph, [*cuts, *(value.name for value in graph.output)])
    for index in sorted(needed):
        node = graph.node[index]
        read = {name: level[name] for name in sorted(reads(node)) if name in level}
        if not read:
            continue
        own = max(*read.values(), 0 if index in before else _FREE)
        around = [name for name, at in read.items() if _FREE < at < own]
        if around:
            raise BadRecipe(
                f"The tensor '{cuts[own - 1]}' does not carry all that comes behind it: '{node.name or node.output[0]}' "
                f"({node.op_type}) also reads '{"', '".join(around)}'.",
                "Cut at a tensor that alone carries everything; where only a size is read, fix the shapes.")
        for name in node.output:
            level[name] = number.get(name, own)
            if name in number and own != number[name] - 1:
                raise BadRecipe(f"The tensor '{name}' does not depend on '{cuts[number[name] - 2]}'.",
                                "Name tensors of which each is computed from the one before.")
    return level
