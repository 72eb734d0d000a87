"""What the passes on LSTM, GRU and RNN share: following their output through layout ops, constants behind nodes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgekit.artifacts import Array
from edgekit.converters.passes.match import const_of, sole_reader

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["folded", "given", "static_dim", "trail"]


_DEEPEST = 64


def given(node: ir.Node, index: int) -> ir.Value | None:
    """The input ``index``, None when it is left out."""
    return node.inputs[index] if index < len(node.inputs) else None


def static_dim(value: ir.Value | None, axis: int) -> int | None:
    """The size of an axis where the file or shape inference states it."""
    if value is None or value.shape is None or axis >= len(value.shape):
        return None
    dim = value.shape[axis]
    return dim if isinstance(dim, int) and dim >= 0 else None


def folded(value: ir.Value | None, opset: int) -> Array | None:
    """The array of ``value`` if constants alone determine it, by at most ``_DEEPEST`` nodes in a row, else None."""
    return _folded(value, opset, {}, _DEEPEST)


def _folded(value: ir.Value | None, opset: int, known: dict[ir.Value, Array | None], depth: int) -> Array | None:
    """``known``: what was found already, since a value may be read along very many ways."""
    if value is None:
        return None
    if value not in known:
        known[value] = _computed(value, opset, known, depth)
    return known[value]


def _computed(value: ir.Value, opset: int, known: dict[ir.Value, Array | None], depth: int) -> Array | None:
    from edgekit.converters.onnx_to_litert.folding import fold

    data = const_of(value)
    node = None if data is not None else value.producer()
    if node is None or node.domain or not node.inputs or depth == 0:
        return data
    inputs: list[Array | None] = []
    for operand in node.inputs:
        inputs.append(_folded(operand, opset, known, depth - 1))
        if operand is not None and inputs[-1] is None:
            return None
    results = fold(node, inputs, opset)
    return None if results is None else results[node.outputs.index(value)]


def trail(node: ir.Node, opset: int) -> Iterator[tuple[ir.Value, str]]:
    """The output Y of a recurrent ``node`` of one direction and the values that are Y in another layout.

    Each comes with a letter for each of its axes: T(ime), D(irection, always 1), B(atch), H(idden). It ends where
    somebody else reads the value too.
    """
    batch_first = bool(node.attributes.get_int("layout", 0))
    value, axes = node.outputs[0], "BTDH" if batch_first else "TDBH"
    first = node.inputs[0]
    sizes = {"T": static_dim(first, int(batch_first)), "B": static_dim(first, 1 - int(batch_first)), "D": 1}
    sizes["H"] = node.attributes.get_int("hidden_size", 0) or None
    while True:
        yield value, axes
        reader = sole_reader(value)
        after = None if reader is None or reader.domain else _through(reader, axes, sizes, opset)
        if reader is None or after is None or reader.inputs[0] is not value:
            return
        value, axes = reader.outputs[0], after


def _through(node: ir.Node, axes: str, sizes: dict[str, int | None], opset: int) -> str | None:
    """The axes of the result of a layout op; None if ``node`` is none, or not understood."""
    if node.op_type == "Identity":
        return axes
    if node.op_type == "Transpose":
        perm = node.attributes.get_ints("perm", list(reversed(range(len(axes)))))
        return "".join(axes[axis] for axis in perm)
    if node.op_type == "Squeeze":
        data = folded(node.inputs[1], opset) if len(node.inputs) > 1 else None
        dropped = data.reshape(-1).tolist() if data is not None else node.attributes.get_ints("axes", ())
        return axes.replace("D", "") if [axes[axis] for axis in dropped] == ["D"] else None
    if node.op_type == "Reshape" and len(node.inputs) > 1:
        target = folded(node.inputs[1], opset)
        return _without_direction(axes, sizes, [] if target is None else target.tolist())
    return None


def _without_direction(axes: str, sizes: dict[str, int | None], target: list[int]) -> str | None:
    """The axes after a reshape to ``target`` that does nothing but drop the direction; None if it may do more."""
    wanted = axes.replace("D", "")
    if len(target) != len(wanted) or target.count(-1) > 1:
        return None
    for place, (axis, size) in enumerate(zip(wanted, target, strict=True)):
        copied = size == 0 and axes[place] == axis
        if size != -1 and not copied and size != sizes[axis]:
            return None
    return wanted
