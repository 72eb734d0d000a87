"""Rewrites of LiteRT ops that only repeat or reorder data which the op next to them can take as it is."""

from __future__ import annotations

import numpy as np

from edgekit.artifacts import Array
from edgekit.converters.onnx_to_litert.graph import Graph, Op, Shape, Tensor, is_static

__all__ = ["drop_broadcasts", "fold_channel_order"]

#: ops that repeat an operand of size 1 by themselves, on up to four axes also in XNNPACK
_BROADCASTING = frozenset({"ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE"})
_MOST_AXES = 4


def drop_broadcasts(graph: Graph) -> int:
    """Let an op that broadcasts take the value before it was repeated, as in ``x / norm.expand_as(x)``.

    before: t = BROADCAST_TO(n, shape of x); y = DIV(x, t)       after: y = DIV(x, n)
    """
    repeated = {id(op.outputs[0]): op.inputs[0] for op in graph.ops if op.kind == "BROADCAST_TO"}
    changed = 0
    for op in graph.ops if repeated else ():
        if op.kind not in _BROADCASTING or op.outputs[0].rank > _MOST_AXES:
            continue
        for at, operand in enumerate(op.inputs[:2]):
            source, other = repeated.get(id(operand)), op.inputs[1 - at]
            if source is None or other is None or source.rank > _MOST_AXES or source.dtype != np.float32:
                continue
            if is_static(op.outputs[0].shape) and _together(source.shape, other.shape) == op.outputs[0].shape:
                op.inputs[at] = source
                changed += 1
    return changed


def _together(a: Shape, b: Shape) -> Shape:
    rank = max(len(a), len(b))
    pairs = zip((1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b, strict=True)
    return tuple(other if dim == 1 else dim for dim, other in pairs)


def fold_channel_order(graph: Graph) -> int:
    """Have a convolution make its channels in the order in which they are picked behind it.

    before: t = CONV_2D(x, w, b); y = GATHER(t, order) along the channels    after: y = CONV_2D(x, w[order], b[order])
    """
    producers = {id(tensor): op for op in graph.ops for tensor in op.outputs}
    readers, outputs = graph.consumers(), {id(tensor) for tensor in graph.outputs}
    gone: set[int] = set()
    for gather in [op for op in graph.ops if op.kind == "GATHER"]:
        made, places = gather.inputs[0], gather.inputs[1]
        conv = producers.get(id(made))
        if conv is None or made is None or places is None or places.data is None or places.rank != 1:
            continue
        alone = len(readers[id(made)]) == 1 and id(made) not in outputs
        if alone and conv.kind == "CONV_2D" and gather.options.get("axis") == 3 and _reorder(conv, places.data):
            conv.outputs[0] = gather.outputs[0]
            gone.add(id(gather))
    graph.ops = [op for op in graph.ops if id(op) not in gone]
    return len(gone)


def _reorder(conv: Op, places: Array) -> bool:
    """Put the output channels of ``conv`` in the order ``places``; False where they are not plain float constants."""
    operands = conv.inputs[1:]
    if places.size != conv.outputs[0].shape[3] or not all(_is_plain(tensor) for tensor in operands):
        return False
    for at, tensor in enumerate(operands, 1):
        if tensor is not None and tensor.data is not None:
            conv.inputs[at] = Tensor(tensor.name, tensor.dtype, tensor.shape, np.ascontiguousarray(tensor.data[places]))
    return True


def _is_plain(tensor: Tensor | None) -> bool:
    return tensor is not None and tensor.data is not None and tensor.dtype == np.float32 and tensor.stored is None
