"""Normalisations, written out in ops that XNNPACK takes."""

from __future__ import annotations

import numpy as np

from edgekit.artifacts import Array
from edgekit.converters.onnx_to_litert.builder import Builder
from edgekit.converters.onnx_to_litert.graph import Tensor
from edgekit.converters.onnx_to_litert.node import Node, Refused
from edgekit.converters.onnx_to_litert.view import NHWC, View, align, store

__all__ = ["batch_norm", "instance_norm", "layer_norm", "lp_norm", "lrn"]


def batch_norm(b: Builder, node: Node) -> View:
    """BatchNormalization at inference: x * scale + shift per channel."""
    x = node.floats(0)
    if node.integer("training_mode", 0):
        raise Refused("BatchNormalization in training mode has no counterpart", "Export the model in eval mode.")
    scale, bias, mean, variance = (
        node.const(index, what).astype(np.float64)
        for index, what in enumerate(("scale", "bias", "mean", "variance"), start=1)
    )
    factor = scale / np.sqrt(variance + node.real("epsilon", 1e-5))
    return _affine(b, x, factor.astype(np.float32), (bias - mean * factor).astype(np.float32), axis=1)


def _affine(b: Builder, x: View, factor: Array, shift: Array, axis: int) -> View:
    """X * factor + shift, both along one ONNX axis."""
    shape = [1] * x.rank
    shape[axis] = factor.size
    tensors, order = align(b, [x, View.of(b.const(factor.reshape(shape)))])
    y = View(b.binary("MUL", *tensors), order)
    tensors, order = align(b, [y, View.of(b.const(shift.reshape(shape)))])
    return View(b.binary("ADD", *tensors), order)


def _standardise(b: Builder, x: Tensor, axes: list[int], epsilon: float) -> Tensor:
    """(x - mean) / sqrt(variance + epsilon) over storage ``axes``."""
    centred = b.binary("SUB", x, b.reduce("MEAN", x, axes, keep=True))
    variance = b.reduce("MEAN", b.binary("MUL", centred, centred), axes, keep=True)
    scale = b.unary("RSQRT", b.binary("ADD", variance, b.scalar(epsilon, x)))
    return b.binary("MUL", centred, scale)


def layer_norm(b: Builder, node: Node) -> View:
    """LayerNormalization over the axes from ``axis`` on."""
    x = node.floats(0)
    if node.has_output(1) or node.has_output(2):
        raise Refused("its mean and deviation outputs are not supported")
    first = node.integer("axis", -1) % x.rank
    axes = [x.axis(axis) for axis in range(first, x.rank)]
    y = x.with_tensor(_standardise(b, x.tensor, axes, node.real("epsilon", 1e-5)))
    for index, kind in ((1, "MUL"), (2, "ADD")):
        if node.has_input(index):
            tensors, order = align(b, [y, node.view(index)])
            y = View(b.binary(kind, *tensors), order)
    return y


def instance_norm(b: Builder, node: Node) -> View:
    """InstanceNormalization: each channel of each sample over its spatial axes."""
    x = node.floats(0)
    axes = [x.axis(axis) for axis in range(2, x.rank)]
    y = x.with_tensor(_standardise(b, x.tensor, axes, node.real("epsilon", 1e-5)))
    return _affine(b, y, node.const(1, "scale"), node.const(2, "bias"), axis=1)


def lp_norm(b: Builder, node: Node) -> View:
    """LpNormalization: x divided by its L1 or L2 norm along ``axis``."""
    x = node.floats(0)
    axis, p = [x.axis(node.integer("axis", -1))], node.integer("p", 2)
    parts = b.unary("ABS", x.tensor) if p == 1 else b.binary("MUL", x.tensor, x.tensor)
    norm = b.reduce("SUM", parts, axis, keep=True)
    if p == 2:
        norm = b.unary("SQRT", norm)
    # zeros stay zeros
    empty = b.binary("EQUAL", norm, b.scalar(0.0, norm), np.bool_)
    norm = b.emit("SELECT_V2", [empty, b.scalar(1.0, norm), norm], norm.shape, norm.dtype)
    return x.with_tensor(b.binary("DIV", x.tensor, norm))


def lrn(b: Builder, node: Node) -> View:
    """LRN -> LOCAL_RESPONSE_NORMALIZATION on N, H, W, C for odd windows."""
    x, size = node.floats(0), node.integer("size", 1)
    if x.rank != 4 or size % 2 == 0:
        raise Refused("LiteRT normalises over an odd number of channels of a rank-4 tensor")
    y = b.unary(
        "LOCAL_RESPONSE_NORMALIZATION",
        store(b, x, NHWC),
        radius=size // 2,
        bias=node.real("bias", 1.0),
        alpha=node.real("alpha", 1e-4) / size,
        beta=node.real("beta", 0.75),
    )
    return View(y, NHWC)
