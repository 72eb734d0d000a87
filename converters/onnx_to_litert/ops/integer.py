"""Quantization by arithmetic (scales computed at run time, along an axis or by blocks), and integer products.

Products of 8-bit integers are summed in float32, which is exact up to 2^24. Where a sum could be larger, the second
operand is taken apart as 16 * high + low, and the two products are put together in int32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from edgekit.artifacts import Array
from edgekit.converters.onnx_to_litert.builder import Builder
from edgekit.converters.onnx_to_litert.graph import DTYPES, Tensor, is_static
from edgekit.converters.onnx_to_litert.node import Node, Refused
from edgekit.converters.onnx_to_litert.ops.conv import conv
from edgekit.converters.onnx_to_litert.ops.matmul import matmul
from edgekit.converters.onnx_to_litert.view import View, identity, reshape_view, store

__all__ = ["conv_integer", "dequantize_computed", "matmul_integer", "quantize_computed"]

#: float32 holds all integers up to it
_EXACT = 2**24
_DIGIT = 16


def quantize_computed(b: Builder, node: Node) -> View:
    """QuantizeLinear: x / scale, rounded, plus the zero point, clipped to the type."""
    x = node.floats(0)
    dtype = _target(node)
    if dtype.name not in DTYPES or dtype.kind not in "iu":
        raise Refused(f"LiteRT does not quantize to {dtype.name}")
    scale = b.cast(_parameter(b, node, 1, x), np.float32)
    value = b.unary("ROUND", b.binary("DIV", store(b, x), scale))
    if node.has_input(2):
        value = b.binary("ADD", value, b.cast(_parameter(b, node, 2, x), np.float32))
    limits = np.iinfo(dtype.name)
    value = b.binary("MINIMUM", b.binary("MAXIMUM", value, b.scalar(limits.min, value)), b.scalar(limits.max, value))
    return View.of(b.cast(value, dtype))


def _target(node: Node) -> np.dtype[np.generic]:
    import onnx_ir as ir

    if node.has_input(2):
        return node.view(2).dtype
    wanted = node.integer("output_dtype", 0)
    return np.dtype(ir.DataType(wanted).numpy() if wanted else np.uint8)


def dequantize_computed(b: Builder, node: Node) -> View:
    """DequantizeLinear: (x - zero point) * scale in float32."""
    x = node.view(0)
    value = b.cast(store(b, x), np.float32)
    if node.has_input(2):
        value = b.binary("SUB", value, b.cast(_parameter(b, node, 2, x), np.float32))
    return View.of(b.binary("MUL", value, b.cast(_parameter(b, node, 1, x), np.float32)))


def _parameter(b: Builder, node: Node, index: int, x: View) -> Tensor:
    """The scale or zero point, shaped to broadcast against ``x`` in its ONNX order."""
    view = node.view(index)
    block = node.integer("block_size", 0)
    if block:
        return _repeated(b, view, node.integer("axis", 1) % x.rank, block, x)
    if view.rank == 0 or view.shape == (1,):
        return b.reshape(store(b, view), ())
    axis = node.integer("axis", 1) % x.rank
    return store(b, reshape_view(b, view, tuple(view.shape[0] if at == axis else 1 for at in range(x.rank))))


def _repeated(b: Builder, view: View, axis: int, block: int, x: View) -> Tensor:
    """A value for each block of ``x`` along ``axis``, repeated over the block."""
    shape = view.shape
    if not is_static(shape) or not is_static(x.shape):
        raise Refused("quantization by blocks needs fixed shapes", "Fix the input's shape with --shape.")
    spread = (*shape[: axis + 1], 1, *shape[axis + 1 :])
    full = (*shape[: axis + 1], block, *shape[axis + 1 :])
    tensor = b.reshape(store(b, view), spread)
    repeated = b.emit("BROADCAST_TO", [tensor, b.dims(full)], full, view.dtype)
    flat = b.reshape(repeated, (*shape[:axis], shape[axis] * block, *shape[axis + 1 :]))
    return b.strided_slice(flat, [0] * x.rank, list(x.shape), [1] * x.rank)


def _real(b: Builder, node: Node, index: int, zero: int, shape: tuple[int, ...] | None = None) -> View:
    """The integers of an operand as float32, less their zero point; ``shape`` is that of a zero point vector."""
    view = node.view(index)
    real = view.with_tensor(b.cast(view.tensor, np.float32))
    if not node.has_input(zero):
        return real
    point = node.view(zero)
    offset = b.cast(store(b, point), np.float32)
    if point.rank == 1 and point.shape != (1,) and shape is not None:
        offset = b.reshape(offset, shape)
        real = View(store(b, real), identity(real.rank))
    elif point.rank < 2:
        offset = b.reshape(offset, ())
    if real.tensor.data is not None and offset.data is not None:
        return real.with_tensor(b.const(real.tensor.data - offset.data, real.tensor.name))
    return real.with_tensor(b.binary("SUB", real.tensor, offset))


def _largest(node: Node, index: int, zero: int) -> int:
    """The largest magnitude of an integer of the operand less its zero point."""
    limits = np.iinfo(node.view(index).dtype.name)
    return limits.max - limits.min if node.has_input(zero) else max(-limits.min, limits.max)


def conv_integer(b: Builder, node: Node) -> View:
    """ConvInteger: Conv of the integers less their zero points, as int32."""
    w = node.view(1)
    operands = [_real(b, node, 0, 2), _real(b, node, 1, 3, (w.shape[0], *(1,) * (w.rank - 1)))]

    def sums(magnitude: Array) -> float:
        return float(magnitude.reshape(w.shape[0], -1).sum(1, dtype=np.float64).max(initial=0))

    count = int(np.prod(w.shape[1:])) if is_static(w.shape[1:]) else None
    return _product(b, node, conv, operands, (count, sums))


def matmul_integer(b: Builder, node: Node) -> View:
    """MatMulInteger: MatMul of the integers less their zero points, as int32."""
    rows = node.view(2).shape if node.has_input(2) else ()
    operands = [_real(b, node, 0, 2, (*rows, 1)), _real(b, node, 1, 3, node.view(3).shape if node.has_input(3) else ())]

    def sums(magnitude: Array) -> float:
        axis = -2 if magnitude.ndim > 1 else 0
        return float(magnitude.sum(axis, dtype=np.float64).max(initial=0))

    known = [dim for dim in (node.view(0).shape[-1], node.view(1).shape[-2:][0]) if dim >= 0]
    return _product(b, node, matmul, operands, (known[0] if known else None, sums))


def _product(
    b: Builder,
    node: Node,
    multiply: Callable[[Builder, Node], View],
    operands: list[View],
    summed: tuple[int | None, Callable[[Array], float]],
) -> View:
    """The exact product of ``operands`` as int32.

    ``summed``: how many products make one sum (None: unknown), and the largest sum over a constant's magnitudes.
    Raises Refused where float32 could not hold a sum even in two parts.
    """
    count, sums = summed
    left, right = _largest(node, 0, 2), _largest(node, 1, 3)

    def exact(part: View, largest: int) -> bool:
        if part.const is not None:
            return left * sums(np.abs(part.const)) <= _EXACT
        return count is not None and left * largest * count <= _EXACT

    def product(part: View) -> View:
        made = multiply(b, replace(node, inputs=[operands[0], part]))
        return made.with_tensor(b.cast(made.tensor, np.int32))

    whole = operands[1]
    if exact(whole, right):
        return product(whole)
    high, low = _digits(b, whole)
    if not exact(high, right // _DIGIT + 1) or not exact(low, _DIGIT - 1):
        terms = "an unknown number of" if count is None else str(count)
        raise Refused(f"its sums of {terms} products may be larger than LiteRT computes exactly (2^24 in float32)",
                      "Fix the shapes with --shape." if count is None else "Dequantize to float32 instead.")
    upper, lower = product(high), product(low)
    raised = b.binary("MUL", upper.tensor, b.scalar(_DIGIT, upper.tensor))
    return upper.with_tensor(b.binary("ADD", raised, lower.tensor))


def _digits(b: Builder, x: View) -> tuple[View, View]:
    """``x`` as 16 * high + low."""
    if x.tensor.data is not None:
        upper = np.floor(x.tensor.data / np.float32(_DIGIT)).astype(np.float32)
        high, low = b.const(upper), b.const(x.tensor.data - _DIGIT * upper)
        return x.with_tensor(high), x.with_tensor(low)
    high = b.unary("FLOOR", b.binary("MUL", x.tensor, b.scalar(1 / _DIGIT, x.tensor)))
    low = b.binary("SUB", x.tensor, b.binary("MUL", high, b.scalar(_DIGIT, high)))
    return x.with_tensor(high), x.with_tensor(low)
