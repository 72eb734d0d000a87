"""Conv and ConvTranspose, 1-D and 2-D. Weights come as (out, in/group, *kernel) and leave as LiteRT wants them."""

from __future__ import annotations

import numpy as np

from edgekit.artifacts import Array
from edgekit.converters.onnx_to_litert.builder import Builder
from edgekit.converters.onnx_to_litert.graph import Shape, Tensor, is_static
from edgekit.converters.onnx_to_litert.node import Node, Refused
from edgekit.converters.onnx_to_litert.ops.conv_3d import conv_3d, conv_transpose_3d
from edgekit.converters.onnx_to_litert.spatial import Window, conv_size, fit_padding, read_window
from edgekit.converters.onnx_to_litert.view import NHWC, View, channels_last, store

__all__ = ["as_2d", "conv", "conv_transpose", "from_2d", "to_2d"]


def to_2d(b: Builder, x: View) -> Tensor:
    """``x`` (N, C, L) or (N, C, H, W) as a stored (N, H, W, C), H being 1 for sequences."""
    tensor = store(b, x, channels_last(x.rank))
    if x.rank == 4:
        return tensor
    n, length, channels = tensor.shape
    return b.reshape(tensor, (n, 1, length, channels))


def from_2d(b: Builder, y: Tensor, rank: int) -> View:
    """The reverse of ``to_2d`` for a result stored as (N, H, W, C)."""
    if rank == 4:
        return View(y, NHWC)
    n, _, length, channels = y.shape
    return View(b.reshape(y, (n, length, channels)), channels_last(3))


def _with_channels(b: Builder, x: View, channels: int) -> View:
    """``x``, the number of its channels put in where it was unknown: the weights leave no other."""
    at = x.axis(1)
    if x.tensor.shape[at] < 0 <= channels and x.tensor not in b.graph.inputs:
        x.tensor.shape = (*x.tensor.shape[:at], channels, *x.tensor.shape[at + 1 :])
    return x


def as_2d(window: Window) -> Window:
    """``window`` over one axis as one over (1, that axis)."""
    if len(window.kernel) == 2:
        return window
    return Window(
        (1, *window.kernel),
        (1, *window.strides),
        (1, *window.dilations),
        ((0, 0), *window.pads),
        window.ceil,
        window.same_upper,
    )


def conv(b: Builder, node: Node) -> View:
    """Conv -> CONV_2D, or DEPTHWISE_CONV_2D when each group has one input channel."""
    x, w = node.floats(0), node.floats(1)
    if w.rank != x.rank:
        raise Refused(f"weights with {w.rank} axes do not fit an input with {x.rank}")
    if x.rank == 5:
        return conv_3d(b, node)
    if x.rank not in (3, 4):
        raise Refused(f"LiteRT convolutions are 1-D to 3-D, this one is {x.rank - 2}-D")
    out_channels, per_group, *kernel = w.shape
    groups = node.integer("group", 1)
    x = _with_channels(b, x, per_group * groups)
    channels = x.shape[1]
    if channels < 0 or channels != per_group * groups or out_channels % groups:
        raise Refused(f"{channels} input channels do not fit weights {list(w.shape)} in {groups} groups")
    window = as_2d(read_window(node, kernel, x.shape[2:]))
    sizes = [1, *x.shape[2:]] if x.rank == 3 else list(x.shape[2:])
    out_sizes = [conv_size(b, size, window, axis) for axis, size in enumerate(sizes)]
    source, padding = fit_padding(b, to_2d(b, x), window)
    depthwise = groups == channels and groups > 1
    order = (1, *range(2, w.rank), 0) if depthwise else (0, *range(2, w.rank), 1)
    weights = store(b, w, order)
    weights = b.reshape(weights, (weights.shape[0], *window.kernel, weights.shape[-1]))
    bias = node.view(2).tensor if node.has_input(2) else b.const(np.zeros(out_channels, np.float32))
    options: dict[str, object] = {
        "padding": padding,
        "strideH": window.strides[0],
        "strideW": window.strides[1],
        "dilationHFactor": window.dilations[0],
        "dilationWFactor": window.dilations[1],
    }
    if depthwise:
        options["depthMultiplier"] = out_channels // channels
    shape = (x.shape[0], *out_sizes, out_channels)
    kind = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
    return from_2d(b, b.emit(kind, [source, weights, bias], shape, x.dtype, **options), x.rank)


def conv_transpose(b: Builder, node: Node) -> View:
    """ConvTranspose -> TRANSPOSE_CONV per group; padding that LiteRT does not know is cut off the full result."""
    x = node.floats(0)
    if x.rank == 5:
        return conv_transpose_3d(b, node)
    if x.rank not in (3, 4):
        raise Refused(f"LiteRT transposed convolutions are 1-D to 3-D, this one is {x.rank - 2}-D")
    given = node.floats(1)
    groups = node.integer("group", 1)
    channels = given.shape[0]
    x = _with_channels(b, x, channels)
    if x.shape[1] != channels or channels % groups:
        raise Refused(f"{x.shape[1]} input channels do not fit weights {list(given.shape)} in {groups} groups")
    weights = given.const
    if weights is None or (node.has_input(2) and node.view(2).const is None):
        return _computed_transpose(b, node, x, given)
    weights, window, extra = _transpose_window(node, x.shape[2:], weights)
    source = to_2d(b, x)
    if groups == 1 and _is_upscaling(window, extra):
        return from_2d(b, _upscale(b, source, weights, node.optional_const(2, "bias")), x.rank)
    depth = channels // groups
    bias = node.optional_const(2, "bias")
    inside = groups == 1 and all(e <= pad[1] for e, pad in zip(extra, window.pads, strict=True))
    parts = []
    for group in range(groups):
        part = (
            source
            if groups == 1
            else b.strided_slice(source, [0, 0, 0, group * depth], [2**31 - 1] * 3 + [(group + 1) * depth], [1] * 4)
        )
        own = weights[group * depth : (group + 1) * depth]
        kernel = b.const(np.ascontiguousarray(own.transpose(1, 2, 3, 0)))
        parts.append(_transpose_conv(b, part, kernel, window, extra, bias if inside else None))
    y = b.concat(parts, 3)
    if bias is not None and not inside:
        y = b.binary("ADD", y, b.const(bias))
    return from_2d(b, y, x.rank)


def _computed_transpose(b: Builder, node: Node, x: View, weights: View) -> View:
    """ConvTranspose whose weights or bias are computed at run time."""
    if max(node.integers("dilations", (1,))) > 1:
        raise Refused("its weights are computed at run time and dilated", "Make the weights a constant.")
    if not is_static(weights.shape):
        raise Refused("the shape of its weights is known only at run time", "Make the weights a constant.")
    like = np.zeros(weights.shape, np.float32)  # only the shape counts here
    like, window, extra = _transpose_window(node, x.shape[2:], like)
    groups, (channels, out_channels, *_) = node.integer("group", 1), like.shape
    source, depth = to_2d(b, x), channels // groups
    kernel = b.reshape(store(b, weights, (1, *range(2, weights.rank), 0)), (out_channels, *window.kernel, channels))
    parts = []
    for group in range(groups):
        begin, end = [0, 0, 0, group * depth], [2**31 - 1] * 3 + [(group + 1) * depth]
        own, part = (b.strided_slice(tensor, begin, end, [1] * 4) for tensor in (kernel, source))
        parts.append(_transpose_conv(b, part, own, window, extra, None))
    y = b.concat(parts, 3)
    if node.has_input(2):
        y = b.binary("ADD", y, node.view(2).tensor)
    return from_2d(b, y, x.rank)


def _is_upscaling(window: Window, extra: tuple[int, ...]) -> bool:
    """Whether each input pixel makes a square of its own: no two overlap, nothing is cut off or added."""
    block = window.kernel[0]
    square = block > 1 and window.kernel == window.strides == (block, block)
    return square and not any(extra) and not any(sum(pad) for pad in window.pads)


def _upscale(b: Builder, x: Tensor, weights: Array, bias: Array | None) -> Tensor:
    """Such a transposed convolution as a 1x1 CONV_2D and DEPTH_TO_SPACE, whose sizes need not be known.

    Channel (ky * k + kx) * out + o of the convolution is pixel (ky, kx) of the square, in channel o. The answers are
    the same to the bit; XNNPACK refuses a TRANSPOSE_CONV whose output size is computed.
    """
    channels, out_channels, block, _ = weights.shape
    kernel = np.ascontiguousarray(weights.transpose(2, 3, 1, 0)).reshape(-1, 1, 1, channels)
    spread = np.zeros(len(kernel), np.float32) if bias is None else np.tile(bias, block * block)
    n, height, width, _ = x.shape
    options = {"padding": "VALID", "strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1}
    shape = (n, height, width, len(kernel))
    deep = b.emit("CONV_2D", [x, b.const(kernel), b.const(spread)], shape, x.dtype, **options)
    grown = tuple(side * block if side >= 0 else b.new_dim(("grow", side, block)) for side in (height, width))
    return b.emit("DEPTH_TO_SPACE", [deep], (n, *grown, out_channels), x.dtype, blockSize=block)


def _transpose_window(node: Node, spatial: Shape, weights: Array) -> tuple[Array, Window, tuple[int, ...]]:
    """The weights as (in, out, H, W) with dilation written out, the 2-D window, and the output padding."""
    rank = len(spatial)
    dilations = node.integers("dilations", (1,) * rank)
    if max(dilations) > 1:
        kernel = [(k - 1) * d + 1 for k, d in zip(weights.shape[2:], dilations, strict=True)]
        spread = np.zeros((*weights.shape[:2], *kernel), weights.dtype)
        every: tuple[slice, ...] = tuple(slice(None, None, d) for d in dilations)
        spread[(slice(None), slice(None), *every)] = weights
        weights = spread
    strides = node.integers("strides", (1,) * rank)
    extra = node.integers("output_padding", (0,) * rank)
    flat = node.integers("pads", (0,) * (2 * rank))
    pads = list(zip(flat[:rank], flat[rank:], strict=True))
    auto_pad = node.text("auto_pad", "NOTSET")
    if node.has("output_shape") or auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        if min(spatial) < 0:
            raise Refused("its padding depends on a dynamic input size", "Fix the input's shape with --shape.")
        wanted = node.integers("output_shape", tuple(n * s for n, s in zip(spatial, strides, strict=True)))[-rank:]
        surplus = [
            s * (n - 1) + e + k - out
            for n, s, k, e, out in zip(spatial, strides, weights.shape[2:], extra, wanted, strict=True)
        ]
        extra = tuple(e + max(-total, 0) for e, total in zip(extra, surplus, strict=True))
        pads = [(max(total, 0) // 2, max(total, 0) - max(total, 0) // 2) for total in surplus]
        if auto_pad != "SAME_UPPER":
            pads = [(after, before) for before, after in pads]
    window = Window(tuple(weights.shape[2:]), strides, (1,) * rank, tuple(pads))
    if rank == 1:
        return weights[:, :, None, :], as_2d(window), (0, *extra)
    return weights, window, extra


def _transpose_conv(
    b: Builder, x: Tensor, kernel: Tensor, window: Window, extra: tuple[int, ...], bias: Array | None
) -> Tensor:
    """One group of a transposed convolution of ``x`` (N, H, W, C) with ``kernel`` (out, H, W, in)."""
    sizes, full = [], []
    for axis in range(2):
        n, k, s, (before, after) = x.shape[1 + axis], window.kernel[axis], window.strides[axis], window.pads[axis]
        if n < 0:
            full.append(n if (k, s) == (1, 1) else b.new_dim(("upconv", n, k, s)))
            cut = before + after - extra[axis]
            sizes.append(full[-1] if cut == 0 else b.new_dim(("upconv", n, k, s, cut)))
        else:
            full.append((n - 1) * s + k)
            sizes.append(full[-1] - before - after + extra[axis])
    dynamic = any(n < 0 for n in x.shape[1:3])
    same = not dynamic and all(
        -(-sizes[axis] // window.strides[axis]) == x.shape[1 + axis]
        and full[axis] >= sizes[axis]
        and window.pads[axis][0] == (full[axis] - sizes[axis]) // 2
        for axis in range(2)
    )
    shape = (x.shape[0], *(sizes if same else full), kernel.shape[0])
    target = _full_shape(b, x, window, kernel.shape[0]) if dynamic or x.shape[0] < 0 else b.dims(shape)
    if not dynamic and x.shape[0] < 0:
        target = b.concat([b.dims((x.shape[0],)), b.dims(shape[1:])], 0)
    operands = [target, kernel, x] if bias is None else [target, kernel, x, b.const(bias)]
    y = b.emit(
        "TRANSPOSE_CONV",
        operands,
        shape,
        x.dtype,
        padding="SAME" if same else "VALID",
        strideH=window.strides[0],
        strideW=window.strides[1],
    )
    return y if same else _crop(b, y, window, extra, sizes)


def _full_shape(b: Builder, x: Tensor, window: Window, out_channels: int) -> Tensor:
    """(N, (H-1)*s+k, (W-1)*s+k, out) at run time: shape * [1, s, s, 0] + [0, k-s, k-s, out]."""
    (sh, sw), (kh, kw) = window.strides, window.kernel
    factor = b.const(np.array([1, sh, sw, 0], np.int32))
    offset = b.const(np.array([0, kh - sh, kw - sw, out_channels], np.int32))
    return b.binary("ADD", b.binary("MUL", b.shape_of(x), factor), offset)


def _crop(b: Builder, y: Tensor, window: Window, extra: tuple[int, ...], sizes: list[int]) -> Tensor:
    """The full result without its padding; output padding that reaches past it is filled with zeros."""
    beyond = [max(extra[axis] - window.pads[axis][1], 0) for axis in range(2)]
    y = b.pad(y, [(0, 0), (0, beyond[0]), (0, beyond[1]), (0, 0)])
    begin = [0, window.pads[0][0], window.pads[1][0], 0]
    end = [2**31 - 1] * 4
    for axis in range(2):
        cut = window.pads[axis][1] - extra[axis] + beyond[axis]
        if cut:
            end[1 + axis] = -cut
    out = b.strided_slice(y, begin, end, [1] * 4)
    if out is not y:
        out.shape = (y.shape[0], *sizes, y.shape[3])
        b.note_shape(out)
    return out
