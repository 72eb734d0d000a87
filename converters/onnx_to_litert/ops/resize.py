"""Resize and Upsample: LiteRT's resize ops where they mean the same, weighted gathers along each axis elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edgekit.converters.onnx_to_litert.builder import Builder
from edgekit.converters.onnx_to_litert.graph import Shape, Tensor, is_static
from edgekit.converters.onnx_to_litert.node import Node, Refused
from edgekit.converters.onnx_to_litert.ops.resize_computed import resize_computed
from edgekit.converters.onnx_to_litert.ops.shape import known_elements
from edgekit.converters.onnx_to_litert.view import NHWC, View, store

__all__ = ["resize"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Plan:
    """``sizes``: the result's ONNX shape (symbols allowed); ``scales``: per axis, None where only sizes are known."""

    mode: str
    coordinates: str
    nearest: str
    sizes: Shape
    scales: tuple[float | None, ...]
    cubic: float = -0.75
    exclude_outside: bool = False


def resize(b: Builder, node: Node) -> View:
    """Resize / Upsample."""
    given = node.view(0)
    if given.dtype in (np.int8, np.uint8) and node.text("mode", "nearest") == "nearest":
        # the numbers that are moved are exact in float32
        wide = given.with_tensor(b.cast(given.tensor, np.float32))
        moved = resize(b, replace(node, inputs=[wide, *node.inputs[1:]]))
        return moved.with_tensor(b.cast(moved.tensor, given.dtype))
    x = node.floats(0)
    if _is_computed(node):
        return resize_computed(b, node)
    plan = _plan(b, node, x.shape)
    if plan.sizes == x.shape and all(scale in (None, 1.0) for scale in plan.scales):
        return x
    if x.rank == 4 and plan.sizes[:2] == x.shape[:2] and (options := _native(plan, x.shape)) is not None:
        return _resize_native(b, node, x, plan, options)
    if not is_static(x.shape) or not is_static(plan.sizes):
        return resize_computed(b, node)
    tensor = x.tensor
    for axis, (old, new) in enumerate(zip(x.shape, plan.sizes, strict=True)):
        if old != new or plan.scales[axis] not in (None, 1.0):
            tensor = _gathered(b, tensor, x.axis(axis), _taps(plan, axis, old, new))
    return x.with_tensor(tensor)


def _is_computed(node: Node) -> bool:
    """Whether the scales are known only at run time, or the request is a form that has no plan."""
    modern = node.op_type == "Resize" and node.opset >= 11
    by_sizes = modern and node.has_input(3)
    scales = None if by_sizes or node.has("scales") else node.view(2 if modern else 1)
    crops = node.text("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize"
    kept = node.text("keep_aspect_ratio_policy", "stretch") != "stretch" and by_sizes
    return crops or kept or (scales is not None and scales.const is None)


def _plan(b: Builder, node: Node, shape: Shape) -> _Plan:
    rank = len(shape)
    mode = node.text("mode", "nearest")
    if node.integer("antialias", 0):
        raise Refused("LiteRT has no antialiased resize", "Export with antialias=False.")
    modern = node.op_type == "Resize" and node.opset >= 11
    coordinates = node.text("coordinate_transformation_mode", "half_pixel") if modern else "asymmetric"
    if coordinates not in ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric"):
        raise Refused(f"LiteRT cannot express the coordinates '{coordinates}'")
    nearest = node.text("nearest_mode", "round_prefer_floor") if modern else "floor"
    scales, sizes = _targets(b, node, shape, modern, list(node.integers("axes", range(rank))))
    return _Plan(
        mode,
        coordinates,
        nearest,
        sizes,
        scales,
        node.real("cubic_coeff_a", -0.75),
        bool(node.integer("exclude_outside", 0)),
    )


def _targets(
    b: Builder, node: Node, shape: Shape, modern: bool, axes: list[int]
) -> tuple[tuple[float | None, ...], Shape]:
    if modern and node.has_input(3):
        elements = known_elements(node.view(3))
        given = elements if elements is not None else tuple(b.new_dim() for _ in axes)
        sizes = list(shape)
        for axis, size in zip(axes, given, strict=True):
            sizes[axis] = size
        return (None,) * len(shape), tuple(sizes)
    if node.op_type == "Upsample" and node.has("scales"):
        factors = [float(value) for value in node.ir.attributes["scales"].as_floats()]
    else:
        factors = [float(value) for value in node.const(2 if modern else 1, "scales").reshape(-1)]
    full = [1.0] * len(shape)
    for axis, factor in zip(axes, factors, strict=True):
        full[axis] = factor
    sizes = [
        dim
        if factor == 1
        else int(np.float32(dim) * np.float32(factor))
        if dim >= 0
        else b.new_dim(("resize", dim, factor))
        for dim, factor in zip(shape, full, strict=True)
    ]
    return tuple(full), tuple(sizes)


def _native(plan: _Plan, shape: Shape) -> dict[str, bool] | None:
    """The options with which LiteRT's op gives ONNX's answer on axes 2 and 3; None if there are none."""
    whole = True
    for axis in (2, 3):
        scale, old, new = plan.scales[axis], shape[axis], plan.sizes[axis]
        if scale is not None and (old * scale != new if old >= 0 else scale != int(scale)):
            return None  # LiteRT always uses new / old
        ratio = scale if scale is not None else new / old if old > 0 and new > 0 else 0.5
        whole = whole and float(ratio).is_integer()
    single = any(plan.sizes[axis] == 1 for axis in (2, 3))
    if plan.mode == "linear":
        if (
            plan.coordinates in ("half_pixel", "half_pixel_symmetric")
            or (plan.coordinates == "pytorch_half_pixel" and not single and is_static(plan.sizes[2:]))
            or (plan.coordinates == "pytorch_half_pixel" and whole)
        ):
            return {"alignCorners": False, "halfPixelCenters": True}
        if plan.coordinates == "align_corners" and not single:
            return {"alignCorners": True, "halfPixelCenters": False}
        return {"alignCorners": False, "halfPixelCenters": False} if plan.coordinates == "asymmetric" else None
    if plan.mode == "nearest":
        if plan.coordinates == "asymmetric" and (plan.nearest == "floor"):
            return {"alignCorners": False, "halfPixelCenters": False}
        halves = plan.coordinates in ("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric")
        if halves and whole and plan.nearest in ("round_prefer_floor", "round_prefer_ceil"):
            # with a whole factor no sample falls on a tie, and rounding is then one and the same
            return {"alignCorners": False, "halfPixelCenters": True}
    return None


def _resize_native(b: Builder, node: Node, x: View, plan: _Plan, options: dict[str, bool]) -> View:
    source = store(b, x, NHWC)
    height, width = plan.sizes[2:]
    if is_static((height, width)):
        target = b.const(np.array([height, width], np.int32))
    elif plan.scales[2] is not None and plan.scales[3] is not None:
        spatial = b.strided_slice(b.shape_of(source), [1], [3], [1])
        target = b.binary("MUL", spatial, b.const(np.array([plan.scales[2], plan.scales[3]], np.int32)))
    elif b.can_read(height) and b.can_read(width):
        target = b.dims((height, width))
    else:
        vector = node.view(3)
        count = vector.shape[0]
        target = b.cast(b.strided_slice(vector.tensor, [count - 2], [count], [1]), np.int32)
    kind = "RESIZE_BILINEAR" if plan.mode == "linear" else "RESIZE_NEAREST_NEIGHBOR"
    shape = (source.shape[0], height, width, source.shape[3])
    return View(b.emit(kind, [source, target], shape, x.dtype, **options), NHWC)


def _gathered(b: Builder, x: Tensor, at: int, taps: list[tuple[npt.NDArray[np.int64], Floats]]) -> Tensor:
    """The sum over taps of x[index] * weight along the storage axis ``at``."""
    total: Tensor | None = None
    for index, weight in taps:
        shape = (*x.shape[:at], index.size, *x.shape[at + 1 :])
        part = b.emit("GATHER", [x, b.const(index.astype(np.int32))], shape, x.dtype, axis=at)
        if not np.all(weight == 1):
            factor = weight.astype(np.float32).reshape((-1,) + (1,) * (x.rank - 1 - at))
            part = b.binary("MUL", part, b.const(factor))
        total = part if total is None else b.binary("ADD", total, part)
    return x if total is None else total


def _positions(plan: _Plan, axis: int, old: int, new: int) -> Floats:
    """Where each output sample lies on the input axis (ONNX Resize, coordinate_transformation_mode)."""
    scale = plan.scales[axis]
    ratio = new / old if scale is None else scale
    out = np.arange(new, dtype=np.float64)
    if plan.coordinates == "align_corners":
        return out * (old - 1) / (new - 1) if new > 1 else np.zeros(1)
    if plan.coordinates == "asymmetric":
        return out / ratio
    if plan.coordinates == "pytorch_half_pixel" and new == 1:
        return np.zeros(1)
    positions = (out + 0.5) / ratio - 0.5
    if plan.coordinates == "half_pixel_symmetric":
        adjustment = new / (ratio * old)
        return old / 2 * (1 - adjustment) + positions
    return positions


def _taps(plan: _Plan, axis: int, old: int, new: int) -> list[tuple[npt.NDArray[np.int64], Floats]]:
    """(indices, weights) of the samples that make up each output sample of one axis."""
    at = _positions(plan, axis, old, new)
    if plan.mode == "nearest":
        rounding: dict[str, Callable[[Floats], Floats]] = {
            "floor": np.floor,
            "ceil": np.ceil,
            "round_prefer_floor": lambda v: np.ceil(v - 0.5),
            "round_prefer_ceil": lambda v: np.floor(v + 0.5),
        }
        index = np.clip(rounding[plan.nearest](at), 0, old - 1).astype(np.int64)
        return [(index, np.ones(new))]
    base = np.floor(at)
    fraction = at - base
    if plan.mode == "linear":
        weights = [(0, 1 - fraction), (1, fraction)]
    elif plan.mode == "cubic":
        weights = [(offset, _cubic(np.abs(fraction - offset), plan.cubic)) for offset in (-1, 0, 1, 2)]
    else:
        raise Refused(f"unknown resize mode '{plan.mode}'")
    if plan.exclude_outside:
        inside = [(offset, w * ((base + offset >= 0) & (base + offset < old))) for offset, w in weights]
        total = np.sum([w for _, w in inside], axis=0)
        weights = [(offset, w / total) for offset, w in inside]
    return [(np.clip(base + offset, 0, old - 1).astype(np.int64), w) for offset, w in weights]


def _cubic(distance: Floats, a: float) -> Floats:
    """Keys' cubic convolution kernel."""
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))
