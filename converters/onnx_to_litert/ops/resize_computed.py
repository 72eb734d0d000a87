"""Resize to sizes known only at run time: positions and weights of the samples are worked out by the network itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgekit.converters.onnx_to_litert.builder import Builder
from edgekit.converters.onnx_to_litert.graph import Shape, Tensor
from edgekit.converters.onnx_to_litert.node import Node, Refused
from edgekit.converters.onnx_to_litert.ops.shape import known_elements
from edgekit.converters.onnx_to_litert.sizes import size_scalar
from edgekit.converters.onnx_to_litert.view import View, store

__all__ = ["cubic_weights", "resize_computed"]

_COORDINATES = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric",
                "tf_crop_and_resize")


@dataclass(frozen=True, slots=True)
class _Axis:
    """One axis: its old and new size, and their ratio as the operand gave it; all of rank 0, the ratio float32.

    ``crop`` is (start, end) of the region of interest, as parts of the old size.
    """

    at: int
    old: Tensor
    new: Tensor
    ratio: Tensor
    size: int
    crop: tuple[Tensor, Tensor] | None = None


def resize_computed(b: Builder, node: Node) -> View:
    """Resize / Upsample, an axis at a time: a GATHER for each sample that takes part, weighted and added up."""
    x = node.floats(0)
    modern = node.op_type == "Resize" and node.opset >= 11
    coordinates = node.text("coordinate_transformation_mode", "half_pixel") if modern else "asymmetric"
    if coordinates not in _COORDINATES:
        raise Refused(f"unknown coordinates '{coordinates}'")
    if node.integer("antialias", 0):
        raise Refused("LiteRT has no antialiased resize", "Export with antialias=False.")
    tensor = store(b, x)
    for axis in _axes(b, node, tensor.shape, modern, coordinates):
        positions, outside = _positions(b, axis, coordinates)
        tensor = _sampled(b, node, tensor, axis, positions, modern)
        if outside is not None:
            value = b.scalar(node.real("extrapolation_value", 0.0), tensor)
            mask = b.reshape(outside, _along(axis, tensor.rank))
            tensor = b.emit("SELECT_V2", [mask, value, tensor], tensor.shape, tensor.dtype)
    return View.of(tensor)


def _along(axis: _Axis, rank: int) -> Shape:
    return tuple(axis.size if at == axis.at else 1 for at in range(rank))


def _axes(b: Builder, node: Node, shape: Shape, modern: bool, coordinates: str) -> list[_Axis]:
    """The axes that may change."""
    rank = len(shape)
    given = [axis % rank for axis in node.integers("axes", range(rank))]
    if node.text("nearest_mode", "floor") not in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil"):
        raise Refused(f"unknown rounding '{node.text('nearest_mode', 'floor')}'")
    by_sizes = modern and node.has_input(3)
    view = node.view(3 if by_sizes else 2 if modern else 1)
    elements = known_elements(view) if by_sizes else None
    values = b.cast(store(b, view), np.float32)
    common = _common_ratio(b, node, values, shape, given) if by_sizes else None
    axes = []
    for index, at in enumerate(given):
        if elements is not None and elements[index] == shape[at] and common is None:
            continue
        old = b.cast(size_scalar(b, shape[at]), np.float32)
        value = b.reshape(b.strided_slice(values, [index], [index + 1], [1]), ())
        if common is not None:
            new, ratio = b.unary("FLOOR", _plus(b, b.binary("MUL", common, old), 0.5)), common
        elif by_sizes:
            new, ratio = value, b.binary("DIV", value, old)
        else:
            new, ratio = b.unary("FLOOR", b.binary("MUL", value, old)), value
        crop = _crop(b, node, index, len(given)) if coordinates == "tf_crop_and_resize" else None
        known = elements[index] if elements is not None and common is None else b.new_dim()
        axes.append(_Axis(at, old, new, ratio, known, crop))
    return axes


def _common_ratio(b: Builder, node: Node, sizes: Tensor, shape: Shape, axes: list[int]) -> Tensor | None:
    """The one ratio of all axes where the aspect ratio is kept."""
    policy = node.text("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return None
    old = b.cast(b.dims(tuple(shape[axis] for axis in axes)), np.float32)
    kind = "REDUCE_MIN" if policy == "not_larger" else "REDUCE_MAX"
    return b.reduce(kind, b.binary("DIV", sizes, old), [0], keep=False)


def _crop(b: Builder, node: Node, index: int, count: int) -> tuple[Tensor, Tensor]:
    roi = b.cast(store(b, node.view(1)), np.float32)
    bounds = [b.reshape(b.strided_slice(roi, [at], [at + 1], [1]), ()) for at in (index, index + count)]
    return bounds[0], bounds[1]


def _plus(b: Builder, x: Tensor, value: float) -> Tensor:
    return b.binary("ADD", x, b.scalar(value, x))


def _positions(b: Builder, axis: _Axis, coordinates: str) -> tuple[Tensor, Tensor | None]:
    """Where each new element lies on the old axis (float32), and which of them lie outside."""
    zero, one = b.scalar(0.0, axis.new), b.scalar(1.0, axis.new)
    out = b.emit("RANGE", [zero, axis.new, one], (axis.size,), np.float32)
    exact = b.binary("MUL", axis.ratio, axis.old)
    # a result of one element has no spacing; the numerator is 0 then
    spaces = b.binary("MAXIMUM", _plus(b, exact, -1.0), b.scalar(1e-30, exact))
    single = b.binary("EQUAL", exact, one, np.bool_)
    last = _plus(b, axis.old, -1.0)
    if coordinates == "align_corners":
        return b.binary("DIV", b.binary("MUL", out, last), spaces), None
    if coordinates == "asymmetric":
        return b.binary("DIV", out, axis.ratio), None
    if coordinates == "tf_crop_and_resize" and axis.crop is not None:
        start, end = axis.crop
        span = b.binary("MUL", b.binary("SUB", end, start), last)
        middle = b.binary("MUL", span, b.scalar(0.5, span))
        inside = b.emit("SELECT_V2", [single, middle, b.binary("DIV", b.binary("MUL", out, span), spaces)],
                        out.shape, np.float32)  # fmt: skip
        positions = b.binary("ADD", inside, b.binary("MUL", start, last))
        before = b.binary("LESS", positions, zero, np.bool_)
        after = b.binary("GREATER", positions, last, np.bool_)
        return positions, b.binary("LOGICAL_OR", before, after, np.bool_)
    halves = _plus(b, b.binary("DIV", _plus(b, out, 0.5), axis.ratio), -0.5)
    if coordinates == "pytorch_half_pixel":
        return b.emit("SELECT_V2", [single, zero, halves], out.shape, np.float32), None
    if coordinates == "half_pixel_symmetric":
        adjustment = b.binary("SUB", one, b.binary("DIV", axis.new, exact))
        offset = b.binary("MUL", b.binary("MUL", axis.old, b.scalar(0.5, one)), adjustment)
        return b.binary("ADD", halves, offset), None
    return halves, None


def _sampled(b: Builder, node: Node, x: Tensor, axis: _Axis, positions: Tensor, modern: bool) -> Tensor:
    mode = node.text("mode", "nearest")
    if mode == "nearest":
        return _picked(b, x, axis, _rounded(b, positions, node.text("nearest_mode", _default(modern))))
    base = b.unary("FLOOR", positions)
    fraction = b.binary("SUB", positions, base)
    if mode == "linear":
        weights = {0: b.binary("SUB", b.scalar(1.0, fraction), fraction), 1: fraction}
    elif mode == "cubic":
        weights = cubic_weights(b, fraction, node.real("cubic_coeff_a", -0.75))
    else:
        raise Refused(f"unknown resize mode '{mode}'")
    if node.integer("exclude_outside", 0):
        weights = _inside_only(b, axis, base, weights)
    total: Tensor | None = None
    for offset, weight in weights.items():
        part = _picked(b, x, axis, _plus(b, base, float(offset)))
        part = b.binary("MUL", part, b.reshape(weight, _along(axis, x.rank)))
        total = part if total is None else b.binary("ADD", total, part)
    return x if total is None else total


def _default(modern: bool) -> str:
    return "round_prefer_floor" if modern else "floor"


def _rounded(b: Builder, positions: Tensor, how: str) -> Tensor:
    if how == "floor":
        return b.unary("FLOOR", positions)
    if how == "ceil":
        return b.unary("CEIL", positions)
    if how == "round_prefer_floor":
        return b.unary("CEIL", _plus(b, positions, -0.5))
    return b.unary("FLOOR", _plus(b, positions, 0.5))


def _picked(b: Builder, x: Tensor, axis: _Axis, positions: Tensor) -> Tensor:
    """The elements at whole ``positions`` along the axis, those outside moved to the edge."""
    last = _plus(b, axis.old, -1.0)
    near = b.binary("MAXIMUM", b.binary("MINIMUM", positions, last), b.scalar(0.0, last))
    shape = (*x.shape[: axis.at], axis.size, *x.shape[axis.at + 1 :])
    return b.emit("GATHER", [x, b.cast(near, np.int32)], shape, x.dtype, axis=axis.at)


def _inside_only(b: Builder, axis: _Axis, base: Tensor, weights: dict[int, Tensor]) -> dict[int, Tensor]:
    """The weights without those of samples outside, scaled to a sum of 1."""
    kept = {}
    for offset, weight in weights.items():
        place = _plus(b, base, float(offset))
        low = b.binary("GREATER_EQUAL", place, b.scalar(0.0, place), np.bool_)
        high = b.binary("LESS", place, axis.old, np.bool_)
        inside = b.cast(b.binary("LOGICAL_AND", low, high, np.bool_), np.float32)
        kept[offset] = b.binary("MUL", weight, inside)
    parts = list(kept.values())
    total = parts[0]
    for part in parts[1:]:
        total = b.binary("ADD", total, part)
    return {offset: b.binary("DIV", weight, total) for offset, weight in kept.items()}


def cubic_weights(b: Builder, fraction: Tensor, a: float) -> dict[int, Tensor]:
    """Keys' kernel at the distances of the four neighbours."""
    rest = b.binary("SUB", b.scalar(1.0, fraction), fraction)
    return {
        -1: _far(b, _plus(b, fraction, 1.0), a),
        0: _near(b, fraction, a),
        1: _near(b, rest, a),
        2: _far(b, _plus(b, rest, 1.0), a),
    }


def _near(b: Builder, distance: Tensor, a: float) -> Tensor:
    """((a + 2) d - (a + 3)) d d + 1."""
    inner = _plus(b, b.binary("MUL", distance, b.scalar(a + 2, distance)), -(a + 3))
    return _plus(b, b.binary("MUL", b.binary("MUL", inner, distance), distance), 1.0)


def _far(b: Builder, distance: Tensor, a: float) -> Tensor:
    """((a d - 5 a) d + 8 a) d - 4 a."""
    inner = _plus(b, b.binary("MUL", distance, b.scalar(a, distance)), -5 * a)
    inner = _plus(b, b.binary("MUL", inner, distance), 8 * a)
    return _plus(b, b.binary("MUL", inner, distance), -4 * a)
