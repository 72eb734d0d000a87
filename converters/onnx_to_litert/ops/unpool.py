"""MaxUnpool: values put back to where MaxPool found them."""

from __future__ import annotations

import numpy as np

from edgekit.converters.onnx_to_litert.builder import Builder
from edgekit.converters.onnx_to_litert.graph import Shape, is_static
from edgekit.converters.onnx_to_litert.node import Node, Refused
from edgekit.converters.onnx_to_litert.view import View, store

__all__ = ["max_unpool"]


def max_unpool(b: Builder, node: Node) -> View:
    """MaxUnpool -> SCATTER_ND into zeros; the places are those in the flat tensor that was pooled."""
    x = node.floats(0)
    if not is_static(x.shape):
        raise Refused("it needs a fixed shape", "Fix the input's shape with --shape.")
    pooled = _pooled_shape(node, x.shape)
    count, total = int(np.prod(x.shape)), int(np.prod(pooled))
    places = b.reshape(b.cast(store(b, node.view(1)), np.int32), (count, 1))
    values = b.reshape(store(b, x), (count,))
    if not node.has_input(2):
        flat = b.emit("SCATTER_ND", [places, values, b.const(np.array([total], np.int32))], (total,), x.dtype)
        return View.of(b.reshape(flat, pooled))
    wanted = node.view(2)
    shape: Shape = tuple(b.new_dim() for _ in x.shape)
    if wanted.const is not None:
        shape = tuple(int(size) for size in wanted.const.reshape(-1))
    # the places count in a tensor of the inferred shape, of which the wanted one is an enlargement
    strides = [int(np.prod(pooled[at + 1 :])) for at in range(len(pooled))]
    columns = []
    for stride, size in zip(strides, pooled, strict=True):
        steps = b.binary("FLOOR_DIV", places, b.const(np.array(stride, np.int32)))
        columns.append(b.binary("FLOOR_MOD", steps, b.const(np.array(size, np.int32))))
    target = b.cast(store(b, wanted), np.int32)
    return View.of(b.emit("SCATTER_ND", [b.concat(columns, 1), values, target], shape, x.dtype))


def _pooled_shape(node: Node, shape: Shape) -> Shape:
    """The smallest shape that MaxPool makes ``shape`` of."""
    kernel = node.integers("kernel_shape")
    strides = node.integers("strides", (1,) * len(kernel))
    flat = node.integers("pads", (0,) * (2 * len(kernel)))
    pads = zip(flat[: len(kernel)], flat[len(kernel) :], strict=True)
    sizes = [
        (size - 1) * stride - sum(pad) + extent
        for size, stride, pad, extent in zip(shape[2:], strides, pads, kernel, strict=True)
    ]
    return (*shape[:2], *sizes)
