"""DFT and STFT as products with a constant matrix of cosines and sines; Col2Im, which undoes overlapping windows."""

from __future__ import annotations

import numpy as np

from edgekit.artifacts import Array
from edgekit.converters.onnx_to_litert.builder import Builder
from edgekit.converters.onnx_to_litert.graph import is_static
from edgekit.converters.onnx_to_litert.node import Node, Refused
from edgekit.converters.onnx_to_litert.ops.matmul import fully_connected
from edgekit.converters.onnx_to_litert.view import View, store

__all__ = ["col2im", "dft", "stft"]

#: a transform of n elements takes n * n products; beyond this the matrix itself is too large
_LONGEST = 4096
_REMEDY = "Fix the input's shape with --shape."


def dft(b: Builder, node: Node) -> View:
    """DFT along one axis of (..., 1 or 2) -> one FULLY_CONNECTED from all real and imaginary parts to all."""
    x = node.floats(0)
    default = -2 if node.opset >= 20 else 1
    if node.opset >= 20 and node.has_input(2):
        axis = int(node.const(2, "axis").reshape(-1)[0]) % x.rank
    else:
        axis = node.integer("axis", default) % x.rank
    size, parts = x.shape[axis], x.shape[-1]
    given = node.optional_const(1, "length")
    length = size if given is None else int(given.reshape(-1)[0])
    if size < 0 or parts < 0:
        raise Refused("it transforms a dynamic axis", _REMEDY)
    if node.integer("inverse", 0):
        raise Refused("EdgeKit has no lowering for the inverse transform", "Write it as a product with a matrix.")
    matrix = _fourier(size, parts, length, length // 2 + 1 if node.integer("onesided", 0) else length)
    order = (*(at for at in range(x.rank - 1) if at != axis), axis, x.rank - 1)
    tensor = store(b, x, order)
    flat = b.reshape(tensor, (*tensor.shape[:-2], size * parts))
    result = fully_connected(b, flat, b.const(matrix))
    return View(b.reshape(result, (*tensor.shape[:-2], len(matrix) // 2, 2)), order)


def _fourier(size: int, parts: int, length: int, count: int) -> Array:
    """(2 count, parts size): from pairs (real, imaginary) at each time to those at each frequency."""
    if max(length, size) > _LONGEST:
        raise Refused(f"a transform of {max(length, size)} elements would need too large a matrix")
    used = min(size, length)
    angles = 2 * np.pi * np.outer(np.arange(count), np.arange(used)) / length
    turn = np.exp(-1j * angles)
    blocks = np.zeros((count, 2, size, parts))
    blocks[:, 0, :used, 0], blocks[:, 1, :used, 0] = turn.real, turn.imag
    if parts == 2:
        blocks[:, 0, :used, 1], blocks[:, 1, :used, 1] = -turn.imag, turn.real
    matrix: Array = blocks.reshape(2 * count, size * parts).astype(np.float32)
    return matrix


def stft(b: Builder, node: Node) -> View:
    """STFT of a real signal (batch, length, 1) -> CONV_2D with a windowed wave for each frequency and part."""
    x = node.floats(0)
    step = int(node.const(1, "step").reshape(-1)[0])
    window = node.optional_const(2, "window")
    given = node.optional_const(3, "frame length")
    if given is None and window is None:
        raise Refused("it has neither a window nor a frame length")
    frame = int(given.reshape(-1)[0]) if given is not None else len(window if window is not None else ())
    if x.rank == 3 and x.shape[-1] != 1:
        raise Refused("its signal is complex", "Transform real and imaginary parts apart.")
    onesided = bool(node.integer("onesided", 1))
    matrix = _fourier(frame, 1, frame, frame // 2 + 1 if onesided else frame)
    if window is not None:
        matrix = matrix * window.astype(np.float32)
    n, length = x.shape[:2]
    frames = (length - frame) // step + 1 if length >= 0 else b.new_dim(("frames", length, frame, step))
    if n < 0 and length < 0:
        raise Refused("both the batch and the length of its signal are dynamic", _REMEDY)
    image = b.reshape(store(b, x), (n, 1, length, 1))
    operands = [image, b.const(matrix[:, None, :, None]), b.const(np.zeros(len(matrix), np.float32))]
    options = {"padding": "VALID", "strideH": 1, "strideW": step, "dilationHFactor": 1, "dilationWFactor": 1}
    waves = b.emit("CONV_2D", operands, (n, 1, frames, len(matrix)), x.dtype, **options)
    return View.of(b.reshape(waves, (n, frames, len(matrix) // 2, 2)))


def col2im(b: Builder, node: Node) -> View:
    """Col2Im: windows laid back into the image, overlapping ones added up -> one SCATTER_ND."""
    x = node.floats(0)
    if not is_static(x.shape):
        raise Refused("it needs a fixed shape", _REMEDY)
    image = [int(size) for size in node.const(1, "image shape").reshape(-1)]
    block = [int(size) for size in node.const(2, "block shape").reshape(-1)]
    n, rows, count = x.shape
    taps = int(np.prod(block))
    channels = rows // taps
    places, padded, pads = _block_places(node, image, block)
    if len(places) != taps * count:
        raise Refused(f"{count} windows do not cover an image of {image}")
    stored = b.reshape(store(b, x), (n, channels, taps * count))
    values = b.transpose(stored, (2, 0, 1))
    shape = (int(np.prod(padded)), n, channels)
    total = b.emit("SCATTER_ND", [b.const(places[:, None]), values, b.dims(shape)], shape, x.dtype)
    spread = b.reshape(total, (*padded, n, channels))
    begin, end = [before for before, _ in pads], [before + size for (before, _), size in zip(pads, image, strict=True)]
    cut = b.strided_slice(spread, [*begin, 0, 0], [*end, n, channels], [1] * spread.rank)
    return View(cut, (*range(2, 2 + len(image)), 0, 1))


def _block_places(node: Node, image: list[int], block: list[int]) -> tuple[Array, list[int], list[tuple[int, int]]]:
    """For each (tap, window) its place in the flat padded image; the padded sizes; the padding."""
    rank = len(image)
    strides, dilations = node.integers("strides", (1,) * rank), node.integers("dilations", (1,) * rank)
    flat = node.integers("pads", (0,) * (2 * rank))
    pads = list(zip(flat[:rank], flat[rank:], strict=True))
    padded = [size + sum(pad) for size, pad in zip(image, pads, strict=True)]
    along = []
    for size, kernel, stride, dilation in zip(padded, block, strides, dilations, strict=True):
        steps = (size - (kernel - 1) * dilation - 1) // stride + 1
        along.append(np.arange(kernel)[:, None] * dilation + np.arange(steps)[None] * stride)
    total = np.zeros((1,) * (2 * rank), np.int64)
    for axis, places in enumerate(along):
        shape = [1] * (2 * rank)
        shape[axis], shape[rank + axis] = places.shape
        total = total * padded[axis] + places.reshape(shape)
    found: Array = total.reshape(-1).astype(np.int32)
    return found, padded, pads
