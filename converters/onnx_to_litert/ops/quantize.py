"""QuantizeLinear and DequantizeLinear. Which ops then run on integers is decided by ``quantized``."""

from __future__ import annotations

import numpy as np

from edgekit.converters.onnx_to_litert.builder import Builder
from edgekit.converters.onnx_to_litert.graph import Quantization, StoredConstant, Tensor
from edgekit.converters.onnx_to_litert.node import Node, Refused
from edgekit.converters.onnx_to_litert.ops.integer import dequantize_computed, quantize_computed
from edgekit.converters.onnx_to_litert.view import View

__all__ = ["dequantize", "quantize"]

_ACTIVATIONS = ("int8", "uint8", "int16")


def _parameters(node: Node, dtype: np.dtype[np.generic] | None) -> Quantization:
    """Scales and zero points; the axis is the ONNX one."""
    scales = np.atleast_1d(node.const(1, "scale")).astype(np.float32)
    given = node.optional_const(2, "zero point")
    zero_points = np.zeros(scales.shape, np.int64) if given is None else np.atleast_1d(given).astype(np.int64)
    if dtype is not None and dtype.name == "int16" and np.any(zero_points):
        raise Refused("LiteRT's int16 has no zero point")
    return Quantization(scales, zero_points, node.integer("axis", 1) if scales.size > 1 else 0)


def _is_simple(node: Node) -> bool:
    """Whether scales and zero points are constants, and not for blocks."""
    operands = [node.view(index) for index in (1, 2) if node.has_input(index)]
    return not node.integer("block_size", 0) and all(view.const is not None for view in operands)


def quantize(b: Builder, node: Node) -> View:
    """QuantizeLinear with one constant scale -> QUANTIZE, else by arithmetic."""
    x = node.floats(0)
    zero = node.view(2).dtype if node.has_input(2) else None
    dtype = np.dtype(zero if zero is not None else np.uint8)
    if not _is_simple(node) or dtype.name not in _ACTIVATIONS or node.has("output_dtype"):
        return quantize_computed(b, node)
    parameters = _parameters(node, dtype)
    if parameters.scales.size != 1:
        return quantize_computed(b, node)
    out = b.emit("QUANTIZE", [x.tensor], x.tensor.shape, dtype)
    out.quantization = parameters
    return x.with_tensor(out)


def dequantize(b: Builder, node: Node) -> View:
    """DequantizeLinear -> DEQUANTIZE; a constant becomes a float constant that remembers what it was."""
    x = node.view(0)
    if not _is_simple(node):
        return dequantize_computed(b, node)
    parameters = _parameters(node, None)
    data = x.const
    if data is not None:
        axis = parameters.axis % max(x.rank, 1)
        along = [-1 if at == axis and parameters.scales.size > 1 else 1 for at in range(x.rank)]
        shape = along if x.rank else []
        real = (data.astype(np.float64) - parameters.zero_points.reshape(shape)) * parameters.scales.reshape(shape)
        tensor = Tensor(x.tensor.name, np.dtype(np.float32), data.shape, real.astype(np.float32))
        tensor.stored = StoredConstant(data, Quantization(parameters.scales, parameters.zero_points, axis))
        return View.of(tensor)
    if x.dtype.name not in _ACTIVATIONS or parameters.scales.size != 1:
        return _by_arithmetic(b, x, parameters)
    if x.tensor.quantization is None:
        x.tensor.quantization = parameters
    known = x.tensor.quantization
    if known.scales[0] != parameters.scales[0] or known.zero_points[0] != parameters.zero_points[0]:
        return _by_arithmetic(b, x, parameters)
    return x.with_tensor(b.emit("DEQUANTIZE", [x.tensor], x.tensor.shape, np.float32))


def _by_arithmetic(b: Builder, x: View, parameters: Quantization) -> View:
    """(x - zero point) * scale in float32."""
    along = [1] * x.rank
    if parameters.scales.size > 1:
        along[x.axis(parameters.axis)] = -1
    shape = along if x.rank else []
    real = b.cast(b.cast(x.tensor, np.int32), np.float32)
    if np.any(parameters.zero_points):
        real = b.binary("SUB", real, b.const(parameters.zero_points.astype(np.float32).reshape(shape)))
    return x.with_tensor(b.binary("MUL", real, b.const(parameters.scales.reshape(shape))))
