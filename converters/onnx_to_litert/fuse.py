"""Rewrites on the LiteRT graph: each takes the graph, returns how many places it changed."""

from __future__ import annotations

import numpy as np

from edgekit.artifacts import Array
from edgekit.converters.onnx_to_litert.broadcasts import drop_broadcasts, fold_channel_order
from edgekit.converters.onnx_to_litert.channel_order import track_channels
from edgekit.converters.onnx_to_litert.fold_scale import fold_scale_into_dense
from edgekit.converters.onnx_to_litert.graph import Graph, Op, Tensor, is_static, walk
from edgekit.converters.onnx_to_litert.merge_factors import merge_factors
from edgekit.converters.onnx_to_litert.quantized import fuse_quantized
from edgekit.converters.onnx_to_litert.reuse_concat import reuse_concat
from edgekit.converters.onnx_to_litert.shuffle import split_shuffles
from edgekit.errors import InternalError

__all__ = [
    "FUSIONS",
    "absorb_flatten_order",
    "drop_dead_ops",
    "drop_kept_axes",
    "fold_affine_into_dense",
    "fuse",
    "fuse_activations",
    "fuse_bias",
]

_TAKES_ACTIVATION = frozenset({
    "ADD", "SUB", "MUL", "DIV", "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "MAX_POOL_2D", "AVERAGE_POOL_2D",
})  # fmt: skip
_ACTIVATIONS = frozenset({"RELU", "RELU6", "RELU_N1_TO_1"})
_HAS_BIAS = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"})


def drop_dead_ops(graph: Graph) -> int:
    """Remove ops whose results nobody reads.

    before: a = SHAPE(x); y = RELU(x) -> output       after: y = RELU(x) -> output
    """
    needed = {id(tensor) for tensor in graph.outputs}
    kept: list[Op] = []
    for op in reversed(graph.ops):
        if any(id(tensor) in needed for tensor in op.outputs):
            kept.append(op)
            needed.update(id(tensor) for tensor in op.inputs if tensor is not None)
    dropped = len(graph.ops) - len(kept)
    graph.ops = kept[::-1]
    return dropped


def fold_affine_into_dense(graph: Graph) -> int:
    """Multiply the scale and shift in front of dense layers (those of a LayerNorm) into their weights and biases.

    before: t = MUL(x, c); u = ADD(t, d); y = FULLY_CONNECTED(u, w, b)
    after:  y = FULLY_CONNECTED(x, w * c, b + w d)          where nothing but such layers reads u
    """
    producers, readers = _producers(graph), graph.consumers()
    outputs = {id(tensor) for tensor in graph.outputs}
    changed = 0
    for add in [op for op in graph.ops if op.kind == "ADD" and not op.options]:
        shifted, shift = _per_channel(add)
        scale_op = None if shifted is None else producers.get(id(shifted))
        if shift is None or scale_op is None or scale_op.kind != "MUL" or scale_op.options or id(shifted) in outputs:
            continue
        source, scale = _per_channel(scale_op)
        dense = readers.get(id(add.outputs[0]), [])
        alone = len(readers.get(id(shifted), ())) == 1 and id(add.outputs[0]) not in outputs
        if source is None or scale is None or not alone or not dense:
            continue
        if not all(_is_plain_dense(op, add) for op in dense):
            continue
        for op in dense:
            weights, bias = op.inputs[1], op.inputs[2]
            if weights is None or weights.data is None or bias is None or bias.data is None:
                raise InternalError("A dense layer lost its constants.")
            shift_out = weights.data.astype(np.float64) @ shift
            op.inputs[0] = source
            op.inputs[1] = Tensor(weights.name, weights.dtype, weights.shape, (weights.data * scale).astype(np.float32))
            op.inputs[2] = Tensor(bias.name, bias.dtype, bias.shape, (bias.data + shift_out).astype(np.float32))
        changed += 1
    if changed:
        drop_dead_ops(graph)
    return changed


def _per_channel(op: Op) -> tuple[Tensor | None, Array | None]:
    """The value and the constant along its last axis that ``op`` combines; (None, None) if it is something else."""
    for value, constant in (op.inputs, op.inputs[::-1]):
        if value is None or constant is None or constant.data is None or value.data is not None:
            continue
        along = value.rank > 0 and constant.data.shape[-1:] == value.shape[-1:] == (constant.data.size,)
        if along and constant.data.dtype == np.float32 and op.outputs[0].rank == value.rank:
            return value, constant.data.reshape(-1)
    return None, None


def _is_plain_dense(op: Op, before: Op) -> bool:
    """Whether ``op`` is a FULLY_CONNECTED with float constants that reads the result of ``before`` as its data."""
    if op.kind != "FULLY_CONNECTED" or op.inputs[0] is not before.outputs[0]:
        return False
    weights, bias = op.inputs[1], op.inputs[2]
    known = weights is not None and weights.data is not None and bias is not None and bias.data is not None
    return known and weights is not None and weights.stored is None and weights.dtype == np.float32


def fuse_bias(graph: Graph) -> int:
    """Add a constant per output channel into the bias.

    before: t = FULLY_CONNECTED(x, w, b); y = ADD(t, c)        after: y = FULLY_CONNECTED(x, w, b + c)
    """
    producers, readers = _producers(graph), graph.consumers()
    outputs = {id(tensor) for tensor in graph.outputs}
    dropped: set[int] = set()
    for op in graph.ops:
        if op.kind != "ADD" or op.options:
            continue
        for value, addend in (op.inputs, op.inputs[::-1]):
            if value is None or addend is None or addend.data is None or addend.data.dtype != np.float32:
                continue
            source = producers.get(id(value))
            if source is None or source.kind not in _HAS_BIAS or source.options.get("fusedActivationFunction"):
                continue
            bias = source.inputs[2]
            channels = value.shape[-1]
            per_channel = addend.data.size == 1 or (addend.data.size == channels == addend.data.shape[-1])
            alone = len(readers.get(id(value), ())) == 1 and id(value) not in outputs
            if bias is None or bias.data is None or not per_channel or not alone or op.outputs[0].rank != value.rank:
                continue
            source.inputs[2] = Tensor(bias.name, bias.dtype, bias.shape, bias.data + addend.data.reshape(-1))
            source.outputs[0] = op.outputs[0]
            producers[id(op.outputs[0])] = source
            dropped.add(id(op))
            break
    graph.ops = [op for op in graph.ops if id(op) not in dropped]
    return len(dropped)


def fuse_activations(graph: Graph) -> int:
    """Let the op before an activation apply it.

    before: t = CONV_2D(x, w, b); y = RELU6(t)        after: y = CONV_2D(x, w, b, fused RELU6)
    A RESHAPE between the two stays, behind the activation.
    """
    producers, readers = _producers(graph), graph.consumers()
    outputs = {id(tensor) for tensor in graph.outputs}
    dropped: set[int] = set()

    def maker(value: Tensor | None) -> Op | None:
        """The op that makes ``value`` for one reader alone."""
        alone = value is not None and len(readers.get(id(value), ())) == 1 and id(value) not in outputs
        return producers.get(id(value)) if alone else None

    for op in graph.ops:
        value = op.inputs[0] if op.kind in _ACTIVATIONS else None
        before = source = maker(value)
        while source is not None and source.kind == "RESHAPE":  # it lies between a Conv of one axis and what follows
            source = maker(source.inputs[0])
        if value is None or before is None or source is None or source.kind not in _TAKES_ACTIVATION:
            continue
        if value.dtype != np.float32 or "fusedActivationFunction" in source.options:
            continue
        source.options["fusedActivationFunction"] = op.kind
        before.outputs[0] = op.outputs[0]
        producers[id(op.outputs[0])] = before
        dropped.add(id(op))
    graph.ops = [op for op in graph.ops if id(op) not in dropped]
    return len(dropped)


def drop_kept_axes(graph: Graph) -> int:
    """Let a reduction drop its axes itself instead of keeping them for a RESHAPE.

    before: t = MEAN(x, (1, 2), keep); y = RESHAPE(t, (n, c))        after: y = MEAN(x, (1, 2))
    """
    producers, readers = _producers(graph), graph.consumers()
    outputs = {id(tensor) for tensor in graph.outputs}
    dropped: set[int] = set()
    for op in graph.ops:
        kept = op.inputs[0] if op.kind == "RESHAPE" else None
        source = None if kept is None else producers.get(id(kept))
        if kept is None or source is None or not source.options.get("keepDims") or id(kept) in outputs:
            continue
        axes = source.inputs[1]
        if axes is None or axes.data is None or len(readers[id(kept)]) != 1:
            continue
        reduced = {int(axis) for axis in axes.data}
        if op.outputs[0].shape == tuple(dim for axis, dim in enumerate(kept.shape) if axis not in reduced):
            source.options["keepDims"] = False
            source.outputs[0] = op.outputs[0]
            dropped.add(id(op))
    graph.ops = [op for op in graph.ops if id(op) not in dropped]
    return len(dropped)


def absorb_flatten_order(graph: Graph) -> int:
    """Permute the columns of a weight matrix instead of the data that is flattened in front of it.

    before: t = TRANSPOSE(x, (0, 3, 1, 2)); r = RESHAPE(t, (n, k)); y = FULLY_CONNECTED(r, w)
    after:  r = RESHAPE(x, (n, k)); y = FULLY_CONNECTED(r, w with its columns in the order of x)
    """
    producers, readers = _producers(graph), graph.consumers()
    outputs = {id(tensor) for tensor in graph.outputs}

    def before(tensor: Tensor | None, kind: str) -> Op | None:
        """The op that makes ``tensor`` for one reader alone, if it is a ``kind``."""
        op = None if tensor is None else producers.get(id(tensor))
        alone = op is not None and len(readers[id(tensor)]) == 1 and id(tensor) not in outputs
        return op if op is not None and alone and op.kind == kind else None

    changed = 0
    for op in graph.ops:
        weights = op.inputs[1] if op.kind == "FULLY_CONNECTED" else None
        flatten = before(op.inputs[0], "RESHAPE") if weights is not None and weights.data is not None else None
        move = None if flatten is None else before(flatten.inputs[0], "TRANSPOSE")
        if weights is None or weights.data is None or flatten is None or move is None:
            continue
        source, perm = move.inputs[0], move.inputs[1]
        if source is None or perm is None or perm.data is None or perm.data[0] != 0:
            continue
        inner = move.outputs[0].shape[1:]
        if not is_static(inner) or flatten.outputs[0].rank != 2 or weights.shape[1] != int(np.prod(inner)):
            continue
        back = np.argsort(perm.data[1:] - 1)
        columns = weights.data.reshape(weights.shape[0], *inner).transpose(0, *(1 + back))
        op.inputs[1] = Tensor(
            weights.name, weights.dtype, weights.shape, np.ascontiguousarray(columns).reshape(weights.shape)
        )
        flatten.inputs[0] = source
        changed += 1
    if changed:
        drop_dead_ops(graph)
    return changed


def _producers(graph: Graph) -> dict[int, Op]:
    return {id(tensor): op for op in graph.ops for tensor in op.outputs}


#: dead shape arithmetic first (it would count as a reader), biases before the activations that follow them
FUSIONS = (
    drop_dead_ops,
    drop_kept_axes,
    absorb_flatten_order,
    drop_broadcasts,
    fuse_bias,
    fold_channel_order,
    fold_affine_into_dense,
    fold_scale_into_dense,
    merge_factors,  # after the folding, which removes a constant factor altogether
    fuse_activations,
    fuse_quantized,
    track_channels,
    split_shuffles,
    reuse_concat,
    drop_dead_ops,
)


def fuse(graph: Graph) -> bool:
    """Run the fusions on ``graph`` and the subgraphs that its ops run; whether anything changed."""
    changes = [fusion(part) for part in walk([graph]) for fusion in FUSIONS]
    return sum(changes) > 0
