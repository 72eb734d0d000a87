"""Ops about shapes: Reshape and its kin, Transpose, Shape, Expand, Tile."""

from __future__ import annotations

from collections import Counter
from math import prod

import numpy as np

from edgekit.converters.onnx_to_litert.builder import Builder
from edgekit.converters.onnx_to_litert.graph import Shape, Tensor, is_static
from edgekit.converters.onnx_to_litert.node import Node, Refused
from edgekit.converters.onnx_to_litert.ops.at_run_time import squeeze_by, unsqueeze_by
from edgekit.converters.onnx_to_litert.view import View, align, identity, reshape_view, store

__all__ = [
    "constant_of_shape",
    "expand",
    "flatten",
    "known_elements",
    "reshape",
    "shape",
    "size",
    "squeeze",
    "tile",
    "transpose",
    "unsqueeze",
]


def known_elements(view: View) -> Shape | None:
    """What is known of an integer vector: its values, symbols for unknown dimensions; None if nothing is."""
    if view.const is not None:
        return tuple(int(value) for value in view.const.reshape(-1))
    return view.tensor.elements


def reshape(b: Builder, node: Node) -> View:
    """Reshape -> nothing, a change of view, or RESHAPE."""
    x = node.view(0)
    target = known_elements(node.view(1)) if len(node.inputs) > 1 else node.integers("shape")
    if target is None:
        return _reshape_at_run_time(b, node, x)
    resolved = _resolve(b, x.shape, target, bool(node.integer("allowzero", 0)))
    if x.tensor.data is None and sum(not b.can_read(dim) for dim in resolved) > 1:
        return _reshape_at_run_time(b, node, x, resolved)
    return reshape_view(b, x, resolved)


def _reshape_at_run_time(b: Builder, node: Node, x: View, shape: Shape | None = None) -> View:
    vector = node.view(1)
    if vector.shape[0] < 0:
        raise Refused("the rank of its result is known only at run time")
    shape = shape or tuple(b.new_dim() for _ in range(vector.shape[0]))
    target = b.cast(vector.tensor, np.int32)
    if not node.integer("allowzero", 0):
        target = _zeros_copied(b, x, target, len(shape))
    return View.of(b.reshape_to(store(b, x), target, shape))


def _zeros_copied(b: Builder, x: View, target: Tensor, rank: int) -> Tensor:
    """A 0 in ``target`` stands for the dimension of ``x`` at its place; LiteRT does not know that rule."""
    own = b.shape_of(store(b, x))
    if x.rank < rank:
        own = b.concat([own, b.const(np.zeros(rank - x.rank, np.int32))], 0)
    elif x.rank > rank:
        own = b.strided_slice(own, [0], [rank], [1])
    is_zero = b.binary("EQUAL", target, b.const(np.array(0, np.int32)), np.bool_)
    return b.emit("SELECT_V2", [is_zero, own, target], target.shape, np.int32)


def _resolve(b: Builder, old: Shape, target: Shape, allow_zero: bool) -> Shape:
    """``target`` with 0 (copy the dimension) and -1 (what is left) worked out."""
    shape = list(target)
    if not allow_zero:
        for axis, dim in enumerate(shape):
            if dim == 0:
                if axis >= len(old):
                    raise Refused(f"its target {list(target)} copies an axis that the input {list(old)} has not")
                shape[axis] = old[axis]
    if -1 not in target:
        return tuple(shape)
    free = target.index(-1)
    rest = [dim for axis, dim in enumerate(shape) if axis != free]
    # cancel what stands on both sides, symbols included
    left = Counter(dim for dim in old if dim < 0)
    right = Counter(dim for dim in rest if dim < 0)
    symbols = list((left - right).elements())
    above, below = prod(dim for dim in old if dim >= 0), prod(dim for dim in rest if dim >= 0)
    clear = (
        not right - left and below and above % below == 0 and (not symbols or (len(symbols) == 1 and above == below))
    )
    if not clear:
        if is_static(old) and is_static(tuple(rest)):
            raise Refused(f"a tensor of shape {list(old)} cannot become {list(target)}")
        shape[free] = b.new_dim(("reshape", old, tuple(shape)))
    else:
        shape[free] = symbols[0] if symbols else above // below
    return tuple(shape)


def flatten(b: Builder, node: Node) -> View:
    """Flatten: two axes, split at ``axis``."""
    x = node.view(0)
    axis = node.integer("axis", 1)
    axis = axis + x.rank if axis < 0 else axis
    halves = []
    for part in (x.shape[:axis], x.shape[axis:]):
        unknown = [dim for dim in part if dim < 0]
        known = prod(dim for dim in part if dim >= 0)
        halves.append(
            known
            if not unknown
            else unknown[0]
            if known == 1 and len(unknown) == 1
            else b.new_dim(("flat", *sorted(unknown), known))
        )
    if sum(not b.can_read(dim) for dim in halves) > 1:
        tensor = store(b, x)
        lead = b.reduce("REDUCE_PROD", b.strided_slice(b.shape_of(tensor), [0], [axis], [1]), [0], keep=True)
        target = b.concat([lead, b.const(np.array([-1], np.int32))], 0)
        return View.of(b.reshape_to(tensor, target, tuple(halves)))
    return reshape_view(b, x, tuple(halves))


def _axes(node: Node, name: str = "axes") -> tuple[int, ...] | None:
    if node.has_input(1):
        return tuple(int(axis) for axis in node.const(1, name).reshape(-1))
    return node.integers(name) if node.has(name) else None


def squeeze(b: Builder, node: Node) -> View:
    """Squeeze: the axes leave the view; SQUEEZE where a reshape would have to know other dimensions."""
    x = node.view(0)
    if node.has_input(1) and node.view(1).const is None:
        return squeeze_by(b, node, x)
    axes = _axes(node)
    dropped = {axis % x.rank for axis in axes} if axes is not None else {a for a, dim in enumerate(x.shape) if dim == 1}
    kept = [axis for axis in x.order if axis not in dropped]
    order = tuple(sorted(kept).index(axis) for axis in kept)
    stored = [x.axis(axis) for axis in sorted(dropped)]
    shape = tuple(dim for at, dim in enumerate(x.tensor.shape) if at not in stored)
    if x.tensor.data is not None or is_static(x.tensor.shape):
        return View(b.reshape(x.tensor, shape), order)
    # without axes ONNX drops whatever has size 1 at run time, and so does SQUEEZE when it is given none
    dims = sorted(stored) if axes is not None else []
    return View(b.emit("SQUEEZE", [x.tensor], shape, x.dtype, squeezeDims=dims), order)


def unsqueeze(b: Builder, node: Node) -> View:
    """Unsqueeze: new axes of size 1."""
    x = node.view(0)
    if node.has_input(1) and node.view(1).const is None:
        return unsqueeze_by(b, node, x)
    axes = _axes(node) or ()
    rank = x.rank + len(axes)
    new = sorted(axis % rank for axis in axes)
    shape = iter(x.shape)
    full = tuple(1 if axis in new else next(shape) for axis in range(rank))
    if is_static(full) or sum(not b.can_read(dim) for dim in full) <= 1:
        return reshape_view(b, x, full)
    tensor = store(b, x)
    for axis in new:
        grown = (*tensor.shape[:axis], 1, *tensor.shape[axis:])
        tensor = b.emit("EXPAND_DIMS", [tensor, b.const(np.array(axis, np.int32))], grown, x.dtype)
    return View.of(tensor)


def transpose(b: Builder, node: Node) -> View:
    """Transpose: only the view changes.

    Except in front of several slices along its first axis (an unbind of stacked heads): moving the data once, whole,
    makes each slice contiguous, where a view would have every one of them moved later.
    """
    x = node.view(0)
    perm = node.integers("perm", tuple(reversed(range(x.rank))))
    if sorted(perm) != list(range(x.rank)):
        raise Refused(f"its perm {list(perm)} does not order the {x.rank} axes of its input")
    view = View(x.tensor, tuple(perm.index(axis) for axis in x.order))
    readers = [reader.op_type for reader, _ in node.ir.outputs[0].uses()]
    unbound = (len(readers) > 1 and set(readers) <= {"Slice", "Gather"}) or readers == ["Split"]
    return View.of(store(b, view)) if unbound and x.rank > 4 else view


def shape(b: Builder, node: Node) -> View:
    """Shape -> a constant, or SHAPE with its elements put into the ONNX order."""
    x = node.view(0)
    start, end = node.integer("start", 0), node.integer("end", x.rank)
    axes = range(x.rank)[start:end]
    dims = tuple(x.shape[axis] for axis in axes)
    if is_static(dims):
        return View.of(b.const(np.array(dims, np.int64)))
    if not is_static(x.shape) and all(b.can_read(dim) for dim in dims):
        vector = b.dims(dims)
    else:
        vector = b.shape_of(x.tensor)
        places = b.const(np.array([x.axis(axis) for axis in axes], np.int32))
        vector = b.emit("GATHER", [vector, places], (len(dims),), np.int32, axis=0)
    out = b.cast(vector, np.int64)
    out.elements = dims
    return View.of(out)


def size(b: Builder, node: Node) -> View:
    """Size: the number of elements."""
    x = node.view(0)
    if is_static(x.shape):
        return View.of(b.const(np.array(prod(x.shape), np.int64)))
    return View.of(b.cast(b.reduce("REDUCE_PROD", b.shape_of(x.tensor), [0], keep=False), np.int64))


def expand(b: Builder, node: Node) -> View:
    """Expand -> BROADCAST_TO (a multiplication would do too, but not for every dtype)."""
    x = node.view(0)
    target = known_elements(node.view(1))
    if target is None:
        return _expand_at_run_time(b, node, x)
    rank = max(x.rank, len(target))
    full = b.broadcast_dims([(1,) * (rank - x.rank) + x.shape, tuple(target)])
    if not all(b.can_read(dim) for dim in full):
        return _expand_at_run_time(b, node, x, full)
    view = reshape_view(b, x, (1,) * (rank - x.rank) + x.shape)
    if full == view.shape:
        return view
    tensors, order = align(b, [view])
    dims = b.dims(tuple(full[axis] for axis in order))
    return View(b.emit("BROADCAST_TO", [tensors[0], dims], tuple(full[axis] for axis in order), x.dtype), order)


def _expand_at_run_time(b: Builder, node: Node, x: View, full: Shape | None = None) -> View:
    """``full``: what is known of the result's shape."""
    vector = node.view(1)
    if vector.shape[0] < 0:
        raise Refused("the rank of its result is known only at run time")
    rank = max(x.rank, vector.shape[0])
    tensor = store(b, x)
    args = [b.shape_of(tensor), b.cast(vector.tensor, np.int32)]
    dims = b.emit("BROADCAST_ARGS", args, (rank,), np.int32)
    shape = full or tuple(b.new_dim() for _ in range(rank))
    return View.of(b.emit("BROADCAST_TO", [tensor, dims], shape, x.dtype))


def tile(b: Builder, node: Node) -> View:
    """Tile -> TILE."""
    x = node.view(0)
    repeats = node.view(1)
    counts = repeats.const
    if counts is None:
        out = tuple(b.new_dim() for _ in range(x.rank))
        return View.of(b.emit("TILE", [store(b, x), b.cast(repeats.tensor, np.int32)], out, x.dtype))
    stored = [int(counts[axis]) for axis in x.order]
    out = tuple(
        dim * count if dim >= 0 else dim if count == 1 else b.new_dim(("tile", dim, count))
        for dim, count in zip(x.tensor.shape, stored, strict=True)
    )
    return x.with_tensor(b.emit("TILE", [x.tensor, b.const(np.array(stored, np.int32))], out, x.dtype))


def constant_of_shape(b: Builder, node: Node) -> View:
    """ConstantOfShape -> a constant, or FILL."""
    value = node.tensor("value")
    filler = np.zeros(1, np.float32) if value is None else value.reshape(-1)
    target = known_elements(node.view(0))
    if target is not None and is_static(target):
        return View.of(b.const(np.full(target, filler[0])))
    vector = node.view(0)
    if vector.shape[0] < 0:
        raise Refused("the rank of its result is known only at run time")
    dims = target if target is not None else tuple(b.new_dim() for _ in range(vector.shape[0]))
    tensor = b.emit("FILL", [b.cast(vector.tensor, np.int32), b.const(filler[0])], dims, filler.dtype)
    return View(tensor, identity(len(dims)))
