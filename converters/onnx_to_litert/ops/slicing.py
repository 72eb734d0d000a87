"""Taking tensors apart and putting them together: Slice, Split, Gather, Concat."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edgekit.converters.onnx_to_litert.builder import Builder
from edgekit.converters.onnx_to_litert.graph import Tensor, is_static
from edgekit.converters.onnx_to_litert.node import Node, Refused
from edgekit.converters.onnx_to_litert.ops.at_run_time import slice_by, split_by
from edgekit.converters.onnx_to_litert.view import NHWC, View, align, reshape_view, store

__all__ = ["concat", "depth_to_space", "gather", "slice_op", "space_to_depth", "split"]

_END = 2**31 - 1
_SLICED_AXES = 5  # STRIDED_SLICE takes no more


def slice_op(b: Builder, node: Node) -> View:
    """Slice -> STRIDED_SLICE on the storage axes."""
    x = node.view(0)
    if node.opset >= 10 and any(node.has_input(index) and node.view(index).const is None for index in range(1, 5)):
        return slice_by(b, node, x)
    starts, ends, axes, steps = _slice_arguments(node)
    begin, end, stride = [0] * x.rank, [_END] * x.rank, [1] * x.rank
    for start, stop, axis, step in zip(starts, ends, axes, steps, strict=True):
        at = x.axis(axis)
        begin[at], end[at], stride[at] = _clamp(start, stop, step, x.tensor.shape[at])
    return x.with_tensor(b.strided_slice(x.tensor, begin, end, stride))


def _slice_arguments(node: Node) -> tuple[list[int], list[int], list[int], list[int]]:
    if node.opset < 10:
        starts, ends = list(node.integers("starts")), list(node.integers("ends"))
        axes = list(node.integers("axes", range(len(starts))))
        return starts, ends, axes, [1] * len(starts)
    starts = [int(value) for value in node.const(1, "starts").reshape(-1)]
    ends = [int(value) for value in node.const(2, "ends").reshape(-1)]
    axes_data, steps_data = node.optional_const(3, "axes"), node.optional_const(4, "steps")
    axes = list(range(len(starts))) if axes_data is None else [int(value) for value in axes_data.reshape(-1)]
    steps = [1] * len(starts) if steps_data is None else [int(value) for value in steps_data.reshape(-1)]
    return starts, ends, axes, steps


def _clamp(start: int, stop: int, step: int, dim: int) -> tuple[int, int, int]:
    """Bounds as LiteRT reads them: a known axis gets exact ones, an unknown one keeps Python's meaning."""
    if dim >= 0:
        start, stop, step = slice(start, stop, step).indices(dim)
        if step < 0 and stop < 0:
            return start, -(2**31), step
        return start, stop, step
    low, high = -(2**31), _END
    return max(min(start, high), low), max(min(stop, high), low), step


def split(b: Builder, node: Node) -> list[View]:
    """Split -> SPLIT for equal parts; for others STRIDED_SLICEs, which XNNPACK takes, where they can, else SPLIT_V."""
    x = node.view(0)
    at = x.axis(node.integer("axis", 0))
    if node.opset >= 13 and node.has_input(1) and node.view(1).const is None:
        return split_by(b, node, x, at)
    sizes = _split_sizes(b, node, x.tensor.shape[at])
    if len(sizes) == 1:
        return [x]
    if len(set(sizes)) > 1 and x.dtype == np.float32 and is_static(x.tensor.shape) and x.rank <= _SLICED_AXES:
        return [x.with_tensor(b.strided_slice(x.tensor, *part)) for part in _parts(sizes, at, x.rank)]
    axis = b.const(np.array(at, np.int32))
    outputs = [((*x.tensor.shape[:at], part, *x.tensor.shape[at + 1 :]), x.dtype) for part in sizes]
    if len(set(sizes)) == 1:
        made = b.emit_many("SPLIT", [axis, x.tensor], outputs, numSplits=len(sizes))
    else:
        lengths = b.const(np.array(sizes, np.int32))
        made = b.emit_many("SPLIT_V", [x.tensor, lengths, axis], outputs, numSplits=len(sizes))
    return [x.with_tensor(tensor) for tensor in made]


def _parts(sizes: list[int], at: int, rank: int) -> Iterator[tuple[list[int], list[int], list[int]]]:
    """Begin, end and strides of consecutive parts along the storage axis ``at``."""
    start = 0
    for size in sizes:
        begin, end = [0] * rank, [_END] * rank
        begin[at], end[at] = start, start + size
        yield begin, end, [1] * rank
        start += size


def _split_sizes(b: Builder, node: Node, dim: int) -> list[int]:
    given = node.optional_const(1, "split sizes") if node.opset >= 13 else None
    sizes = [int(size) for size in (given.reshape(-1) if given is not None else node.integers("split"))]
    if sizes:
        return sizes
    parts = node.integer("num_outputs", node.output_count)
    if dim < 0 and node.has("num_outputs"):
        raise Refused("it splits a dynamic axis, whose last part may be smaller", "Fix the input's shape with --shape.")
    if dim < 0:
        return [b.new_dim(("split", dim, parts))] * parts  # parts are equal by definition
    chunk = -(-dim // parts)
    return [min(chunk, dim - chunk * index) for index in range(parts)]


def concat(b: Builder, node: Node) -> View:
    """Concat -> CONCATENATION in the order in which most of the data lies."""
    views = [node.view(index) for index in range(len(node.inputs))]
    if views[0].tensor.data is None or len(views) > 1:
        views = [view for view in views if 0 not in view.shape] or views[:1]
    tensors, order = align(b, views)
    return View(b.concat(tensors, order.index(node.integer("axis", 0) % views[0].rank)), order)


def gather(b: Builder, node: Node) -> View:
    """Gather -> GATHER; a constant scalar index -> STRIDED_SLICE, which XNNPACK takes."""
    x, indices = node.view(0), node.view(1)
    axis = node.integer("axis", 0) % x.rank
    at = x.axis(axis)
    dim = x.tensor.shape[at]
    data = indices.const
    if data is not None and data.ndim == 0 and x.dtype == np.float32 and 1 < x.rank <= _SLICED_AXES:
        return _picked(b, x, axis, int(data))
    rest = [a if a < axis else a + indices.rank - 1 for a in x.order if a != axis]
    order = (*rest[:at], *range(axis, axis + indices.rank), *rest[at:])
    shape = (*x.tensor.shape[:at], *indices.shape, *x.tensor.shape[at + 1 :])
    if data is not None:
        if dim < 0 and data.size and data.min() < 0:
            raise Refused("it counts from the end of a dynamic axis", "Fix the input's shape with --shape.")
        tensor = b.const(np.where(data < 0, data + max(dim, 0), data).astype(np.int32))
    else:
        tensor = b.cast(store(b, indices), np.int32)
        tensor = _wrapped(b, tensor, x.tensor, at)
    return View(b.emit("GATHER", [x.tensor, tensor], shape, x.dtype, axis=at), order)


def _picked(b: Builder, x: View, axis: int, index: int) -> View:
    """``x[..., index, ...]``: the one slice, and its axis dropped."""
    at = x.axis(axis)
    dim = x.tensor.shape[at]
    begin, end = [0] * x.rank, [_END] * x.rank
    begin[at] = index + dim if index < 0 <= dim else index
    end[at] = _END if index == -1 else begin[at] + 1
    part = b.strided_slice(x.tensor, begin, end, [1] * x.rank)
    kept = [stored for stored in range(x.rank) if stored != at]
    shape = tuple(x.tensor.shape[stored] for stored in kept)
    order = tuple(x.order[stored] - (x.order[stored] > axis) for stored in kept)
    if sum(not b.can_read(size) for size in shape) <= 1:
        return View(b.reshape(part, shape), order)
    return View(b.emit("SQUEEZE", [part], shape, x.dtype, squeezeDims=[at]), order)


def _wrapped(b: Builder, indices: Tensor, x: Tensor, at: int) -> Tensor:
    """Indices known at run time may count from the end, which GATHER does not allow."""
    size = (
        b.reshape(b.strided_slice(b.shape_of(x), [at], [at + 1], [1]), ())
        if x.shape[at] < 0
        else b.const(np.array(x.shape[at], np.int32))
    )
    negative = b.binary("LESS", indices, b.const(np.array(0, np.int32)), np.bool_)
    return b.emit("SELECT_V2", [negative, b.binary("ADD", indices, size), indices], indices.shape, np.int32)


def depth_to_space(b: Builder, node: Node) -> View:
    """DepthToSpace -> DEPTH_TO_SPACE on N, H, W, C, whose order of channels is that of the mode DCR.

    CRD: by reshape and TRANSPOSE, or, when a size is dynamic or the channels come from a convolution (which can make
    them in any order, see ``fuse``), DEPTH_TO_SPACE behind a GATHER of the channels.
    """
    x, block = node.view(0), node.integer("blocksize", 1)
    n, c, h, w = x.shape
    if c < 0:
        raise Refused("its number of channels is known only at run time", "Fix the input's shape with --shape.")
    depth = c // (block * block)
    direct = node.text("mode", "DCR") == "DCR" or depth == 1
    if direct or not is_static(x.shape) or _is_convolved(b, node, x):
        source = store(b, x, NHWC)
        if not direct:
            places = np.arange(c, dtype=np.int32).reshape(depth, block * block).T.reshape(-1)
            source = b.emit("GATHER", [source, b.const(places)], source.shape, x.dtype, axis=3)
        grown = tuple(dim * block if dim >= 0 else b.new_dim(("grow", dim, block)) for dim in (h, w))
        return View(b.emit("DEPTH_TO_SPACE", [source], (n, *grown, depth), x.dtype, blockSize=block), NHWC)
    parts = reshape_view(b, x, (n, depth, block, block, h, w))
    moved = View(parts.tensor, tuple((0, 1, 4, 2, 5, 3).index(axis) for axis in parts.order))
    return reshape_view(b, moved, (n, depth, h * block, w * block))


def _is_convolved(b: Builder, node: Node, x: View) -> bool:
    """Whether ``x`` is what a convolution with constant weights has just made, for ``node`` alone."""
    last = b.graph.ops[-1] if b.graph.ops else None
    value = node.ir.inputs[0]
    if last is None or value is None or last.outputs[0] is not x.tensor or last.kind != "CONV_2D":
        return False
    constant = all(tensor is not None and tensor.data is not None for tensor in last.inputs[1:])
    return constant and len(value.uses()) == 1 and not value.is_graph_output()


def space_to_depth(b: Builder, node: Node) -> View:
    """SpaceToDepth -> SPACE_TO_DEPTH (mode DCR on N, H, W, C); CRD by reshape and TRANSPOSE."""
    x, block = node.view(0), node.integer("blocksize", 1)
    if node.text("mode", "DCR") != "DCR":
        n, c, h, w = node.static_shape(0)
        parts = reshape_view(b, x, (n, c, h // block, block, w // block, block))
        moved = View(parts.tensor, tuple((0, 1, 3, 5, 2, 4).index(axis) for axis in parts.order))
        return reshape_view(b, moved, (n, c * block * block, h // block, w // block))
    n, c, h, w = x.shape
    shrunk = tuple(dim // block if dim >= 0 else b.new_dim(("shrink", dim, block)) for dim in (h, w))
    shape = (n, *shrunk, c * block * block)
    return View(b.emit("SPACE_TO_DEPTH", [store(b, x, NHWC)], shape, x.dtype, blockSize=block), NHWC)
