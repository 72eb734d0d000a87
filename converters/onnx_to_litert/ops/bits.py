"""Ops on bits and on special numbers: BitShift, BitwiseAnd and its kin, BitCast, IsNaN, IsInf."""

from __future__ import annotations

import numpy as np

from edgekit.converters.onnx_to_litert.builder import Builder
from edgekit.converters.onnx_to_litert.graph import DTYPES, Tensor
from edgekit.converters.onnx_to_litert.node import Node, Refused
from edgekit.converters.onnx_to_litert.view import View, align

__all__ = ["bit_cast", "bit_shift", "bitwise_and", "bitwise_not", "bitwise_or", "bitwise_xor", "is_inf", "is_nan"]

_HALF_WORD = 16


def is_nan(b: Builder, node: Node) -> View:
    """IsNaN: what differs from itself."""
    x = node.floats(0)
    return x.with_tensor(b.binary("NOT_EQUAL", x.tensor, x.tensor, np.bool_))


def is_inf(b: Builder, node: Node) -> View:
    """IsInf: equal to one infinity or, by their absolute value, to both."""
    x = node.floats(0)
    positive, negative = node.integer("detect_positive", 1), node.integer("detect_negative", 1)
    tensor = b.unary("ABS", x.tensor) if positive and negative else x.tensor
    limit = b.scalar(np.inf if positive else -np.inf, x.tensor)
    if not positive and not negative:
        return x.with_tensor(b.binary("LESS", b.unary("ABS", tensor), b.scalar(-1.0, tensor), np.bool_))
    return x.with_tensor(b.binary("EQUAL", tensor, limit, np.bool_))


def bit_cast(b: Builder, node: Node) -> View:
    """BitCast -> BITCAST between types of one size."""
    import onnx_ir as ir

    x = node.view(0)
    target = ir.DataType(node.integer("to", 1)).numpy()
    if target.name not in DTYPES:
        raise Refused(f"LiteRT has no tensors of {target.name}")
    if target.itemsize != x.dtype.itemsize:
        raise Refused(f"{x.dtype.name} and {target.name} differ in size")
    return x.with_tensor(b.emit("BITCAST", [x.tensor], x.tensor.shape, target))


def bit_shift(b: Builder, node: Node) -> View:
    """BitShift: to the left a multiplication by a power of two, to the right RIGHT_SHIFT.

    A shift by less than 0 or by the width and more leaves no bit (to the right: the sign).
    """
    x = node.view(0)
    (value, amount), order = align(b, [x, node.view(1)])
    bits = 8 * x.dtype.itemsize
    shift = _limited(b, amount, bits)
    if node.text("direction", "LEFT") == "RIGHT":
        return View(_to_the_right(b, value, shift, bits), order)
    wide = np.dtype(np.int64 if x.dtype.itemsize > 2 else np.int32)
    powers = np.left_shift(np.array(1, wide), np.arange(bits, dtype=wide))
    table = b.const(np.append(powers, np.array(0, wide)))
    factor = b.emit("GATHER", [table, shift], shift.shape, wide, axis=0)
    return View(b.cast(b.binary("MUL", b.cast(value, wide), factor), x.dtype), order)


def _limited(b: Builder, amount: Tensor, bits: int) -> Tensor:
    """The shift as int32; what is below 0 or above ``bits`` becomes ``bits``."""
    if amount.data is not None:
        inside = (amount.data >= 0) & (amount.data < bits)
        return b.const(np.where(inside, amount.data, bits).astype(np.int32))
    shift = b.cast(amount, np.int32)
    most = b.scalar(bits, shift)
    negative = b.binary("LESS", shift, b.scalar(0, shift), np.bool_)
    return b.binary("MINIMUM", b.emit("SELECT_V2", [negative, most, shift], shift.shape, np.int32), most)


def _to_the_right(b: Builder, value: Tensor, shift: Tensor, bits: int) -> Tensor:
    """LiteRT's kernel shifts by at most one less than the width, which is right for signed integers only."""
    last = b.scalar(bits - 1, shift)
    shifted = b.binary("RIGHT_SHIFT", value, b.cast(b.binary("MINIMUM", shift, last), value.dtype))
    if value.dtype.kind == "i":
        return shifted
    gone = b.binary("GREATER", shift, last, np.bool_)
    return b.emit("SELECT_V2", [gone, b.scalar(0, shifted), shifted], shifted.shape, value.dtype)


def bitwise_xor(b: Builder, node: Node) -> View:
    """BitwiseXor -> BITWISE_XOR."""
    tensors, order = align(b, [node.view(0), node.view(1)])
    return View(_xor(b, *tensors), order)


def bitwise_not(b: Builder, node: Node) -> View:
    """BitwiseNot: exclusive or with ones everywhere."""
    x = node.view(0)
    ones = b.const(np.invert(np.zeros((), x.dtype)))
    return x.with_tensor(_xor(b, x.tensor, ones))


def bitwise_and(b: Builder, node: Node) -> View:
    """BitwiseAnd: half of a + b - (a ^ b), in pieces that leave room for the carry."""
    tensors, order = align(b, [node.view(0), node.view(1)])
    return View(_and(b, *tensors), order)


def bitwise_or(b: Builder, node: Node) -> View:
    """BitwiseOr: (a ^ b) + (a & b), which have no bit in common."""
    tensors, order = align(b, [node.view(0), node.view(1)])
    return View(b.binary("ADD", _xor(b, *tensors), _and(b, *tensors)), order)


def _xor(b: Builder, left: Tensor, right: Tensor) -> Tensor:
    if left.dtype.itemsize < 8:
        return b.binary("BITWISE_XOR", left, right)
    return _whole(b, b.binary("BITWISE_XOR", _halves(b, left), _halves(b, right)), left.dtype)


def _and(b: Builder, left: Tensor, right: Tensor) -> Tensor:
    dtype = left.dtype
    if dtype.itemsize == 8:
        return _whole(b, _and(b, _halves(b, left), _halves(b, right)), dtype)
    if dtype.itemsize < 4:
        return b.cast(_small_and(b, b.cast(left, np.int32), b.cast(right, np.int32)), dtype)
    if dtype != np.int32:
        same_bits = [b.emit("BITCAST", [tensor], tensor.shape, np.int32) for tensor in (left, right)]
        both = _and(b, *same_bits)
        return b.emit("BITCAST", [both], both.shape, dtype)
    size = b.const(np.array(1 << _HALF_WORD, np.int32))
    high = [b.binary("RIGHT_SHIFT", tensor, b.const(np.array(_HALF_WORD, np.int32))) for tensor in (left, right)]
    low = [b.binary("SUB", tensor, b.binary("MUL", top, size)) for tensor, top in zip((left, right), high, strict=True)]
    return b.binary("ADD", b.binary("MUL", _small_and(b, *high), size), _small_and(b, *low))


def _small_and(b: Builder, left: Tensor, right: Tensor) -> Tensor:
    """``left & right`` of int32 tensors whose sum does not overflow."""
    doubled = b.binary("SUB", b.binary("ADD", left, right), b.binary("BITWISE_XOR", left, right))
    return b.binary("RIGHT_SHIFT", doubled, b.const(np.array(1, np.int32)))


def _halves(b: Builder, x: Tensor) -> Tensor:
    """64-bit integers as pairs of int32 along a new last axis."""
    if x.data is not None:
        return b.const(np.ascontiguousarray(x.data)[..., None].view(np.int32))
    return b.emit("BITCAST", [x], (*x.shape, 2), np.int32)


def _whole(b: Builder, pairs: Tensor, dtype: np.dtype[np.generic]) -> Tensor:
    return b.emit("BITCAST", [pairs], pairs.shape[:-1], dtype)
