"""Normalisations, written out in ops that XNNPACK takes."""

from __future__ import annotations

import numpy as np

from edgekit.converters.onnx_to_litert.builder import Builder
from edgekit.converters.onnx_to_litert.graph import Tensor
from edgekit.converters.onnx_to_litert.node import Node, Refused
from edgekit.converters.onnx_to_litert.view import NHWC, View, align, reshape_view, store

__all__ = ["batch_norm", "group_norm", "instance_norm", "layer_norm", "lp_norm", "lrn", "rms_norm"]

_STATISTICS = ("scale", "bias", "mean", "variance")


def batch_norm(b: Builder, node: Node) -> View:
    """BatchNormalization at inference: x * scale + shift per channel."""
    x, epsilon = node.floats(0), node.real("epsilon", 1e-5)
    if node.integer("training_mode", 0):
        raise Refused("it normalises by the batch (training mode)", "Export the model in eval mode.")
    views = [node.view(index) for index in range(1, 5)]
    if any(view.const is None for view in views):
        scale, bias, mean, variance = (store(b, view) for view in views)
        deviation = b.unary("SQRT", b.binary("ADD", variance, b.scalar(epsilon, variance)))
        computed = b.binary("DIV", scale, deviation)
        return _affine(b, x, computed, b.binary("SUB", bias, b.binary("MUL", mean, computed)))
    known = [node.const(1 + index, what).astype(np.float64) for index, what in enumerate(_STATISTICS)]
    factor = known[0] / np.sqrt(known[3] + epsilon)
    shift = known[1] - known[2] * factor
    return _affine(b, x, b.const(factor.astype(np.float32)), b.const(shift.astype(np.float32)))


def _affine(b: Builder, x: View, factor: Tensor, shift: Tensor) -> View:
    """X * factor + shift, both a vector along the channels."""
    for kind, vector in (("MUL", factor), ("ADD", shift)):
        shape = tuple(vector.shape[0] if axis == 1 else 1 for axis in range(x.rank))
        tensors, order = align(b, [x, View.of(b.reshape(vector, shape))])
        x = View(b.binary(kind, *tensors), order)
    return x


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
    return _instance_norm(b, node, node.floats(0))


def _instance_norm(b: Builder, node: Node, x: View) -> View:
    scale, bias = (store(b, node.view(index)) for index in (1, 2))
    if _channels_lie_last(x):
        return _in_place(b, x, x.shape[1], (scale, bias), node.real("epsilon", 1e-5))
    axes = [x.axis(axis) for axis in range(2, x.rank)]
    return _affine(b, x.with_tensor(_standardise(b, x.tensor, axes, node.real("epsilon", 1e-5))), scale, bias)


def group_norm(b: Builder, node: Node) -> View:
    """GroupNormalization: each group of channels of each sample; before opset 21 the scale is one for each group."""
    x, groups = node.floats(0), node.integer("num_groups", 1)
    channels = x.shape[1] if x.rank > 1 else -1
    if channels < 0 or channels % groups:
        if node.has_input(3):  # put there by the pass that found the op in parts
            return _instance_norm(b, node, node.floats(3))
        raise Refused(f"{channels} channels do not fall into {groups} groups", "Fix the input's shape with --shape.")
    vectors = [store(b, node.view(index)) for index in (1, 2)]
    by_group = vectors[0].shape[0] != channels
    if by_group and all(vector.data is not None for vector in vectors):
        vectors = [b.const(np.repeat(b.constant_data(vector), channels // groups)) for vector in vectors]
        by_group = False
    if _channels_lie_last(x) and not by_group:
        return _in_place(b, x, groups, (vectors[0], vectors[1]), node.real("epsilon", 1e-5))
    parts = reshape_view(b, x, (x.shape[0], groups, channels // groups, *x.shape[2:]))
    axes = [parts.axis(axis) for axis in range(2, parts.rank)]
    y = parts.with_tensor(_standardise(b, parts.tensor, axes, node.real("epsilon", 1e-5)))
    if by_group:
        return reshape_view(b, _affine(b, y, *vectors), x.shape)
    return _affine(b, reshape_view(b, y, x.shape), *vectors)


def _channels_lie_last(x: View) -> bool:
    return x.rank > 2 and x.order[-1] == 1 and x.shape[1] > 0


def _in_place(b: Builder, x: View, groups: int, vectors: tuple[Tensor, Tensor], epsilon: float) -> View:
    """The normalisation of ``groups`` of the channels, which lie last: full-size ops work on whole rows of channels.

    Statistics are taken by channel, joined within each group, and spread to its channels again while they are small.
    """
    tensor, (scale, bias) = x.tensor, vectors
    spatial = [x.axis(axis) for axis in range(2, x.rank)]
    centred = b.binary("SUB", tensor, _group_mean(b, tensor, spatial, groups))
    variance = _group_mean(b, b.binary("MUL", centred, centred), spatial, groups)
    factor = b.unary("RSQRT", b.binary("ADD", variance, b.scalar(epsilon, variance)))
    if scale.data is None or np.any(scale.data != 1):
        factor = b.binary("MUL", factor, scale)
    y = b.binary("MUL", centred, factor)
    if bias.data is None or np.any(bias.data != 0):
        y = b.binary("ADD", y, bias)
    return x.with_tensor(y)


def _group_mean(b: Builder, x: Tensor, spatial: list[int], groups: int) -> Tensor:
    """The mean of each group over its channels (the last axis) and ``spatial``: by channel, or once for one group."""
    channels = x.shape[-1]
    if groups == 1:
        return b.reduce("MEAN", x, [*spatial, x.rank - 1], keep=True)
    means = b.reduce("MEAN", x, spatial, keep=True)
    if groups == channels:
        return means
    each = channels // groups
    joined = b.reduce("MEAN", b.reshape(means, (*means.shape[:-1], groups, each)), [means.rank], keep=True)
    return b.reshape(b.binary("MUL", joined, b.const(np.ones(each, np.float32))), means.shape)


def rms_norm(b: Builder, node: Node) -> View:
    """RMSNormalization: x / sqrt(mean(x^2) + epsilon) * scale over the axes from ``axis`` on."""
    x = node.floats(0)
    axes = [x.axis(axis) for axis in range(node.integer("axis", -1) % x.rank, x.rank)]
    power = b.reduce("MEAN", b.binary("MUL", x.tensor, x.tensor), axes, keep=True)
    factor = b.unary("RSQRT", b.binary("ADD", power, b.scalar(node.real("epsilon", 1e-5), power)))
    tensors, order = align(b, [x.with_tensor(b.binary("MUL", x.tensor, factor)), node.view(1)])
    return View(b.binary("MUL", *tensors), order)


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
