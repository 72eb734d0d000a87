"""Quantization by arithmetic (scales computed at run time, along an axis or by blocks), and integer products.

Products of 8-bit integers are summed in float32: exact up to 2^24, off by parts in 10^7 above.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgekit.converters.onnx_to_litert.builder import Builder
from edgekit.converters.onnx_to_litert.graph import DTYPES, Tensor, is_static
from edgekit.converters.onnx_to_litert.node import Node, Refused
from edgekit.converters.onnx_to_litert.ops.conv import conv
from edgekit.converters.onnx_to_litert.ops.matmul import matmul
from edgekit.converters.onnx_to_litert.view import View, identity, reshape_view, store

__all__ = ["conv_integer", "dequantize_computed", "matmul_integer", "quantize_computed"]


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
        return View(b.binary("SUB", store(b, real), offset), identity(real.rank))
    return real.with_tensor(b.binary("SUB", real.tensor, b.reshape(offset, ()) if point.rank < 2 else offset))


def conv_integer(b: Builder, node: Node) -> View:
    """ConvInteger: Conv of the integers less their zero points, as int32."""
    w = node.view(1)
    operands = [_real(b, node, 0, 2), _real(b, node, 1, 3, (w.shape[0], *(1,) * (w.rank - 1)))]
    product = conv(b, replace(node, inputs=operands))
    return product.with_tensor(b.cast(product.tensor, np.int32))


def matmul_integer(b: Builder, node: Node) -> View:
    """MatMulInteger: MatMul of the integers less their zero points, as int32."""
    rows = node.view(2).shape if node.has_input(2) else ()
    operands = [_real(b, node, 0, 2, (*rows, 1)), _real(b, node, 1, 3, node.view(3).shape if node.has_input(3) else ())]
    product = matmul(b, replace(node, inputs=operands))
    return product.with_tensor(b.cast(product.tensor, np.int32))
