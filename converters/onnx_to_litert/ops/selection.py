"""Picking elements (OneHot, TopK, Hardmax, Compress, NonZero, Trilu, ReverseSequence), ranges, sums along an axis."""

from __future__ import annotations

import numpy as np

from edgekit.converters.onnx_to_litert.builder import Builder
from edgekit.converters.onnx_to_litert.graph import Tensor, is_static
from edgekit.converters.onnx_to_litert.node import Node, Refused
from edgekit.converters.onnx_to_litert.sizes import as_scalar, axis_of, axis_positions
from edgekit.converters.onnx_to_litert.view import View, reshape_view, store

__all__ = [
    "compress",
    "cum_prod",
    "cum_sum",
    "eye_like",
    "hardmax",
    "non_zero",
    "one_hot",
    "range_op",
    "reverse_sequence",
    "top_k",
    "trilu",
]


def one_hot(b: Builder, node: Node) -> View:
    """OneHot -> ONE_HOT; negative indices count from the end, others outside give no one."""
    indices, depth, values = node.view(0), as_scalar(b, node.view(1)), node.view(2)
    places = b.cast(store(b, indices), np.int32)
    negative = b.binary("LESS", places, b.scalar(0, places), np.bool_)
    places = b.emit("SELECT_V2", [negative, b.binary("ADD", places, depth), places], places.shape, np.int32)
    if values.shape != (2,):
        raise Refused(f"its values have the shape {list(values.shape)}, not [2]")
    off, on = (b.reshape(b.strided_slice(values.tensor, [at], [at + 1], [1]), ()) for at in (0, 1))
    axis = node.integer("axis", -1) % (indices.rank + 1)
    size = int(depth.data) if depth.data is not None else b.new_dim()
    shape = (*indices.shape[:axis], size, *indices.shape[axis:])
    return View.of(b.emit("ONE_HOT", [places, depth, on, off], shape, values.dtype, axis=axis))


def top_k(b: Builder, node: Node) -> list[View]:
    """TopK -> TOPK_V2 on the last axis; the smallest are the largest of the negated."""
    x = node.view(0)
    axis = node.integer("axis", -1) % x.rank
    order = x.order if x.order[-1] == axis else (*(a for a in x.order if a != axis), axis)
    tensor = store(b, x, order)
    if node.opset < 10:
        count = b.const(np.array(node.integer("k", 1), np.int32))
    else:
        count = as_scalar(b, node.view(1))
    size = int(count.data) if count.data is not None else b.new_dim()
    smallest = node.opset >= 11 and not node.integer("largest", 1)
    source = _negated(b, tensor) if smallest else tensor
    shape = (*tensor.shape[:-1], size)
    values, indices = b.emit_many("TOPK_V2", [source, count], [(shape, source.dtype), (shape, np.int32)])
    if smallest:
        values = b.cast(b.unary("NEG", values), tensor.dtype)
    return [View(values, order), View(b.cast(indices, np.int64), order)]


def _negated(b: Builder, x: Tensor) -> Tensor:
    """-x in a type that holds it."""
    wide = {"uint8": np.int32, "int8": np.int32, "uint16": np.int32, "int16": np.int32, "uint32": np.int64}
    return b.unary("NEG", b.cast(x, wide.get(x.dtype.name, x.dtype)))


def hardmax(b: Builder, node: Node) -> View:
    """Hardmax: 1 at the first maximum along the axis, else 0."""
    x = node.floats(0)
    first = node.integer("axis", 1 if node.opset < 13 else -1) % x.rank
    if node.opset < 13 and first != x.rank - 1:
        if not is_static(x.shape):
            raise Refused("it flattens dynamic axes", "Fix the input's shape with --shape.")
        shape = x.shape
        flat = reshape_view(b, x, (int(np.prod(shape[:first])), int(np.prod(shape[first:]))))
        return reshape_view(b, View.of(_hardmax(b, store(b, flat))), shape)
    order = x.order if x.order[-1] == first else (*(a for a in x.order if a != first), first)
    return View(_hardmax(b, store(b, x, order)), order)


def _hardmax(b: Builder, x: Tensor) -> Tensor:
    last = b.const(np.array(x.rank - 1, np.int32))
    places = b.emit("ARG_MAX", [x, last], x.shape[:-1], np.int32, outputType="INT32")
    depth = b.reshape(b.dims(x.shape[-1:]), ())
    return b.emit("ONE_HOT", [places, depth, b.scalar(1.0, x), b.scalar(0.0, x)], x.shape, x.dtype, axis=x.rank - 1)


def compress(b: Builder, node: Node) -> View:
    """Compress: the slices where the condition is true -> WHERE and GATHER."""
    x = node.view(0)
    condition = node.view(1).tensor
    count = b.new_dim()
    found = b.emit("WHERE", [condition], (count, 1), np.int64)
    places = b.cast(b.emit("SQUEEZE", [found], (count,), np.int64, squeezeDims=[1]), np.int32)
    if not node.has("axis"):
        flat = b.reshape(store(b, x), (int(np.prod(x.shape)) if is_static(x.shape) else b.new_dim(),))
        return View.of(b.emit("GATHER", [flat, places], (count,), x.dtype, axis=0))
    at = x.axis(node.integer("axis", 0))
    shape = (*x.tensor.shape[:at], count, *x.tensor.shape[at + 1 :])
    return x.with_tensor(b.emit("GATHER", [x.tensor, places], shape, x.dtype, axis=at))


def non_zero(b: Builder, node: Node) -> View:
    """NonZero -> WHERE, which gives one row for each place; ONNX wants one column."""
    x = node.view(0)
    if x.rank == 0:
        raise Refused("the places in a scalar have no coordinates in LiteRT")
    found = b.emit("WHERE", [store(b, x)], (b.new_dim(), x.rank), np.int64)
    return View(found, (1, 0))


def trilu(b: Builder, node: Node) -> View:
    """Trilu: the upper or lower triangle of the last two axes, zeros elsewhere."""
    x = node.view(0)
    tensor = store(b, x)
    rows, columns = (axis_positions(b, tensor.shape[-2:], at) for at in (0, 1))
    shift = as_scalar(b, node.view(1)) if node.has_input(1) else b.const(np.array(0, np.int32))
    upper = bool(node.integer("upper", 1))
    if all(part.data is not None for part in (rows, columns, shift)):
        ahead = b.constant_data(columns) - b.constant_data(rows) - b.constant_data(shift)
        mask = b.const(ahead >= 0 if upper else ahead <= 0)
    else:
        ahead_at = b.binary("SUB", columns, rows)
        mask = b.binary("GREATER_EQUAL" if upper else "LESS_EQUAL", ahead_at, shift, np.bool_)
    return View.of(b.emit("SELECT_V2", [mask, tensor, b.scalar(0, tensor)], tensor.shape, x.dtype))


def eye_like(b: Builder, node: Node) -> View:
    """EyeLike: ones on a diagonal of a matrix of the operand's shape."""
    import onnx_ir as ir

    x = node.view(0)
    dtype = ir.DataType(node.integer("dtype", 1)).numpy() if node.has("dtype") else x.dtype
    rows, columns = (axis_positions(b, x.shape, at) for at in (0, 1))
    shift = node.integer("k", 0)
    if rows.data is not None and columns.data is not None:
        return View.of(b.const((columns.data - rows.data == shift).astype(dtype)))
    ahead = b.binary("SUB", columns, rows)
    mask = b.binary("EQUAL", ahead, b.scalar(shift, ahead), np.bool_)
    return View.of(b.cast(mask, dtype))


def range_op(b: Builder, node: Node) -> View:
    """Range -> RANGE."""
    bounds = [b.reshape(node.view(index).tensor, ()) for index in range(3)]
    return View.of(b.emit("RANGE", bounds, (b.new_dim(),), bounds[0].dtype))


def cum_sum(b: Builder, node: Node) -> View:
    """CumSum -> CUMSUM."""
    x = node.view(0)
    axis = axis_of(node, 1, x.rank)
    options = {"exclusive": bool(node.integer("exclusive", 0)), "reverse": bool(node.integer("reverse", 0))}
    if axis is None:
        tensor = store(b, x)
        return View.of(b.emit("CUMSUM", [tensor, as_scalar(b, node.view(1))], tensor.shape, x.dtype, **options))
    at = b.const(np.array(x.axis(axis), np.int32))
    return x.with_tensor(b.emit("CUMSUM", [x.tensor, at], x.tensor.shape, x.dtype, **options))


def cum_prod(b: Builder, node: Node) -> View:
    """CumProd: in each of log2(n) rounds every element takes in the product of the 1, 2, 4, ... before it."""
    x = node.view(0)
    axis = 0 if x.rank == 1 else axis_of(node, 1, x.rank)
    if axis is None:
        raise Refused("its axis is computed at run time", "Make the axis a constant.")
    at = x.axis(axis)
    size = x.tensor.shape[at]
    if size < 0:
        raise Refused("it runs along a dynamic axis", "Fix the input's shape with --shape.")
    backwards = bool(node.integer("reverse", 0))
    tensor = x.tensor
    if node.integer("exclusive", 0):
        tensor = _shifted(b, tensor, at, 1, backwards)
    step = 1
    while step < size:
        tensor = b.binary("MUL", tensor, _shifted(b, tensor, at, step, backwards))
        step *= 2
    return x.with_tensor(tensor)


def _shifted(b: Builder, x: Tensor, at: int, step: int, backwards: bool) -> Tensor:
    """``x`` moved by ``step`` along a storage axis, ones moving in."""
    size = x.shape[at]
    begin, end, pads = [0] * x.rank, [2**31 - 1] * x.rank, [(0, 0)] * x.rank
    if backwards:
        begin[at], pads[at] = step, (0, step)
    else:
        end[at], pads[at] = size - step, (step, 0)
    return b.pad(b.strided_slice(x, begin, end, [1] * x.rank), pads, 1.0)


def reverse_sequence(b: Builder, node: Node) -> View:
    """ReverseSequence -> REVERSE_SEQUENCE."""
    x = node.view(0)
    time, batch = x.axis(node.integer("time_axis", 0)), x.axis(node.integer("batch_axis", 1))
    lengths = b.cast(node.view(1).tensor, np.int32)
    options = {"seqDim": time, "batchDim": batch}
    return View(b.emit("REVERSE_SEQUENCE", [x.tensor, lengths], x.tensor.shape, x.dtype, **options), x.order)
