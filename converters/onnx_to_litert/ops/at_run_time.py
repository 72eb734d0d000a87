"""Shape ops whose axes, bounds or amounts are computed by the network: the operand vectors are made at run time."""

from __future__ import annotations

import numpy as np

from edgekit.converters.onnx_to_litert.builder import Builder
from edgekit.converters.onnx_to_litert.graph import Tensor
from edgekit.converters.onnx_to_litert.node import Node, Refused
from edgekit.converters.onnx_to_litert.sizes import int32_vector, iota, vector_length
from edgekit.converters.onnx_to_litert.view import View, store

__all__ = ["pad_amounts", "slice_bounds", "slice_by", "split_by", "squeeze_by", "unsqueeze_by"]

_END = 2**31 - 1


def _unknown(b: Builder, count: int) -> tuple[int, ...]:
    return tuple(b.new_dim() for _ in range(count))


def _axes_of(b: Builder, node: Node, index: int, rank: int) -> Tensor:
    """The axes (operand ``index``) as int32, none negative; without that operand 0, 1, ..."""
    if not node.has_input(index):
        return iota(b, vector_length(node.view(1), "bounds"))
    axes = b.cast(store(b, node.view(index)), np.int32)
    if axes.rank == 0:
        axes = b.reshape(axes, (1,))
    if axes.data is not None:
        return b.const((axes.data % rank).astype(np.int32))
    return b.binary("FLOOR_MOD", axes, b.scalar(rank, axes))


def _chosen(b: Builder, axes: Tensor, rank: int) -> Tensor:
    """(number of axes, rank) int32: 1 where the row's axis is the column."""
    count = axes.shape[0]
    if axes.data is not None:
        return b.const((axes.data[:, None] == np.arange(rank)).astype(np.int32))
    same = b.binary("EQUAL", b.reshape(axes, (count, 1)), b.const(np.arange(rank, dtype=np.int32)[None]), np.bool_)
    return b.cast(same, np.int32)


def _spread(b: Builder, values: Tensor, chosen: Tensor, default: int) -> Tensor:
    """A vector with ``values`` at their axes and ``default`` at the others."""
    count = chosen.shape[0]
    placed = b.reduce("SUM", b.binary("MUL", chosen, b.reshape(values, (count, 1))), [0], keep=False)
    if default == 0:
        return placed
    found = b.binary("GREATER", b.reduce("SUM", chosen, [0], keep=False), b.scalar(0, chosen), np.bool_)
    return b.emit("SELECT_V2", [found, placed, b.scalar(default, placed)], placed.shape, np.int32)


def slice_bounds(b: Builder, node: Node, rank: int) -> list[Tensor]:
    """Slice's begin, end and stride for every ONNX axis, as int32 vectors."""
    count = vector_length(node.view(1), "bounds")
    chosen = _chosen(b, _axes_of(b, node, 3, rank), rank)
    steps = int32_vector(b, node.view(4)) if node.has_input(4) else b.const(np.ones(count, np.int32))
    operands = int32_vector(b, node.view(1)), int32_vector(b, node.view(2)), steps
    return [_spread(b, values, chosen, default) for values, default in zip(operands, (0, _END, 1), strict=True)]


def slice_by(b: Builder, node: Node, x: View) -> View:
    """Slice with bounds computed at run time -> STRIDED_SLICE."""
    bounds = slice_bounds(b, node, x.rank)
    axes = None
    if not node.has_input(3):
        axes = list(range(vector_length(node.view(1), "bounds")))
    elif (data := node.view(3).const) is not None:
        axes = [int(axis) % x.rank for axis in data.reshape(-1)]
    if not x.is_identity:
        places = b.const(np.array(x.order, np.int32))
        bounds = [b.emit("GATHER", [vector, places], (x.rank,), np.int32, axis=0) for vector in bounds]
    shape = tuple(
        dim if axes is not None and axis not in axes else b.new_dim()
        for axis, dim in zip(x.order, x.tensor.shape, strict=True)
    )
    return x.with_tensor(b.emit("STRIDED_SLICE", [x.tensor, *bounds], shape, x.dtype))


def split_by(b: Builder, node: Node, x: View, at: int) -> list[View]:
    """Split into sizes computed at run time -> SPLIT_V."""
    sizes = int32_vector(b, node.view(1))
    count = vector_length(node.view(1), "sizes")
    axis = b.const(np.array(at, np.int32))
    shapes = [(*x.tensor.shape[:at], b.new_dim(), *x.tensor.shape[at + 1 :]) for _ in range(count)]
    made = b.emit_many("SPLIT_V", [x.tensor, sizes, axis], [(shape, x.dtype) for shape in shapes], numSplits=count)
    return [x.with_tensor(tensor) for tensor in made]


def pad_amounts(b: Builder, node: Node, rank: int) -> Tensor:
    """Pad's amounts, computed at run time, as the int32 matrix (rank, 2) that PAD takes."""
    count = vector_length(node.view(1), "amounts") // 2
    pairs = b.transpose(b.reshape(int32_vector(b, node.view(1)), (2, count)), (1, 0))
    if not node.has_input(3):
        if count != rank:
            raise Refused(f"it has amounts for {count} axes, its input has {rank}")
        return pairs
    chosen = _chosen(b, _axes_of(b, node, 3, rank), rank)
    columns = [b.strided_slice(pairs, [0, side], [count, side + 1], [1, 1]) for side in (0, 1)]
    full = [b.reshape(_spread(b, column, chosen, 0), (rank, 1)) for column in columns]
    return b.concat(full, 1)


def unsqueeze_by(b: Builder, node: Node, x: View) -> View:
    """Unsqueeze at axes computed at run time: the new shape is worked out from the old one."""
    rank = x.rank + vector_length(node.view(1), "axes")
    is_new = _any_of(b, _chosen(b, _axes_of(b, node, 1, rank), rank))
    old = b.emit("CUMSUM", [b.cast(b.unary("LOGICAL_NOT", is_new), np.int32), b.const(np.array(0, np.int32))],
                 (rank,), np.int32)  # fmt: skip
    places = b.binary("MAXIMUM", b.binary("SUB", old, b.scalar(1, old)), b.scalar(0, old))
    tensor = store(b, x)
    if x.rank == 0:
        return View.of(b.reshape(tensor, (1,) * rank))
    dims = b.emit("GATHER", [b.shape_of(tensor), places], (rank,), np.int32, axis=0)
    target = b.emit("SELECT_V2", [is_new, b.scalar(1, dims), dims], (rank,), np.int32)
    return View.of(b.reshape_to(tensor, target, _unknown(b, rank)))


def squeeze_by(b: Builder, node: Node, x: View) -> View:
    """Squeeze of axes computed at run time: the sizes of the others are gathered."""
    rank = x.rank - vector_length(node.view(1), "axes")
    dropped = _any_of(b, _chosen(b, _axes_of(b, node, 1, x.rank), x.rank))
    found = b.emit("WHERE", [b.unary("LOGICAL_NOT", dropped)], (rank, 1), np.int64)
    places = b.cast(b.reshape(found, (rank,)), np.int32)
    tensor = store(b, x)
    target = b.emit("GATHER", [b.shape_of(tensor), places], (rank,), np.int32, axis=0)
    return View.of(b.reshape_to(tensor, target, _unknown(b, rank)))


def _any_of(b: Builder, chosen: Tensor) -> Tensor:
    """Which columns of a 0/1 matrix have a 1."""
    total = b.reduce("SUM", chosen, [0], keep=False)
    return b.binary("GREATER", total, b.scalar(0, total), np.bool_)
