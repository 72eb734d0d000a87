"""Pooling: MaxPool, AveragePool and the global ones."""

from __future__ import annotations

import numpy as np

from edgekit.artifacts import Array
from edgekit.converters.onnx_to_litert.builder import Builder
from edgekit.converters.onnx_to_litert.graph import Tensor, is_static
from edgekit.converters.onnx_to_litert.node import Node, Refused
from edgekit.converters.onnx_to_litert.ops.conv import as_2d, from_2d, to_2d
from edgekit.converters.onnx_to_litert.ops.pool_axes import (
    max_pool_with_places,
    maximum_by_axes,
    mean_by_axes,
    powers,
)
from edgekit.converters.onnx_to_litert.spatial import Window, conv_size, fit_padding, read_window
from edgekit.converters.onnx_to_litert.view import View

__all__ = ["average_pool", "global_average_pool", "global_lp_pool", "global_max_pool", "max_pool"]

#: results of these are never negative, so padding them with 0 cannot win a maximum
_NON_NEGATIVE = ("RELU", "RELU6", "LOGISTIC", "RELU_0_TO_1")


def _prepare(b: Builder, x: View, window: Window) -> tuple[Window, list[int]]:
    """The window as a 2-D one, and the sizes of the result."""
    spatial = x.shape[2:]
    if x.rank == 3:
        window = as_2d(window)
        spatial = (1, *spatial)
    return window, [conv_size(b, size, window, axis) for axis, size in enumerate(spatial)]


def _window(node: Node, x: View) -> Window:
    if x.rank < 3:
        raise Refused(f"it pools over spatial axes, its input has only {x.rank} axes")
    if x.shape[1] < 0:
        raise Refused("its number of channels is dynamic", "Fix the input's shape with --shape.")
    return read_window(node, node.integers("kernel_shape"), x.shape[2:])


def _is_plain(x: View, window: Window) -> bool:
    """Whether LiteRT's 2-D ops can do it in one go."""
    return x.rank in (3, 4) and max(window.dilations) == 1


def _is_identity(window: Window) -> bool:
    """One element at each place: for a pool of that behind MINIMUM and RELU, XNNPACK returns unset memory."""
    return max(*window.kernel, *window.strides) == 1 and not any(sum(pad) for pad in window.pads)


def _reach(window: Window, spatial: tuple[int, ...], sizes: list[int], counts: bool = True) -> Window:
    """The window with ``ceil_mode`` turned into padding behind the input.

    On a dynamic size that is ``stride - 1`` more than asked for, whatever the size turns out to be: the last window may
    then hold more padding than ONNX gives it, which is no matter unless the pool ``counts`` its elements.
    """
    if not window.ceil or window.same_upper:
        return window
    pads = []
    for axis, (before, after) in enumerate(window.pads):
        stride, kernel = window.strides[axis], window.kernel[axis]
        if spatial[axis] < 0 and not counts and kernel >= stride + after:
            pads.append((before, after + stride - 1))
            continue
        if spatial[axis] < 0:
            raise Refused("ceil_mode on a dynamic size depends on that size", "Fix the input's shape with --shape.")
        used = (sizes[axis] - 1) * stride + kernel
        pads.append((before, max(used - spatial[axis] - before, 0) if used > spatial[axis] + before + after else after))
    return Window(window.kernel, window.strides, window.dilations, tuple(pads))


def _pool(b: Builder, kind: str, x: Tensor, window: Window, sizes: list[int], padding: str) -> Tensor:
    return b.emit(
        kind,
        [x],
        (x.shape[0], *sizes, x.shape[3]),
        x.dtype,
        padding=padding,
        strideH=window.strides[0],
        strideW=window.strides[1],
        filterHeight=window.kernel[0],
        filterWidth=window.kernel[1],
    )


def max_pool(b: Builder, node: Node) -> View | list[View]:
    """MaxPool -> MAX_POOL_2D; padding that is not SAME is written out with a value that cannot win."""
    x = node.view(0)
    raw = _window(node, x)
    if node.has_output(1):
        return max_pool_with_places(b, node, x, raw)
    if _is_identity(raw):
        return x
    if not _is_plain(x, raw):
        return maximum_by_axes(b, x, raw)
    window, sizes = _prepare(b, x, raw)
    source = to_2d(b, x)
    window = _reach(window, source.shape[1:3], sizes, counts=False)
    producer = next((op.kind for op in reversed(b.graph.ops) if x.tensor in op.outputs), "")
    lowest = np.finfo(np.float32).min if x.dtype == np.float32 else np.iinfo(x.dtype.name).min
    value = 0.0 if producer in _NON_NEGATIVE else float(lowest)
    source, padding = fit_padding(b, source, window, value)
    return from_2d(b, _pool(b, "MAX_POOL_2D", source, window, sizes, padding), x.rank)


def average_pool(b: Builder, node: Node) -> View:
    """AveragePool -> AVERAGE_POOL_2D.

    LiteRT's SAME leaves padding out of the mean and explicit padding counts it: where ONNX wants the other one, the
    result is scaled by a constant (window size / counted elements).
    """
    x, include = node.floats(0), bool(node.integer("count_include_pad", 0))
    raw = _window(node, x)
    if _is_identity(raw):
        return x
    if not _is_plain(x, raw):
        return mean_by_axes(b, x, raw, include)
    raw, sizes = _prepare(b, x, raw)
    tensor = to_2d(b, x)
    window = _reach(raw, tensor.shape[1:3], sizes)
    padded = window.same_upper or any(sum(pad) for pad in window.pads)
    source, padding = fit_padding(b, tensor, window)
    if padding == "SAME" and include:
        if not is_static(tensor.shape[1:3]):
            raise Refused("counting the padding of a dynamic size is not possible", "Fix the shape with --shape.")
        source, padding = b.pad(tensor, [(0, 0), *window.pads, (0, 0)]), "VALID"
    y = _pool(b, "AVERAGE_POOL_2D", source, window, sizes, padding)
    if padded and padding == "VALID" and not (include and window.pads == raw.pads):
        if not is_static(tensor.shape[1:3]):
            raise Refused("the number of averaged elements depends on a dynamic size", "Fix the shape with --shape.")
        y = b.binary("MUL", y, b.const(_scale(raw, tensor.shape[1:3], sizes, include)))
    return from_2d(b, y, x.rank)


def _scale(window: Window, spatial: tuple[int, ...], sizes: list[int], include: bool) -> Array:
    """Kernel size / number of elements that ONNX counts, for each output position: (1, H, W, 1)."""
    factors = []
    for axis in range(2):
        before, after = window.pads[axis] if include else (0, 0)
        start = np.arange(sizes[axis]) * window.strides[axis] - window.pads[axis][0]
        low = np.maximum(start, -before)
        high = np.minimum(start + window.kernel[axis], spatial[axis] + after)
        factors.append(window.kernel[axis] / np.maximum(high - low, 1))
    grid: Array = (factors[0][:, None] * factors[1][None, :])[None, :, :, None]
    return grid.astype(np.float32)


def _global(b: Builder, node: Node, kind: str) -> View:
    x = node.floats(0)
    axes = [x.axis(axis) for axis in range(2, x.rank)]
    return x.with_tensor(b.reduce(kind, x.tensor, axes, keep=True))


def global_average_pool(b: Builder, node: Node) -> View:
    """GlobalAveragePool -> MEAN."""
    return _global(b, node, "MEAN")


def global_lp_pool(b: Builder, node: Node) -> View:
    """GlobalLpPool: the p-norm of each channel."""
    x, p = node.floats(0), node.integer("p", 2)
    axes = [x.axis(axis) for axis in range(2, x.rank)]
    before, after = powers(p)
    return x.with_tensor(after(b, b.reduce("SUM", before(b, x.tensor), axes, keep=True)))


def global_max_pool(b: Builder, node: Node) -> View:
    """GlobalMaxPool -> REDUCE_MAX."""
    return _global(b, node, "REDUCE_MAX")
