"""GridSample: values of an image at computed points, as a GATHER for each neighbour that takes part."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from edgekit.converters.onnx_to_litert.builder import Builder
from edgekit.converters.onnx_to_litert.graph import Tensor
from edgekit.converters.onnx_to_litert.node import Node, Refused
from edgekit.converters.onnx_to_litert.ops.resize_computed import cubic_weights
from edgekit.converters.onnx_to_litert.sizes import axis_positions, size_scalar, strides_of
from edgekit.converters.onnx_to_litert.view import View, channels_last, store

__all__ = ["grid_sample"]

_MODES = {"bilinear": "linear", "linear": "linear", "nearest": "nearest", "bicubic": "cubic", "cubic": "cubic"}
#: Keys' parameter of ONNX's GridSample
_CUBIC = -0.75


@dataclass(frozen=True, slots=True)
class _Neighbour:
    """Along one axis: whole positions inside the image (float32), and the weights there; None for 1 everywhere."""

    place: Tensor
    weight: Tensor | None


def grid_sample(b: Builder, node: Node) -> View:
    """GridSample over two or three axes."""
    x, grid = node.floats(0), node.floats(1)
    mode = _MODES.get(node.text("mode", "linear"))
    if mode is None or (mode == "cubic" and x.rank != 4):
        raise Refused(f"its mode '{node.text('mode', 'linear')}' is unknown for {x.rank - 2} axes")
    if grid.rank != x.rank or x.rank not in (4, 5) or grid.shape[-1] != x.rank - 2:
        raise Refused(f"a grid of shape {list(grid.shape)} does not fit an image with {x.rank} axes")
    order = channels_last(x.rank)
    image, points = store(b, x, order), store(b, grid)
    n, *sizes, channels = image.shape
    shape = (n, *points.shape[1:-1])
    axes = []
    for axis, size in enumerate(sizes):
        # the grid names the axes from the last to the first
        coordinate = _column(b, points, len(sizes) - 1 - axis)
        axes.append(_neighbours(b, node, coordinate, b.cast(size_scalar(b, size), np.float32), mode))
    strides = strides_of(b, image.shape[:-1])
    rows = b.reshape(image, (_product(b, image.shape[:-1]), channels))
    start = b.binary("MUL", axis_positions(b, shape, 0), strides[0])
    total: Tensor | None = None
    for chosen in product(*axes):
        place, weight = start, None
        for neighbour, stride in zip(chosen, strides[1:], strict=True):
            place = b.binary("ADD", place, b.binary("MUL", b.cast(neighbour.place, np.int32), stride))
            weight = _times(b, weight, neighbour.weight)
        part = b.emit("GATHER", [rows, place], (*place.shape, channels), x.dtype, axis=0)
        if weight is not None:
            part = b.binary("MUL", part, b.reshape(weight, (*weight.shape, 1)))
        total = part if total is None else b.binary("ADD", total, part)
    if total is None:
        raise Refused("its image has no axes")
    return View(total, order)


def _product(b: Builder, dims: tuple[int, ...]) -> int:
    return int(np.prod(dims)) if min(dims) >= 0 else b.new_dim(("count", *dims))


def _column(b: Builder, points: Tensor, index: int) -> Tensor:
    begin, end = [0] * points.rank, [2**31 - 1] * points.rank
    begin[-1], end[-1] = index, index + 1
    column = b.strided_slice(points, begin, end, [1] * points.rank)
    return b.emit("SQUEEZE", [column], points.shape[:-1], points.dtype, squeezeDims=[points.rank - 1])


def _times(b: Builder, left: Tensor | None, right: Tensor | None) -> Tensor | None:
    if left is None or right is None:
        return right if left is None else left
    return b.binary("MUL", left, right)


def _plus(b: Builder, x: Tensor, value: float) -> Tensor:
    return b.binary("ADD", x, b.scalar(value, x))


def _neighbours(b: Builder, node: Node, coordinate: Tensor, size: Tensor, mode: str) -> list[_Neighbour]:
    """The neighbours along one axis of points at ``coordinate`` in -1 to 1."""
    corners = bool(node.integer("align_corners", 0))
    padding = node.text("padding_mode", "zeros")
    last, half = _plus(b, size, -1.0), b.scalar(0.5, size)
    above = _plus(b, coordinate, 1.0)
    if corners:
        at = b.binary("MUL", b.binary("MUL", above, half), last)
    else:
        at = b.binary("MUL", _plus(b, b.binary("MUL", above, size), -1.0), half)
    if padding == "border" and mode != "cubic":  # the cubic's neighbours are moved to the border one by one
        at = _clipped(b, at, last)
    if mode == "nearest":
        return [_inside(b, b.unary("ROUND", at), None, size, padding, corners)]
    base = b.unary("FLOOR", at)
    fraction = b.binary("SUB", at, base)
    if mode == "linear":
        by_offset = {0: b.binary("SUB", b.scalar(1.0, fraction), fraction), 1: fraction}
    else:
        by_offset = cubic_weights(b, fraction, _CUBIC)
    return [
        _inside(b, _plus(b, base, float(offset)), weight, size, padding, corners)
        for offset, weight in by_offset.items()
    ]


def _clipped(b: Builder, place: Tensor, last: Tensor) -> Tensor:
    return b.binary("MAXIMUM", b.binary("MINIMUM", place, last), b.scalar(0.0, last))


def _inside(b: Builder, place: Tensor, weight: Tensor | None, size: Tensor, padding: str, corners: bool) -> _Neighbour:
    """The neighbour moved into the image, or without weight where it lies outside."""
    last = _plus(b, size, -1.0)
    if padding == "reflection":
        place = _reflected(b, place, size, corners)
    near = _clipped(b, place, last)
    if padding == "zeros":
        within = b.cast(b.binary("EQUAL", near, place, np.bool_), np.float32)
        weight = _times(b, weight, within)
    elif padding not in ("border", "reflection"):
        raise Refused(f"unknown padding mode '{padding}'")
    return _Neighbour(near, weight)


def _reflected(b: Builder, place: Tensor, size: Tensor, corners: bool) -> Tensor:
    """Whole positions mirrored at the centres of the edge pixels (``corners``) or at their outer edges."""
    low = 0.0 if corners else -0.5
    span = b.binary("MAXIMUM", _plus(b, size, -1.0), b.scalar(1.0, size)) if corners else size
    phase = b.binary("FLOOR_MOD", _plus(b, place, -low), b.binary("ADD", span, span))
    return _plus(b, b.binary("SUB", span, b.unary("ABS", b.binary("SUB", phase, span))), low)
