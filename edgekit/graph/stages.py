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

#: level of a value that depends on the network's inputs alone and that the first stage does not compute: any other may
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
    left = []
    for node in graph.node:
        shape = known.get(node.input[0]) if node.op_type == "Shape" and not node.domain else None
        if shape is None or node.output[0] in ends or not all(dim.HasField("dim_value") for dim in shape.dim):
            left.append(node)
            continue
        window = {attribute.name: attribute.i for attribute in node.attribute}
        dims = [dim.dim_value for dim in shape.dim][window.get("start", 0):window.get("end", len(shape.dim))]
        graph.initializer.append(numpy_helper.from_array(np.array(dims, np.int64), node.output[0]))
    del graph.node[:]
    graph.node.extend(left)


def split_stages(model: OnnxModel, at: Sequence[str]) -> tuple[OnnxModel, ...]:
    """``model`` cut at the tensors ``at``, in the order of the network: one stage more than there are tensors.

    A stage takes the tensor before it and whatever inputs of the network it reads itself; it gives the tensor behind it
    and those outputs of the network that depend on no later cut.

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
    stages = []
    for start, ends in zip([[], *([name] for name in cuts)], groups, strict=True):
        _, met = _reach(graph, ends, start)
        stages.append(cut(model, [*start, *(spec.name for spec in model.inputs if spec.name in met)], ends))
    return tuple(stages)


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
    first, _ = _reach(graph, cuts[:1])
    needed, _ = _reach(graph, [*cuts, *(value.name for value in graph.output)])
    for index in sorted(needed):
        node = graph.node[index]
        read = {name: level[name] for name in sorted(reads(node)) if name in level}
        if not read:
            continue
        own = max(*read.values(), 0 if index in first else _FREE)
        around = [name for name, at in read.items() if _FREE < at < own]
        if around:
            others = ", ".join(f"'{name}'" for name in around)
            raise BadRecipe(f"The tensor '{cuts[own - 1]}' does not carry all that comes behind it: "
                            f"'{node.name or node.output[0]}' ({node.op_type}) also reads {others}.",
                            "Cut where one tensor carries everything; if only a size is read, fix the shapes.")
        for name in node.output:
            level[name] = number.get(name, own)
            if name in number and own != number[name] - 1:
                raise BadRecipe(f"The tensor '{name}' does not depend on '{cuts[number[name] - 2]}'.",
                                "Name tensors of which each is computed from the one before.")
    return level
