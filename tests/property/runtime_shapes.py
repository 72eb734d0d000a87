"""Ops of random graphs whose shapes are computed in the graph, as exporters write them for dynamic sizes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import numpy_helper

from tests.property.graphs import Draft, Step, Value

__all__ = ["RUNTIME_STEPS"]


def _dims(g: Draft, x: Value, start: int, stop: int) -> str:
    """The dimensions ``start`` to ``stop`` of ``x`` as a vector, in one of the ways that exporters have."""
    kind = g.number(0, 2)
    if kind == 0:
        return g.ints("Shape", [x], start=start, end=stop)
    shape = g.ints("Shape", [x])
    if kind == 1:
        return g.ints("Slice", [shape, g.const([start]), g.const([stop])])
    return g.ints("Gather", [shape, g.const(list(range(start, stop)))])


def reshape(g: Draft, x: Value) -> Value | None:
    """Two neighbouring axes become one; the others are copied from the shape at run time."""
    if x.rank < 2:
        return None
    at = g.number(0, x.rank - 2)
    parts = [_dims(g, x, 0, at)] if at else []
    if g.flag():
        parts.append(g.const([-1]))
    else:
        parts.append(g.ints("Mul", [_dims(g, x, at, at + 1), _dims(g, x, at + 1, at + 2)]))
    if at + 2 < x.rank:
        parts.append(_dims(g, x, at + 2, x.rank))
    shape = (*x.shape[:at], x.shape[at] * x.shape[at + 1], *x.shape[at + 2 :])
    target = g.ints("Concat", parts, axis=0)
    merged = g.add_of_shape("Reshape", [x, target], shape, x.bound)
    if g.flag():
        return merged
    return g.add_of_shape("Reshape", [merged, g.ints("Shape", [x])], x.shape, x.bound)


def resize(g: Draft, x: Value) -> Value | None:
    """To the size of another image, as ``interpolate(x, size=other.shape[2:])`` is written."""
    images = [value for value in g.values if value.rank == 4 and max(value.shape[2:]) <= 12]
    if x.rank != 4 or not images:
        return None
    other = g.draw_value(images)
    sizes = g.ints("Concat", [_dims(g, x, 0, 2), _dims(g, other, 2, 4)], axis=0)
    shape = (*x.shape[:2], *other.shape[2:])
    where = g.pick("half_pixel", "asymmetric", "align_corners")
    resized = g.add_of_shape(
        "Resize", [x, "", "", sizes], shape, x.bound, mode="linear", coordinate_transformation_mode=where
    )
    return g.add("Add", [resized, other], 2 * x.bound) if resized.shape == other.shape else resized


def expand(g: Draft, x: Value) -> Value:
    """The mean over some axes, spread over all of them again."""
    axis = g.number(0, x.rank - 1)
    mean = g.add("ReduceMean", [x, g.const([axis])], x.bound, keepdims=1)
    return g.add_of_shape("Expand", [mean, g.ints("Shape", [x])], x.shape, x.bound)


def filled(g: Draft, x: Value) -> Value:
    """A constant of the shape of ``x``, added to it."""
    value = numpy_helper.from_array(np.array([0.5], np.float32))
    full = g.add_of_shape("ConstantOfShape", [g.ints("Shape", [x])], x.shape, 1.0, value=value)
    return g.add("Add", [x, full], x.bound + 1)


def halves(g: Draft, x: Value) -> Value | None:
    """The first half along an axis, its length computed."""
    axis = g.number(0, x.rank - 1)
    if x.shape[axis] < 2:
        return None
    middle = g.ints("Div", [_dims(g, x, axis, axis + 1), g.const([2])])
    shape = (*x.shape[:axis], x.shape[axis] // 2, *x.shape[axis + 1 :])
    return g.add_of_shape("Slice", [x, g.const([0]), middle, g.const([axis])], shape, x.bound)


RUNTIME_STEPS: Sequence[Step] = (reshape, reshape, resize, expand, filled, halves)
