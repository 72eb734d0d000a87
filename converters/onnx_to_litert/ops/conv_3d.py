"""Convolutions over three axes: CONV_3D and CONV_3D_TRANSPOSE, which take N, D, H, W, C and no padding but SAME."""

from __future__ import annotations

import numpy as np

from edgekit.converters.onnx_to_litert.builder import Builder
from edgekit.converters.onnx_to_litert.graph import Tensor, is_static
from edgekit.converters.onnx_to_litert.node import Node, Refused
from edgekit.converters.onnx_to_litert.spatial import Window, conv_size, read_window
from edgekit.converters.onnx_to_litert.view import View, channels_last, store

__all__ = ["conv_3d", "conv_transpose_3d"]

_END = 2**31 - 1
_REMEDY = "Fix the input's shape with --shape."


def conv_3d(b: Builder, node: Node) -> View:
    """Conv over three axes -> CONV_3D for each group; padding is written out."""
    x, w = node.floats(0), node.floats(1)
    out_channels, per_group, *kernel = w.shape
    groups = node.integer("group", 1)
    if x.shape[1] != per_group * groups or out_channels % groups:
        raise Refused(f"{x.shape[1]} input channels do not fit weights {list(w.shape)} in {groups} groups")
    window = read_window(node, kernel, x.shape[2:])
    sizes = [conv_size(b, size, window, axis) for axis, size in enumerate(x.shape[2:])]
    source = b.pad(store(b, x, channels_last(5)), [(0, 0), *window.pads, (0, 0)])
    weights = store(b, w, (2, 3, 4, 1, 0))
    units = out_channels // groups
    parts = []
    for group in range(groups):
        part = _channels(b, source, group * per_group, per_group)
        own = _channels(b, weights, group * units, units)
        operands = [part, own, b.const(np.zeros(units, np.float32))]
        parts.append(b.emit("CONV_3D", operands, (x.shape[0], *sizes, units), x.dtype, **_options(window)))
    return View(_with_bias(b, node, b.concat(parts, 4)), channels_last(5))


def conv_transpose_3d(b: Builder, node: Node) -> View:
    """ConvTranspose over three axes -> CONV_3D_TRANSPOSE for each group, cut to size."""
    x, w = node.floats(0), node.floats(1)
    if not is_static(x.shape) or not is_static(w.shape):
        raise Refused("a transposed convolution over three axes needs fixed sizes", _REMEDY)
    if node.has("output_shape") or node.text("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise Refused("its padding is given by its result", "Export it with explicit padding.")
    depth, units, *kernel = w.shape
    groups = node.integer("group", 1)
    if x.shape[1] != depth or depth % groups:
        raise Refused(f"{x.shape[1]} input channels do not fit weights {list(w.shape)} in {groups} groups")
    window = read_window(node, kernel, x.shape[2:])
    if max(window.dilations) > 1:
        raise Refused("LiteRT has no dilated transposed convolution over three axes")
    extra = node.integers("output_padding", (0, 0, 0))
    full = [(n - 1) * s + k for n, s, k in zip(x.shape[2:], window.strides, kernel, strict=True)]
    source, weights = store(b, x, channels_last(5)), store(b, w, (2, 3, 4, 1, 0))
    parts = []
    for group in range(groups):
        size = depth // groups
        own = _channels(b, weights, group * size, size)
        part = _channels(b, source, group * size, size)
        shape = (x.shape[0], *full, units)
        target = b.const(np.array(shape, np.int32))
        parts.append(b.emit("CONV_3D_TRANSPOSE", [target, own, part], shape, x.dtype, **_options(window)))
    return View(_with_bias(b, node, _cut(b, b.concat(parts, 4), window, extra)), channels_last(5))


def _cut(b: Builder, y: Tensor, window: Window, extra: tuple[int, ...]) -> Tensor:
    """The full result without its padding, and with zeros where output padding reaches past it."""
    ends = [after - more for (_, after), more in zip(window.pads, extra, strict=True)]
    y = b.pad(y, [(0, 0), *((0, max(-end, 0)) for end in ends), (0, 0)])
    begin = [0, *(before for before, _ in window.pads), 0]
    end = [_END, *(-cut if cut > 0 else _END for cut in ends), _END]
    return b.strided_slice(y, begin, end, [1] * 5)


def _channels(b: Builder, x: Tensor, start: int, count: int) -> Tensor:
    """Some of the last axis."""
    if count == x.shape[-1]:
        return x
    if x.data is not None:
        return b.const(np.ascontiguousarray(x.data[..., start : start + count]))
    return b.strided_slice(x, [0] * 4 + [start], [_END] * 4 + [start + count], [1] * 5)


def _options(window: Window) -> dict[str, object]:
    options: dict[str, object] = {"padding": "VALID"}
    for letter, stride, dilation in zip("DHW", window.strides, window.dilations, strict=True):
        options[f"stride{letter}"] = stride
        options[f"dilation{letter}Factor"] = dilation
    return options


def _with_bias(b: Builder, node: Node, y: Tensor) -> Tensor:
    return b.binary("ADD", y, node.view(2).tensor) if node.has_input(2) else y
