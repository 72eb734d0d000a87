"""Reading and writing at computed places: GatherElements, GatherND, ScatterElements, ScatterND, TensorScatter."""

from __future__ import annotations

from functools import reduce

import numpy as np

from edgekit.converters.onnx_to_litert.builder import Builder
from edgekit.converters.onnx_to_litert.graph import Shape, Tensor, is_static
from edgekit.converters.onnx_to_litert.node import Node, Refused
from edgekit.converters.onnx_to_litert.sizes import axis_positions, ones_of, size_scalar, strides_of, wrapped
from edgekit.converters.onnx_to_litert.view import View, store

__all__ = ["gather_elements", "gather_nd", "scatter_elements", "scatter_nd", "tensor_scatter"]

#: ONNX reduction -> (the reduction over updates of one place, how it joins what was there)
_SEGMENTS = {
    "mul": ("UNSORTED_SEGMENT_PROD", "MUL"),
    "max": ("UNSORTED_SEGMENT_MAX", "MAXIMUM"),
    "min": ("UNSORTED_SEGMENT_MIN", "MINIMUM"),
}


def _flat_places(b: Builder, node: Node, shape: Shape) -> Tensor:
    """Where in the flat data (of ``shape``) each element of the indices (operand 1) points, as int32."""
    indices = b.cast(store(b, node.view(1)), np.int32)
    if indices.rank != len(shape):
        raise Refused(f"its indices have {indices.rank} axes, its data has {len(shape)}")
    axis = node.integer("axis", 0) % len(shape)
    strides = strides_of(b, shape)
    places = b.binary("MUL", wrapped(b, indices, size_scalar(b, shape[axis])), strides[axis])
    others = [at for at in range(len(shape)) if at != axis and indices.shape[at] != 1]
    offsets = [b.binary("MUL", axis_positions(b, indices.shape, at), strides[at]) for at in others]
    if offsets:
        places = b.binary("ADD", places, _sum(b, offsets))
    return places


def _sum(b: Builder, parts: list[Tensor]) -> Tensor:
    """The broadcast sum, known where all of ``parts`` are."""
    if all(part.data is not None for part in parts):
        return b.const(reduce(np.add, [b.constant_data(part) for part in parts]))
    return reduce(lambda left, right: b.binary("ADD", left, right), parts)


def gather_elements(b: Builder, node: Node) -> View:
    """GatherElements: out[i][j] = data[i][indices[i][j]] (axis 1) -> one GATHER from the flat data."""
    x, indices = node.view(0), node.view(1)
    if x.rank == 0:
        raise Refused("it needs at least one axis")
    tensor = store(b, x)
    places = _flat_places(b, node, x.shape)
    flat = b.reshape(tensor, (_count(b, x.shape),))
    return View.of(b.emit("GATHER", [flat, places], indices.shape, x.dtype, axis=0))


def _count(b: Builder, shape: Shape) -> int:
    return int(np.prod(shape, dtype=np.int64)) if is_static(shape) else b.new_dim(("count", *shape))


def gather_nd(b: Builder, node: Node) -> View:
    """GatherND -> GATHER_ND; the position in the batch is put before the indices."""
    x, indices = node.view(0), node.view(1)
    if indices.rank == 0:
        raise Refused("its indices are a scalar")
    batch, depth = node.integer("batch_dims", 0), indices.shape[-1]
    if depth < 0:
        raise Refused("the number of indexed axes is known only at run time")
    places = _wrapped_tuples(b, b.cast(store(b, indices), np.int32), x.shape[batch : batch + depth])
    if batch:
        ahead = (*indices.shape[:-1], 1)
        own = [_spread(b, axis_positions(b, ahead, at), ahead) for at in range(batch)]
        places = b.concat([*own, places], indices.rank - 1)
    shape = (*indices.shape[:-1], *x.shape[batch + depth :])
    return View.of(b.emit("GATHER_ND", [store(b, x), places], shape, x.dtype))


def _spread(b: Builder, x: Tensor, shape: Shape) -> Tensor:
    if x.data is not None and is_static(shape):
        return b.const(np.broadcast_to(x.data, shape))
    return b.emit("BROADCAST_TO", [x, b.dims(shape)], shape, x.dtype)


def _wrapped_tuples(b: Builder, indices: Tensor, dims: Shape) -> Tensor:
    """Index tuples (..., k) into axes of size ``dims``, none of them negative."""
    return wrapped(b, indices, b.dims(dims))


def scatter_elements(b: Builder, node: Node) -> View:
    """ScatterElements and Scatter: data with ``updates`` put at ``indices`` along one axis."""
    x = node.view(0)
    count = (_count(b, x.shape),)
    places = _flat_places(b, node, x.shape)
    flat = (_count(b, places.shape),)
    data, updates = b.reshape(store(b, x), count), b.reshape(store(b, node.view(2)), flat)
    places = b.reshape(places, (*flat, 1))
    return View.of(b.reshape(_scattered(b, node, data, places, updates), x.shape))


def scatter_nd(b: Builder, node: Node) -> View:
    """ScatterND: data with slices ``updates`` put at the index tuples ``indices``."""
    x, indices = node.view(0), node.view(1)
    depth = indices.shape[-1] if indices.rank else -1
    if depth < 0:
        raise Refused("the number of indexed axes is known only at run time")
    places = _wrapped_tuples(b, b.cast(store(b, indices), np.int32), x.shape[:depth])
    return View.of(_scattered(b, node, store(b, x), places, store(b, node.view(2))))


def _scattered(b: Builder, node: Node, data: Tensor, places: Tensor, updates: Tensor) -> Tensor:
    """``updates`` (..., slice) at the index tuples ``places`` (..., k) of ``data``.

    SCATTER_ND starts from zeros and adds up what falls on one place.
    """
    how = node.text("reduction", "none")
    dims = b.dims(data.shape)
    if how == "none":
        written = b.emit("SCATTER_ND", [places, ones_of(b, updates, np.int32), dims], data.shape, np.int32)
        mask = b.binary("GREATER", written, b.scalar(0, written), np.bool_)
        values = b.emit("SCATTER_ND", [places, updates, dims], data.shape, data.dtype)
        return b.emit("SELECT_V2", [mask, values, data], data.shape, data.dtype)
    if how == "add":
        return b.binary("ADD", data, b.emit("SCATTER_ND", [places, updates, dims], data.shape, data.dtype))
    if how not in _SEGMENTS:
        raise Refused(f"unknown reduction '{how}'")
    return _by_segments(b, how, data, places, updates)


def _by_segments(b: Builder, how: str, data: Tensor, places: Tensor, updates: Tensor) -> Tensor:
    """The reductions that SCATTER_ND has not: all updates of one place are one segment."""
    kind, join = _SEGMENTS[how]
    depth = places.shape[-1]
    outer, slices = data.shape[:depth], data.shape[depth:]
    if not is_static(data.shape) or not is_static(updates.shape):
        raise Refused(f"scattering with '{how}' needs fixed shapes", "Fix the input's shape with --shape.")
    strides = b.const(np.array([np.prod(outer[at + 1 :], dtype=np.int64) for at in range(depth)], np.int32))
    ids = b.reduce("SUM", b.binary("MUL", places, strides), [places.rank - 1], keep=False)
    flat_ids = b.reshape(ids, (int(np.prod(ids.shape)),))
    segments = int(np.prod(outer))
    rows = b.reshape(updates, (*flat_ids.shape, *slices))
    count = b.const(np.array(segments, np.int32))
    reduced = b.emit(kind, [rows, flat_ids, count], (segments, *slices), data.dtype)
    return b.reshape(b.binary(join, b.reshape(data, reduced.shape), reduced), data.shape)


def tensor_scatter(b: Builder, node: Node) -> View:
    """TensorScatter: a key/value cache with ``update`` written from each sample's position on along ``axis``."""
    cache, update = node.view(0), node.view(1)
    axis = node.integer("axis", -2) % cache.rank
    size = cache.shape[axis]
    if not is_static(cache.shape) or not is_static(update.shape):
        raise Refused("it needs fixed shapes", "Fix the input's shape with --shape.")
    length = update.shape[axis]
    along = tuple(length if at == axis else 1 for at in range(cache.rank))
    steps = b.const(np.arange(length, dtype=np.int32).reshape(along))
    if node.has_input(2):
        start = b.reshape(b.cast(node.view(2).tensor, np.int32), (cache.shape[0],) + (1,) * (cache.rank - 1))
        steps = b.binary("ADD", start, steps)
    if node.text("mode", "linear") == "circular":
        steps = b.binary("FLOOR_MOD", steps, b.const(np.array(size, np.int32)))
    coordinates = []
    for at in range(cache.rank):
        part = steps if at == axis else axis_positions(b, update.shape, at)
        coordinates.append(b.reshape(_spread(b, part, update.shape), (*update.shape, 1)))
    places = b.concat(coordinates, cache.rank)
    return View.of(_scattered(b, node, store(b, cache), places, store(b, update)))
