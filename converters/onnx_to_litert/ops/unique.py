"""Unique: every element, or slice, is compared with every other, which suits the short vectors it is used for."""

from __future__ import annotations

import numpy as np

from edgekit.converters.onnx_to_litert.builder import Builder
from edgekit.converters.onnx_to_litert.graph import Tensor, is_static
from edgekit.converters.onnx_to_litert.node import Node, Refused
from edgekit.converters.onnx_to_litert.sizes import iota
from edgekit.converters.onnx_to_litert.view import View, store

__all__ = ["unique"]

#: n elements take n * n comparisons
_MOST = 4096


def unique(b: Builder, node: Node) -> list[View]:
    """Unique: the values, where each stands first, which of them each element is, and how often each occurs."""
    x = node.view(0)
    if not is_static(x.shape):
        raise Refused("it needs a fixed shape", "Fix the input's shape with --shape.")
    axis = node.integer("axis", 0) % max(x.rank, 1) if node.has("axis") else None
    rows = _rows(b, x, axis)
    count, width = rows.shape
    if count > _MOST:
        raise Refused(f"comparing {count} elements with each other takes too long")
    if node.integer("sorted", 1) and width > 1:
        raise Refused("LiteRT cannot sort slices", "Use sorted=0, or no axis.")
    same = _equal_rows(b, rows)
    last = b.const(np.array(1, np.int32))
    first = b.emit("ARG_MAX", [b.cast(same, np.int32), last], (count,), np.int32, outputType="INT32")
    is_first = b.binary("EQUAL", first, iota(b, count), np.bool_)
    size = b.new_dim()
    found = b.emit("WHERE", [is_first], (size, 1), np.int64)
    starts = b.cast(b.emit("SQUEEZE", [found], (size,), np.int64, squeezeDims=[1]), np.int32)
    total = b.reduce("SUM", b.cast(same, np.int32), [1], keep=False)
    ranks = b.emit("CUMSUM", [b.cast(is_first, np.int32), b.const(np.array(0, np.int32))], (count,), np.int32)
    ranks = b.binary("SUB", ranks, b.scalar(1, ranks))
    if node.integer("sorted", 1):
        flat = b.reshape(rows, (count,))
        starts = _sorted_starts(b, flat, starts, size)
        smaller = _smaller(b, flat)
        fresh = b.binary("MUL", b.cast(smaller, np.int32), b.reshape(b.cast(is_first, np.int32), (1, count)))
        ranks = b.reduce("SUM", fresh, [1], keep=False)
    inverse = b.emit("GATHER", [ranks, first], (count,), np.int32, axis=0)
    occurrences = b.emit("GATHER", [total, starts], (size,), np.int32, axis=0)
    values = _values(b, x, axis, starts, size)
    return [values, *(View.of(b.cast(tensor, np.int64)) for tensor in (starts, inverse, occurrences))]


def _rows(b: Builder, x: View, axis: int | None) -> Tensor:
    """The elements as a column, or the slices along ``axis`` as rows."""
    if axis is None:
        return b.reshape(store(b, x), (int(np.prod(x.shape)), 1))
    order = (axis, *(at for at in range(x.rank) if at != axis))
    tensor = store(b, x, order)
    return b.reshape(tensor, (tensor.shape[0], int(np.prod(tensor.shape[1:]))))


def _equal_rows(b: Builder, rows: Tensor) -> Tensor:
    count, width = rows.shape
    pair = b.binary("EQUAL", b.reshape(rows, (count, 1, width)), b.reshape(rows, (1, count, width)), np.bool_)
    return b.reduce("REDUCE_ALL", pair, [2], keep=False)


def _smaller(b: Builder, flat: Tensor) -> Tensor:
    """(i, j): whether element j is smaller than element i."""
    count = flat.shape[0]
    return b.binary("GREATER", b.reshape(flat, (count, 1)), b.reshape(flat, (1, count)), np.bool_)


def _sorted_starts(b: Builder, flat: Tensor, starts: Tensor, size: int) -> Tensor:
    """``starts`` in the order of the values there: the largest of the negated come first."""
    if flat.dtype.kind not in "fi":
        raise Refused(f"LiteRT cannot sort {flat.dtype.name} upwards", "Cast to int32 or float32.")
    values = b.emit("GATHER", [flat, starts], (size,), flat.dtype, axis=0)
    length = b.reshape(b.emit("SHAPE", [values], (1,), np.int32, outType="INT32"), ())
    negated = b.unary("NEG", values)
    _, order = b.emit_many("TOPK_V2", [negated, length], [((size,), flat.dtype), ((size,), np.dtype(np.int32))])
    return b.emit("GATHER", [starts, order], (size,), np.int32, axis=0)


def _values(b: Builder, x: View, axis: int | None, starts: Tensor, size: int) -> View:
    if axis is None:
        flat = b.reshape(store(b, x), (int(np.prod(x.shape)),))
        return View.of(b.emit("GATHER", [flat, starts], (size,), x.dtype, axis=0))
    at = x.axis(axis)
    shape = (*x.tensor.shape[:at], size, *x.tensor.shape[at + 1 :])
    return x.with_tensor(b.emit("GATHER", [x.tensor, starts], shape, x.dtype, axis=at))
