"""What each op does to the labels of channels: one function for an op, listed in ``RULES``.

An op that is not listed freezes whatever it reads, so a network with unknown ops loses freedom, not correctness.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor
from torch.fx import Node

from edgekit.compress.labels import Axes, Labels, Positions, reshaped

__all__ = ["RULES", "Call", "Product", "Walk", "step"]


@dataclass(frozen=True)
class Product:
    """A convolution or a linear layer as the graph calls it, on one sample.

    ``weight``: the parameter's name; its axis ``in_axis`` is summed over, ``out_axis`` made. ``pixels``: how often the
    kernel of ``kernel`` elements is applied. ``depthwise``: each channel by itself.
    """

    weight: str
    in_axis: int
    out_axis: int
    kernel: int
    pixels: int
    depthwise: bool = False
    kind: str = "conv"


@dataclass(frozen=True)
class Call:
    """One node with what is known of its arguments."""

    node: Node
    walk: Walk

    def axes(self, index: int) -> Axes:
        """Of the tensor that is argument ``index``."""
        return self.walk.of(self.node.args[index])

    def argument(self, index: int, default: Any = None) -> Any:
        """The argument ``index``, or ``default``."""
        return self.node.args[index] if len(self.node.args) > index else default

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the result."""
        return _shape(self.node)


class Walk:
    """What is known while a graph is walked: the axes of each value, and the products that were met."""

    def __init__(self, labels: Labels, names: dict[str, str], batch: int) -> None:
        """``names``: from a placeholder to the parameter or buffer; ``batch``: samples in the example."""
        self.labels = labels
        self.names = names
        self.batch = batch
        self.known: dict[Node, Axes | list[Axes]] = {}
        self.products: list[Product] = []

    def of(self, value: Any) -> Axes:
        """The axes of a node's tensor."""
        found = self.known.get(value)
        return found if isinstance(found, tuple) else (None,) * len(_shape(value))

    def freeze(self, values: Sequence[Any]) -> None:
        """All labels of these values."""
        for value in values:
            for axes in _each(self.known.get(value) if isinstance(value, Node) else None):
                for positions in axes:
                    self.labels.freeze(positions)

    def bias(self, value: Any, positions: Positions | None) -> None:
        """A vector that goes with ``positions``."""
        if isinstance(value, Node):
            self.labels.join(self.of(value)[0], positions)

    def note(self, product: Product) -> None:
        """A product was met."""
        self.products.append(product)


def step(call: Call) -> Axes | list[Axes]:
    """The axes of the result of one call, after joining and freezing what the op asks for."""
    if call.node.target is operator.getitem:
        whole = call.walk.known.get(call.node.args[0])  # type: ignore[arg-type]
        return whole[call.argument(1)] if isinstance(whole, list) else (None,) * len(call.shape)
    name = str(call.node.target).removeprefix("aten.").partition(".")[0]
    rule = RULES.get(name.removesuffix("_"))
    if rule is None:
        call.walk.freeze(call.node.all_input_nodes)
        return (None,) * len(call.shape)
    return rule(call)


def _each(axes: Axes | list[Axes] | None) -> list[Axes]:
    return axes if isinstance(axes, list) else [axes] if axes is not None else []


def _shape(value: Any) -> tuple[int, ...]:
    tensor = value.meta.get("val") if isinstance(value, Node) else None
    return tuple(int(size) for size in tensor.shape) if isinstance(tensor, Tensor) else ()


def _convolution(call: Call) -> Axes:
    walk, weight = call.walk, call.node.args[1]
    x, w = call.axes(0), call.axes(1)
    shape = _shape(weight)
    transposed = "transpose" in str(call.node.target)
    groups = int(call.argument(6, 1))
    if transposed:
        _freeze_axes(walk, w[2:])
        if groups != 1:
            walk.freeze(call.node.all_input_nodes)
            return (None,) * len(call.shape)
        walk.labels.join(x[1], w[0])
        walk.bias(call.argument(2), w[1])
        _note(call, 0, 1, _shape(call.node.args[0]), "transposed")
        return (x[0], w[1], *(None for _ in call.shape[2:]))
    _freeze_axes(walk, w[2:])
    depthwise = groups > 1 and shape[1] == 1 and groups == _shape(call.node.args[0])[1] and shape[0] == groups
    if depthwise:
        walk.labels.join(x[1], w[0])
        _freeze_axes(walk, w[1:2])
    elif groups > 1:
        _freeze_axes(walk, (x[1], *w))
    else:
        walk.labels.join(x[1], w[1])
    walk.bias(call.argument(2), w[0])
    _note(call, 1, 0, call.shape, "depthwise" if depthwise else "grouped" if groups > 1 else "conv")
    return (x[0], w[0], *(None for _ in call.shape[2:]))


def _linear(call: Call) -> Axes:
    x, w = call.axes(0), call.axes(1)
    call.walk.labels.join(x[-1], w[1])
    call.walk.bias(call.argument(2), w[0])
    _note(call, 1, 0, call.shape, "linear")
    return (*x[:-1], w[0])


def _note(call: Call, in_axis: int, out_axis: int, applied: Sequence[int], kind: str) -> None:
    name = call.walk.names.get(str(call.node.args[1]))
    if name is None:
        return
    places = applied[:-1] if kind == "linear" else (applied[0], *applied[2:])
    pixels = int(np.prod(places, dtype=np.int64)) // call.walk.batch
    kernel = int(np.prod(_shape(call.node.args[1])[2:], dtype=np.int64))
    call.walk.note(Product(name, in_axis, out_axis, kernel, pixels, kind == "depthwise", kind))


def _batch_norm(call: Call) -> Axes:
    x = call.axes(0)
    for index in range(1, 5):
        call.walk.bias(call.argument(index), x[1])
    return x


def _layer_norm(call: Call) -> Axes:
    """Its statistics are of all channels together."""
    x, count = call.axes(0), len(call.argument(1))
    _freeze_axes(call.walk, x[-count:])
    call.walk.freeze([each for each in call.node.all_input_nodes if each is not call.node.args[0]])
    return x


def _same(call: Call) -> Axes:
    return call.axes(0)


def _windows(call: Call) -> Axes:
    return (*call.axes(0)[:2], *(None for _ in call.shape[2:]))


def _elementwise(call: Call) -> Axes:
    labels, shape = call.walk.labels, call.shape
    found: list[Positions | None] = [None] * len(shape)
    met = [False] * len(shape)
    for value in call.node.all_input_nodes:
        axes, own = call.walk.of(value), _shape(value)
        for back in range(1, len(own) + 1):
            if own[-back] != shape[-back] or own[-back] == 1:
                if shape[-back] != 1:
                    labels.freeze(axes[-back])  # broadcast: a size of 1 is no channel
                continue
            if met[-back]:
                if found[-back] is not None or axes[-back] is not None:
                    labels.join(found[-back], axes[-back])
            else:
                found[-back], met[-back] = axes[-back], True
    return tuple(found)


def _reduce(call: Call) -> Axes:
    x = call.axes(0)
    dims = call.argument(1, None)
    dims = range(len(x)) if not dims else [dims] if isinstance(dims, int) else dims
    gone = {dim % len(x) for dim in dims}
    _freeze_axes(call.walk, [x[dim] for dim in gone])
    if len(call.shape) == len(x):
        return tuple(None if dim in gone else axis for dim, axis in enumerate(x))
    return tuple(axis for dim, axis in enumerate(x) if dim not in gone)


def _cat(call: Call) -> Axes:
    labels, parts = call.walk.labels, list(call.node.args[0])  # type: ignore[arg-type]
    dim = int(call.argument(1, 0)) % len(call.shape)
    found: list[Positions | None] = list(call.walk.of(parts[0]))
    joined = []
    for part in parts:
        axes = call.walk.of(part)
        own = axes[dim]
        if own is None:
            own = labels.fresh(_shape(part)[dim])
            labels.freeze(own)
        joined.append(own)
        for index, axis in enumerate(axes):
            if index != dim and (axis is not None or found[index] is not None):
                labels.join(found[index], axis)
    found[dim] = np.concatenate(joined)
    return tuple(found)


def _reshape(call: Call) -> Axes:
    return reshaped(call.walk.labels, call.axes(0), _shape(call.node.args[0]), call.shape)


def _permute(call: Call) -> Axes:
    x = call.axes(0)
    return tuple(x[dim] for dim in call.argument(1))


def _transpose(call: Call) -> Axes:
    x = list(call.axes(0))
    one, other = (dim % len(x) for dim in (call.argument(1), call.argument(2)))
    x[one], x[other] = x[other], x[one]
    return tuple(x)


def _slice(call: Call) -> Axes:
    x, before = call.axes(0), _shape(call.node.args[0])
    dim = int(call.argument(1, 0)) % len(x)
    if before == call.shape:
        return x
    call.walk.labels.freeze(x[dim])
    return tuple(None if index == dim else axis for index, axis in enumerate(x))


def _parts(call: Call) -> list[Axes]:
    """Halves and the like are cut at places that depend on the number of channels."""
    x = call.axes(0)
    dim = int(call.argument(2, 0)) % len(x)
    call.walk.labels.freeze(x[dim])
    axes = tuple(None if index == dim else axis for index, axis in enumerate(x))
    return [axes] * len(call.node.meta["val"])


def _pad(call: Call) -> Axes:
    x, before = call.axes(0), _shape(call.node.args[0])
    for axis, was, now in zip(x, before, call.shape, strict=True):
        if was != now:
            call.walk.labels.freeze(axis)
    return tuple(axis if was == now else None for axis, was, now in zip(x, before, call.shape, strict=True))


def _softmax(call: Call) -> Axes:
    x, dim = call.axes(0), int(call.argument(1))
    call.walk.labels.freeze(x[dim])
    return x


def _freeze_axes(walk: Walk, axes: Sequence[Positions | None]) -> None:
    for positions in axes:
        walk.labels.freeze(positions)


RULES: dict[str, Callable[[Call], Axes | list[Axes]]] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv_transpose2d"), _convolution),
    "linear": _linear,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    **dict.fromkeys(("relu", "relu6", "hardswish", "hardsigmoid", "hardtanh", "gelu", "silu", "sigmoid", "tanh", "elu",
                     "leaky_relu", "mish", "softplus", "clamp", "dropout", "clone", "contiguous", "alias", "detach",
                     "abs", "neg", "exp", "sqrt", "to", "feature_dropout", "alpha_dropout"), _same),
    **dict.fromkeys(("adaptive_avg_pool2d", "adaptive_max_pool2d", "avg_pool2d", "max_pool2d", "upsample_nearest2d",
                     "upsample_bilinear2d"), _windows),
    **dict.fromkeys(("add", "sub", "mul", "div", "maximum", "minimum"), _elementwise),
    **dict.fromkeys(("mean", "sum", "amax"), _reduce),
    **dict.fromkeys(("cat", "concat"), _cat),
    **dict.fromkeys(("flatten", "reshape", "view", "unsqueeze", "squeeze"), _reshape),
    "permute": _permute,
    "transpose": _transpose,
    "slice": _slice,
    **dict.fromkeys(("chunk", "split", "split_with_sizes"), _parts),
    "pad": _pad,
    "softmax": _softmax,
}
