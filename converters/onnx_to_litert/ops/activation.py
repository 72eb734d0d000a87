"""Activations that LiteRT has with parameters, and those made of several ops."""

from __future__ import annotations

import math

import numpy as np

from edgekit.converters.onnx_to_litert.builder import Builder
from edgekit.converters.onnx_to_litert.graph import Tensor
from edgekit.converters.onnx_to_litert.node import Node, Refused
from edgekit.converters.onnx_to_litert.view import View, align, identity, reshape_view, store

__all__ = [
    "celu",
    "elu",
    "gelu",
    "hard_sigmoid",
    "hard_swish",
    "leaky_relu",
    "log_softmax",
    "mish",
    "prelu",
    "selu",
    "softmax",
    "softplus",
    "softsign",
    "swish",
    "thresholded_relu",
]


def leaky_relu(b: Builder, node: Node) -> View:
    """LeakyRelu -> LEAKY_RELU."""
    x = node.floats(0)
    return x.with_tensor(b.unary("LEAKY_RELU", x.tensor, alpha=node.real("alpha", 0.01)))


def prelu(b: Builder, node: Node) -> View:
    """PRelu -> PRELU for slopes along the last stored axis, else max(x, 0) + slope * min(x, 0)."""
    given, slopes = node.floats(0), node.floats(1)
    if node.opset < 7 and slopes.rank == 1 and given.rank > 2:
        slopes = reshape_view(b, slopes, (*slopes.shape, *(1,) * (given.rank - 2)))  # they belong to the channels
    (x, slope), order = align(b, [given, slopes])
    if slope.data is not None and slope.rank and all(dim == 1 for dim in slope.shape[:-1]):
        return View(b.emit("PRELU", [x, slope], x.shape, np.float32), order)
    below = b.binary("MUL", b.binary("MINIMUM", x, b.scalar(0.0, x)), slope)
    return View(b.binary("ADD", b.unary("RELU", x), below), order)


def hard_swish(b: Builder, node: Node) -> View:
    """HardSwish -> HARD_SWISH."""
    x = node.floats(0)
    return x.with_tensor(b.unary("HARD_SWISH", x.tensor))


def hard_sigmoid(b: Builder, node: Node) -> View:
    """HardSigmoid: relu6(x + 3) / 6 for the usual parameters, else a clipped line."""
    x = node.floats(0)
    alpha, beta = node.real("alpha", 0.2), node.real("beta", 0.5)
    if math.isclose(alpha, 1 / 6, rel_tol=1e-6) and beta == 0.5:
        lifted = b.unary("RELU6", b.binary("ADD", x.tensor, b.scalar(3.0, x.tensor)))
        return x.with_tensor(b.binary("MUL", lifted, b.scalar(1 / 6, x.tensor)))
    line = b.binary("ADD", b.binary("MUL", x.tensor, b.scalar(alpha, x.tensor)), b.scalar(beta, x.tensor))
    capped = b.binary("MINIMUM", line, b.scalar(1.0, x.tensor))
    return x.with_tensor(b.unary("RELU", capped))


def gelu(b: Builder, node: Node) -> View:
    """Gelu -> GELU, exact or by tanh."""
    x = node.floats(0)
    kind = node.text("approximate", "none")
    return x.with_tensor(b.unary("GELU", x.tensor, approximate=kind == "tanh"))


def swish(b: Builder, node: Node) -> View:
    """Swish: x * sigmoid(alpha x)."""
    x, alpha = node.floats(0), node.real("alpha", 1.0)
    gate = x.tensor if alpha == 1 else b.binary("MUL", x.tensor, b.scalar(alpha, x.tensor))
    return x.with_tensor(b.binary("MUL", x.tensor, b.unary("LOGISTIC", gate)))


def softplus(b: Builder, node: Node) -> View:
    """Softplus: max(x, 0) + log(1 + exp(-|x|)), which does not overflow."""
    x = node.floats(0).tensor
    tail = b.unary("LOG", b.binary("ADD", b.unary("EXP", b.unary("NEG", b.unary("ABS", x))), b.scalar(1.0, x)))
    return node.view(0).with_tensor(b.binary("ADD", b.unary("RELU", x), tail))


def mish(b: Builder, node: Node) -> View:
    """Mish: x * tanh(softplus(x)) = x * n / (n + 2) with n = e^x (e^x + 2), which is 1 in float32 from x = 20 on."""
    x = node.floats(0)
    grown = b.unary("EXP", b.binary("MINIMUM", x.tensor, b.scalar(20.0, x.tensor)))
    above = b.binary("MUL", grown, b.binary("ADD", grown, b.scalar(2.0, grown)))
    gate = b.binary("DIV", above, b.binary("ADD", above, b.scalar(2.0, above)))
    return x.with_tensor(b.binary("MUL", x.tensor, gate))


def softsign(b: Builder, node: Node) -> View:
    """Softsign: x / (1 + |x|)."""
    x = node.floats(0)
    below = b.binary("ADD", b.unary("ABS", x.tensor), b.scalar(1.0, x.tensor))
    return x.with_tensor(b.binary("DIV", x.tensor, below))


def selu(b: Builder, node: Node) -> View:
    """Selu: gamma * (max(x, 0) + alpha * (exp(min(x, 0)) - 1)). ELU has the second factor fixed at 1."""
    x = node.floats(0)
    alpha, gamma = node.real("alpha", 1.6732631921768188), node.real("gamma", 1.0507010221481323)
    return x.with_tensor(_scaled_elu(b, x, alpha, gamma))


def celu(b: Builder, node: Node) -> View:
    """Celu: max(x, 0) + alpha * elu(min(x, 0) / alpha)."""
    x, alpha = node.floats(0), node.real("alpha", 1.0)
    scaled = b.binary("MUL", x.tensor, b.scalar(1 / alpha, x.tensor))
    return x.with_tensor(b.binary("MUL", b.unary("ELU", scaled), b.scalar(alpha, x.tensor)))


def elu(b: Builder, node: Node) -> View:
    """Elu -> ELU (alpha 1), else by its parts."""
    x, alpha = node.floats(0), node.real("alpha", 1.0)
    return x.with_tensor(b.unary("ELU", x.tensor) if alpha == 1 else _scaled_elu(b, x, alpha, 1.0))


def _scaled_elu(b: Builder, view: View, alpha: float, gamma: float) -> Tensor:
    x = view.tensor
    negative = b.unary("ELU", b.binary("MINIMUM", x, b.scalar(0.0, x)))
    bent = b.binary("MUL", negative, b.scalar(alpha * gamma, x))
    straight = b.unary("RELU", x)
    if gamma != 1:
        straight = b.binary("MUL", straight, b.scalar(gamma, x))
    return b.binary("ADD", straight, bent)


def thresholded_relu(b: Builder, node: Node) -> View:
    """ThresholdedRelu: x where x > alpha, else 0."""
    x = node.floats(0)
    mask = b.binary("GREATER", x.tensor, b.scalar(node.real("alpha", 1.0), x.tensor), np.bool_)
    kept = b.emit("SELECT_V2", [mask, x.tensor, b.scalar(0.0, x.tensor)], x.tensor.shape, x.dtype)
    return x.with_tensor(kept)


def _on_last_axis(b: Builder, node: Node, kind: str, **options: object) -> View:
    """LiteRT's SOFTMAX and LOG_SOFTMAX work on the last storage axis."""
    x = node.floats(0)
    if x.rank == 0:
        raise Refused("LiteRT's softmax needs at least one axis")
    if node.opset < 13:
        return _flattened(b, node, x, kind, **options)
    axis = node.integer("axis", -1) % x.rank
    order = x.order
    if order[-1] != axis:
        order = (*(a for a in order if a != axis), axis)
    tensor = store(b, x, order)
    return View(b.unary(kind, tensor, **options), order)


def _flattened(b: Builder, node: Node, x: View, kind: str, **options: object) -> View:
    """Before opset 13 the softmax ran over all axes from ``axis`` on, as one."""
    axis = node.integer("axis", 1) % x.rank
    shape = x.shape
    if all(dim == 1 for dim in shape[axis + 1 :]):
        order = (*(a for a in x.order if a != axis), axis)
        return View(b.unary(kind, store(b, x, order), **options), order)
    tensor = store(b, x)
    if axis == x.rank - 1:
        return View(b.unary(kind, tensor, **options), identity(x.rank))
    inner = node.static_shape(0)[axis:]
    flat = b.reshape(tensor, (*shape[:axis], int(np.prod(inner))))
    return View.of(b.reshape(b.unary(kind, flat, **options), shape))


def softmax(b: Builder, node: Node) -> View:
    """Softmax -> SOFTMAX."""
    return _on_last_axis(b, node, "SOFTMAX", beta=1.0)


def log_softmax(b: Builder, node: Node) -> View:
    """LogSoftmax -> LOG_SOFTMAX."""
    return _on_last_axis(b, node, "LOG_SOFTMAX")
