"""Pad in all its modes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgekit.converters.onnx_to_litert.builder import Builder
from edgekit.converters.onnx_to_litert.graph import Tensor
from edgekit.converters.onnx_to_litert.node import Node, Refused
from edgekit.converters.onnx_to_litert.ops.at_run_time import pad_amounts
from edgekit.converters.onnx_to_litert.ops.shape import known_elements
from edgekit.converters.onnx_to_litert.sizes import size_scalar
from edgekit.converters.onnx_to_litert.view import View, store

__all__ = ["pad"]

_END = 2**31 - 1
_MODES = ("constant", "reflect", "edge", "wrap")
#: up to so many repeated slices are joined; more are gathered
_FEW = 4

Pads = list[tuple[int, int]]
Ints = npt.NDArray[np.int64]


def pad(b: Builder, node: Node) -> View:
    """Pad -> PAD, PADV2, MIRROR_PAD; edges and wrapped parts are joined on; negative amounts are slices."""
    x = node.view(0)
    mode = node.text("mode", "constant")
    if mode not in _MODES:
        raise Refused(f"unknown padding mode '{mode}'")
    known = _known_amounts(node, x.rank)
    if known is None:
        return _at_run_time(b, node, x, mode)
    pads = [(0, 0)] * x.rank
    amounts, axes = known
    if len(amounts) != 2 * len(axes):
        raise Refused(f"it has {len(amounts)} amounts for {len(axes)} axes")
    for index, axis in enumerate(axes):
        pads[x.axis(axis)] = (amounts[index], amounts[index + len(axes)])
    tensor = _cropped(b, x.tensor, pads)
    pads = [(max(before, 0), max(after, 0)) for before, after in pads]
    if mode == "constant":
        return x.with_tensor(_constant(b, node, tensor, pads))
    if mode == "reflect" and all(max(pair) < dim or dim < 0 for pair, dim in zip(pads, tensor.shape, strict=True)):
        return x.with_tensor(_mirrored(b, tensor, pads))
    for at, pair in enumerate(pads):
        tensor = _extended(b, tensor, at, pair, mode) if any(pair) else tensor
    return x.with_tensor(tensor)


def _known_amounts(node: Node, rank: int) -> tuple[list[int], list[int]] | None:
    """Amounts (all before, then all after) and the ONNX axes they are for; None if computed at run time."""
    if node.opset < 11:
        return list(node.integers("pads") or node.integers("paddings")), list(range(rank))
    elements = known_elements(node.view(1))
    if elements is None or (node.view(1).const is None and min(elements, default=0) < 0):
        return None
    if not node.has_input(3):
        return list(elements), list(range(rank))
    data = node.view(3).const
    return None if data is None else (list(elements), [int(axis) for axis in data.reshape(-1)])


def _cropped(b: Builder, x: Tensor, pads: Pads) -> Tensor:
    begin = [max(-before, 0) for before, _ in pads]
    end = [after if after < 0 else _END for _, after in pads]
    return b.strided_slice(x, begin, end, [1] * x.rank)


def _constant(b: Builder, node: Node, x: Tensor, pads: Pads) -> Tensor:
    if node.opset < 11:
        return b.pad(x, pads, node.real("value", 0.0))
    if not node.has_input(2):
        return b.pad(x, pads)
    data = node.view(2).const
    if data is not None:
        return b.pad(x, pads, data.reshape(-1)[0].item())
    amounts = b.const(np.array(pads, np.int32))
    shape = tuple(dim + sum(pair) if dim >= 0 else b.new_dim() for dim, pair in zip(x.shape, pads, strict=True))
    return b.emit("PADV2", [x, amounts, b.reshape(node.view(2).tensor, ())], shape, x.dtype)


def _mirrored(b: Builder, x: Tensor, pads: Pads) -> Tensor:
    if not any(sum(pair) for pair in pads):
        return x
    shape = tuple(
        dim + sum(pair) if dim >= 0 else b.new_dim(("pad", dim, sum(pair))) if sum(pair) else dim
        for dim, pair in zip(x.shape, pads, strict=True)
    )
    return b.emit("MIRROR_PAD", [x, b.const(np.array(pads, np.int32))], shape, x.dtype, mode=0)


def _extended(b: Builder, x: Tensor, at: int, pair: tuple[int, int], mode: str) -> Tensor:
    """``x`` extended along one storage axis by its edges or from its other end."""
    before, after = pair
    size = x.shape[at]
    if mode == "edge" and before + after <= _FEW:
        first, last = _piece(b, x, at, 0, 1), _piece(b, x, at, -1, _END)
        return b.concat([*[first] * before, x, *[last] * after], at)
    if mode == "wrap" and 0 <= max(pair) <= size:
        ahead = [_piece(b, x, at, size - before, _END)] if before else []
        behind = [_piece(b, x, at, 0, after)] if after else []
        return b.concat([*ahead, x, *behind], at)
    if size < 0:
        raise Refused(f"padding a dynamic axis in mode '{mode}' depends on its size", "Fix it with --shape.")
    if size + before + after > _END:
        raise OverflowError(f"an axis of {size + before + after} elements")
    places = _source_places(np.arange(-before, size + after), size, mode)
    shape = (*x.shape[:at], size + before + after, *x.shape[at + 1 :])
    return b.emit("GATHER", [x, b.const(places.astype(np.int32))], shape, x.dtype, axis=at)


def _piece(b: Builder, x: Tensor, at: int, start: int, stop: int) -> Tensor:
    begin, end = [0] * x.rank, [_END] * x.rank
    begin[at], end[at] = start, stop
    piece = b.strided_slice(x, begin, end, [1] * x.rank)
    if x.shape[at] < 0:
        piece.shape = (*x.shape[:at], 1, *x.shape[at + 1 :])  # the last one, counted from a dynamic end
    return piece


def _source_places(places: Ints, size: int, mode: str) -> Ints:
    if mode == "edge":
        return np.clip(places, 0, size - 1)
    if mode == "wrap":
        return np.remainder(places, size)
    turn = max(size - 1, 1)
    mirrored: Ints = turn - np.abs(np.remainder(places, 2 * turn) - turn)
    return np.minimum(mirrored, size - 1)


def _at_run_time(b: Builder, node: Node, x: View, mode: str) -> View:
    amounts = pad_amounts(b, node, x.rank)
    tensor = store(b, x)
    shape = tuple(b.new_dim() for _ in range(x.rank))
    if mode == "constant":
        if not node.has_input(2):
            return View.of(b.emit("PAD", [tensor, amounts], shape, x.dtype))
        value = b.reshape(node.view(2).tensor, ())
        return View.of(b.emit("PADV2", [tensor, amounts, value], shape, x.dtype))
    for at in range(x.rank):
        tensor = _gathered(b, tensor, at, amounts, mode)
    return View.of(tensor)


def _gathered(b: Builder, x: Tensor, at: int, amounts: Tensor, mode: str) -> Tensor:
    """``x`` extended along one axis by amounts known only at run time: each place's source is worked out."""
    pair = [b.reshape(b.strided_slice(amounts, [at, side], [at + 1, side + 1], [1, 1]), ()) for side in (0, 1)]
    size = size_scalar(b, x.shape[at])
    zero, one = b.scalar(0, size), b.scalar(1, size)
    length = b.new_dim()
    stop = b.binary("ADD", size, pair[1])
    places = b.emit("RANGE", [b.binary("SUB", zero, pair[0]), stop, one], (length,), np.int32)
    last = b.binary("SUB", size, one)
    if mode == "edge":
        places = b.binary("MAXIMUM", b.binary("MINIMUM", places, last), zero)
    elif mode == "wrap":
        places = b.binary("FLOOR_MOD", places, size)
    else:
        turn = b.binary("MAXIMUM", last, one)
        phase = b.binary("SUB", b.binary("FLOOR_MOD", places, b.binary("ADD", turn, turn)), turn)
        places = b.binary("MINIMUM", b.binary("SUB", turn, b.unary("ABS", phase)), last)
    shape = (*x.shape[:at], length, *x.shape[at + 1 :])
    return b.emit("GATHER", [x, places], shape, x.dtype, axis=at)
