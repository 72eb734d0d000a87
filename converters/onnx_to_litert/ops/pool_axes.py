"""Pooling one axis at a time, which maxima, sums and means allow: for 3-D windows, dilations and Lp norms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgekit.artifacts import Array
from edgekit.converters.onnx_to_litert.builder import Builder
from edgekit.converters.onnx_to_litert.graph import Shape, Tensor, is_static
from edgekit.converters.onnx_to_litert.node import Node, Refused
from edgekit.converters.onnx_to_litert.spatial import Window, conv_size, read_window
from edgekit.converters.onnx_to_litert.view import View, channels_last, store

__all__ = ["lp_pool", "max_pool_with_places", "maximum_by_axes", "mean_by_axes", "powers"]

_END = 2**31 - 1


@dataclass(frozen=True, slots=True)
class _Axis:
    """A window along one storage axis: ``count`` results, from ``pads`` (before, after) and ``size`` elements."""

    at: int
    size: int
    count: int
    kernel: int
    stride: int
    dilation: int
    pads: tuple[int, int]

    @property
    def reach(self) -> int:
        """Elements, padding included, that the windows cover."""
        return (self.count - 1) * self.stride + (self.kernel - 1) * self.dilation + 1

    def tap(self, index: int) -> tuple[int, int]:
        """(start, stop) of the padded elements that the windows' element ``index`` falls on."""
        start = index * self.dilation
        return start, start + (self.count - 1) * self.stride + 1


def _axes(b: Builder, x: View, window: Window) -> list[_Axis]:
    """The window's axes in storage with the channels last."""
    sizes = x.shape[2:]
    if not is_static(sizes):
        raise Refused("pooling in this form needs fixed sizes", "Fix the input's shape with --shape.")
    parts = zip(sizes, window.kernel, window.strides, window.dilations, window.pads, strict=True)
    return [
        _Axis(1 + axis, size, conv_size(b, size, window, axis), kernel, stride, dilation, pads)
        for axis, (size, kernel, stride, dilation, pads) in enumerate(parts)
    ]


def _padded(b: Builder, x: Tensor, axis: _Axis, value: float) -> Tensor:
    """``x`` with as much padding along ``axis`` as its windows reach, and no more."""
    before, _ = axis.pads
    after = axis.reach - axis.size - before
    pads = [(0, 0)] * x.rank
    pads[axis.at] = (before, max(after, 0))
    x = b.pad(x, pads, value)
    if after >= 0:
        return x
    end = [_END] * x.rank
    end[axis.at] = axis.reach
    return b.strided_slice(x, [0] * x.rank, end, [1] * x.rank)


def _along(b: Builder, x: Tensor, axis: _Axis, kind: str, join: str) -> Tensor:
    """One pass of pooling: by ``kind`` over (outer, axis, inner, channels), for dilations by joining strided slices."""
    shape = (*x.shape[: axis.at], axis.count, *x.shape[axis.at + 1 :])
    if axis.dilation > 1 or not is_static(x.shape):
        taps = [_tap(b, x, axis, index) for index in range(axis.kernel)]
        total = taps[0]
        for tap in taps[1:]:
            total = b.binary(join, total, tap)
        return b.binary("MUL", total, b.scalar(1 / axis.kernel, total)) if join == "ADD" else total
    outer, inner = int(np.prod(x.shape[: axis.at])), int(np.prod(x.shape[axis.at + 1 : -1]))
    flat = b.reshape(x, (outer, x.shape[axis.at], inner, x.shape[-1]))
    options = {"padding": "VALID", "strideH": axis.stride, "strideW": 1, "filterHeight": axis.kernel, "filterWidth": 1}
    pooled = b.emit(kind, [flat], (outer, axis.count, inner, x.shape[-1]), x.dtype, **options)
    return b.reshape(pooled, shape)


def _tap(b: Builder, x: Tensor, axis: _Axis, index: int) -> Tensor:
    begin, end, stride = [0] * x.rank, [_END] * x.rank, [1] * x.rank
    begin[axis.at], end[axis.at] = axis.tap(index)
    stride[axis.at] = axis.stride
    return b.strided_slice(x, begin, end, stride)


def maximum_by_axes(b: Builder, x: View, window: Window) -> View:
    """MaxPool of any number of axes."""
    order = channels_last(x.rank)
    tensor = store(b, x, order)
    lowest = float(np.finfo(np.float32).min) if x.dtype == np.float32 else float(np.iinfo(x.dtype.name).min)
    for axis in _axes(b, x, window):
        tensor = _along(b, _padded(b, tensor, axis, lowest), axis, "MAX_POOL_2D", "MAXIMUM")
    return View(tensor, order)


def mean_by_axes(b: Builder, x: View, window: Window, include_pads: bool) -> View:
    """AveragePool of any number of axes: what a mean over the whole window has too little is made up for."""
    order = channels_last(x.rank)
    tensor = store(b, x, order)
    for axis in _axes(b, x, window):
        tensor = _along(b, _padded(b, tensor, axis, 0.0), axis, "AVERAGE_POOL_2D", "ADD")
        factor = axis.kernel / _counted(axis, include_pads)
        if np.any(factor != 1):
            shape = tuple(-1 if at == axis.at else 1 for at in range(tensor.rank))
            tensor = b.binary("MUL", tensor, b.const(factor.astype(np.float32).reshape(shape)))
    return View(tensor, order)


def _counted(axis: _Axis, include_pads: bool) -> Array:
    """How many elements of each window ONNX averages."""
    places = np.arange(axis.count)[:, None] * axis.stride + np.arange(axis.kernel)[None] * axis.dilation - axis.pads[0]
    before, after = axis.pads if include_pads else (0, 0)
    inside = (places >= -before) & (places < axis.size + after)
    counted: Array = np.maximum(inside.sum(axis=1), 1)
    return counted


def lp_pool(b: Builder, node: Node) -> View:
    """LpPool: the p-norm of each window."""
    x, p = node.floats(0), node.integer("p", 2)
    window = read_window(node, node.integers("kernel_shape"), x.shape[2:])
    order = channels_last(x.rank)
    before, after = powers(p)
    tensor = before(b, store(b, x, order))
    area = 1
    for axis in _axes(b, x, window):
        tensor = _along(b, _padded(b, tensor, axis, 0.0), axis, "AVERAGE_POOL_2D", "ADD")
        area *= axis.kernel
    return View(after(b, b.binary("MUL", tensor, b.scalar(area, tensor))), order)


def powers(p: int) -> tuple[Callable[[Builder, Tensor], Tensor], Callable[[Builder, Tensor], Tensor]]:
    """|x|^p and its inverse."""
    if p == 1:
        return (lambda b, x: b.unary("ABS", x)), (lambda _, x: x)
    if p == 2:
        return (lambda b, x: b.binary("MUL", x, x)), (lambda b, x: b.unary("SQRT", x))
    return (
        lambda b, x: b.binary("POW", b.unary("ABS", x), b.scalar(float(p), x)),
        lambda b, x: b.binary("POW", x, b.scalar(1 / p, x)),
    )


def max_pool_with_places(b: Builder, node: Node, x: View, window: Window) -> list[View]:
    """MaxPool with its second output: where, in the flat input, each maximum stands (the first of equal ones)."""
    if not is_static(x.shape):
        raise Refused("the places of its maxima need a fixed shape", "Fix the input's shape with --shape.")
    order = channels_last(x.rank)
    peak = maximum_by_axes(b, x, window)
    axes = _axes(b, x, window)
    padded = store(b, x, order)
    lowest = float(np.finfo(np.float32).min) if x.dtype == np.float32 else float(np.iinfo(x.dtype.name).min)
    for axis in axes:
        padded = _padded(b, padded, axis, lowest)
    found: Tensor | None = None
    for taps in reversed(list(np.ndindex(*window.kernel))):
        part = padded
        for axis, index in zip(axes, taps, strict=True):
            part = _tap(b, part, axis, index)
        places = b.const(_flat_places(x.shape, axes, taps, bool(node.integer("storage_order", 0))))
        if found is None:
            found = b.emit("BROADCAST_TO", [places, b.dims(part.shape)], part.shape, np.int32)
        hit = b.binary("EQUAL", part, peak.tensor, np.bool_)
        found = b.emit("SELECT_V2", [hit, places, found], part.shape, np.int32)
    if found is None:
        raise Refused("its kernel is empty")
    return [peak, View(b.cast(found, np.int64), order)]


def _flat_places(shape: Shape, axes: list[_Axis], taps: tuple[int, ...], column_major: bool) -> Array:
    """The index in the flat input (ONNX order) of the windows' element ``taps``: (N, *windows, C)."""
    spatial = shape[2:]
    strides = [int(np.prod(spatial[at + 1 :])) for at in range(len(spatial))]
    if column_major:
        strides = [int(np.prod(spatial[:at])) for at in range(len(spatial))]
    plane = int(np.prod(spatial))
    rank = len(shape)
    total = np.arange(shape[0]).reshape(-1, *(1,) * (rank - 1)) * (shape[1] * plane)
    total = total + np.arange(shape[1]).reshape(*(1,) * (rank - 1), -1) * plane
    for axis, tap, stride in zip(axes, taps, strides, strict=True):
        places = np.arange(axis.count) * axis.stride + tap * axis.dilation - axis.pads[0]
        total = total + (places * stride).reshape(tuple(-1 if at == axis.at else 1 for at in range(rank)))
    found: Array = total.astype(np.int32)
    return found
