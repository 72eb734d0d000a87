"""Read the last step of a recurrent layer from its final state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekit.converters.passes.match import remove, sole_reader
from edgekit.converters.passes.recurrent import folded, given, static_dim, trail

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["last_step"]


def last_step(model: ir.Model) -> tuple[ir.Model, bool]:
    """Forward LSTM, GRU and RNN whose reader takes the last step only; then no loop has to write all steps.

    before: Y = LSTM(x, ...); t = Squeeze(Y, 1); y = Gather(t, -1, axis=0)
    after:  Y, Y_h = LSTM(x, ...); y = Squeeze(Y_h, 0)             (a Transpose or Reshape may lie between)
    """
    opset = model.opset_imports.get("", 0)
    modified = False
    for node in list(model.graph):
        forward = node.attributes.get_string("direction", "forward") == "forward"
        if node.op_type in ("LSTM", "GRU", "RNN") and not node.domain and forward and given(node, 4) is None:
            modified = _rewrite(model, node, opset) or modified
    return model, modified


def _rewrite(model: ir.Model, node: ir.Node, opset: int) -> bool:
    if not node.outputs or not node.outputs[0].name:
        return False
    path = list(trail(node, opset))
    value, axes = path[-1]
    reader = sole_reader(value)
    if reader is None or reader.domain or reader.graph is not node.graph or reader.inputs[0] is not value:
        return False
    wanted = _axes_of_last(reader, axes, static_dim(node.inputs[0], node.attributes.get_int("layout", 0)), opset)
    if wanted is None:
        return False
    _put(model, node, reader, wanted, opset)
    remove(model, [reader, *(made for value, _ in reversed(path[1:]) if (made := value.producer()) is not None)])
    return True


def _axes_of_last(reader: ir.Node, axes: str, length: int | None, opset: int) -> str | None:
    """The axes of what ``reader`` makes if that is the last step; a time axis of size 1 counts as the direction's."""
    last = (-1,) if length is None else (-1, length - 1)
    if reader.op_type == "Gather":
        index = folded(reader.inputs[1], opset)
        along_time = axes[reader.attributes.get_int("axis", 0)] == "T"
        taken = along_time and index is not None and index.ndim == 0 and int(index) in last
        return axes.replace("T", "") if taken else None
    if reader.op_type != "Slice" or "D" in axes or opset < 10 or len(reader.inputs) < 4:
        return None
    arguments = [folded(value, opset) for value in reader.inputs[1:]]
    if any(data is None or data.size != 1 for data in arguments):
        return None
    start, stop, axis_number, *step = (int(data.reshape(-1)[0]) for data in arguments if data is not None)
    reaches = stop >= (2**31 - 1 if length is None else length)
    taken = axes[axis_number] == "T" and start in last and reaches and step in ([], [1])
    return axes.replace("T", "D") if taken else None


def _put(model: ir.Model, node: ir.Node, reader: ir.Node, wanted: str, opset: int) -> None:
    """Let what ``reader`` made, whose axes are ``wanted``, be made from the output Y_h of ``node``."""
    import onnx_ir as ir

    if len(node.outputs) < 2:
        node.resize_outputs(2)
    state = node.outputs[1]
    state.name = state.name or f"{node.outputs[0].name}/last_state"
    axes = "BDH" if node.attributes.get_int("layout", 0) else "DBH"
    perm = [axes.index(axis) for axis in wanted + ("" if "D" in wanted else "D")]
    made = [ir.Node("", "Transpose", [state], [ir.AttrInt64s("perm", perm)], num_outputs=1, name=reader.name)]
    if "D" not in wanted:
        made.append(_squeeze_last(model, made[0].outputs[0], opset))
    for new in made:
        new.outputs[0].name = f"{state.name}/{new.op_type}"
    model.graph.insert_before(reader, made)
    result, last = reader.outputs[0], made[-1].outputs[0]
    result.replace_all_uses_with(last, replace_graph_outputs=True)
    last.name, result.name = result.name, f"{result.name}/before"
    last.shape, last.type = result.shape, result.type


def _squeeze_last(model: ir.Model, value: ir.Value, opset: int) -> ir.Node:
    import numpy as np
    import onnx_ir as ir

    from edgekit.converters.passes.match import add_weight

    if opset < 13:
        return ir.Node("", "Squeeze", [value], [ir.AttrInt64s("axes", [2])], num_outputs=1)
    axes = add_weight(model, "last_axis", np.array([2], np.int64))
    return ir.Node("", "Squeeze", [value, axes], num_outputs=1)
