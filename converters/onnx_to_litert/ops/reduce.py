"""Reductions: the axes are mapped to storage, so no layout is preferred."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgekit.converters.onnx_to_litert.builder import Builder
from edgekit.converters.onnx_to_litert.graph import Tensor
from edgekit.converters.onnx_to_litert.node import Node, Refused
from edgekit.converters.onnx_to_litert.sizes import size_scalar, vector_length
from edgekit.converters.onnx_to_litert.view import View, store

__all__ = ["REDUCTIONS", "arg_extreme", "reduction"]

Lowering = Callable[[Builder, Node], View]
#: ONNX op -> LiteRT op
REDUCTIONS = {
    "ReduceMean": "MEAN", "ReduceSum": "SUM", "ReduceMax": "REDUCE_MAX", "ReduceMin": "REDUCE_MIN",
    "ReduceProd": "REDUCE_PROD",
}  # fmt: skip
_BOOL = {"REDUCE_MAX": "REDUCE_ANY", "REDUCE_MIN": "REDUCE_ALL"}


def _are_computed(node: Node) -> bool:
    """Whether the axes are known only at run time."""
    return node.has_input(1) and node.view(1).const is None and node.view(1).shape != (0,)


def _axes(node: Node, rank: int) -> list[int] | None:
    """The ONNX axes to reduce; None when the op is to do nothing."""
    axes = node.view(1).const if node.has_input(1) else None
    given = list(node.integers("axes")) if axes is None else [int(axis) for axis in axes.reshape(-1)]
    if not given:
        return None if node.integer("noop_with_empty_axes", 0) else list(range(rank))
    return [axis % rank for axis in given]


def _reduced(view: View, tensor: Tensor, axes: list[int], keep: bool) -> View:
    """The view of ``tensor``, the reduction of ``view`` over ONNX ``axes``."""
    if keep:
        return view.with_tensor(tensor)
    left = [axis for axis in view.order if axis not in axes]
    return View(tensor, tuple(sorted(left).index(axis) for axis in left))


def reduction(
    kind: str,
    before: Callable[[Builder, Tensor], Tensor] | None = None,
    after: Callable[[Builder, Tensor], Tensor] | None = None,
) -> Lowering:
    """The lowering of a reduction that is ``kind`` with something elementwise ``before`` or ``after`` it."""

    def lower(b: Builder, node: Node) -> View:
        x = node.view(0)
        keep = bool(node.integer("keepdims", 1))
        tensor = before(b, x.tensor) if before else x.tensor
        own = _BOOL.get(kind, kind) if x.dtype == np.bool_ else kind
        if _are_computed(node):
            reduced = _by_computed_axes(b, node, x.with_tensor(tensor), own, keep)
            return View.of(after(b, reduced) if after else reduced)
        axes = _axes(node, x.rank)
        if axes is None:
            return x.with_tensor(after(b, tensor) if after else tensor)
        tensor = b.reduce(own, tensor, [x.axis(axis) for axis in axes], keep)
        return _reduced(x, after(b, tensor) if after else tensor, axes, keep)

    return lower


def _by_computed_axes(b: Builder, node: Node, x: View, kind: str, keep: bool) -> Tensor:
    """The reduction over axes known only at run time; how many there are is known."""
    count = vector_length(node.view(1), "axes")
    rank = x.rank if keep else x.rank - count
    if rank < 0:
        raise Refused(f"it reduces {count} of {x.rank} axes")
    shape = (1,) * rank if count == x.rank else tuple(b.new_dim() for _ in range(rank))
    operands = [store(b, x), b.cast(store(b, node.view(1)), np.int32)]
    if 0 not in x.shape or kind not in ("REDUCE_MAX", "REDUCE_MIN"):
        return b.emit(kind, operands, shape, x.dtype, keepDims=keep)
    # the kernels' extremes of nothing are finite
    zeros = b.emit("SUM", operands, shape, x.dtype, keepDims=keep)
    return b.emit("FILL", [b.shape_of(zeros), b.scalar(_extreme_of_nothing(kind, x.dtype), zeros)], shape, x.dtype)


def _extreme_of_nothing(kind: str, dtype: np.dtype[np.generic]) -> float:
    if dtype.kind == "f":
        return -np.inf if kind == "REDUCE_MAX" else np.inf
    limits = np.iinfo(dtype.name)
    return limits.min if kind == "REDUCE_MAX" else limits.max


def square(b: Builder, x: Tensor) -> Tensor:
    """X * x."""
    return b.binary("MUL", x, x)


def absolute(b: Builder, x: Tensor) -> Tensor:
    """|x|."""
    return b.unary("ABS", x) if x.dtype.kind == "f" else b.binary("MAXIMUM", x, b.unary("NEG", x))


def root(b: Builder, x: Tensor) -> Tensor:
    """The square root."""
    return b.unary("SQRT", x)


def logarithm(b: Builder, x: Tensor) -> Tensor:
    """The natural logarithm."""
    return b.unary("LOG", x)


def log_sum_exp(b: Builder, node: Node) -> View:
    """ReduceLogSumExp: m + log(sum(exp(x - m))) with m the maximum."""
    x, keep = node.floats(0), bool(node.integer("keepdims", 1))
    if _are_computed(node):
        if 0 in x.shape:
            return View.of(_by_computed_axes(b, node, x, "REDUCE_MAX", keep))  # minus infinity
        peak = _by_computed_axes(b, node, x, "REDUCE_MAX", True)
        shifted = b.unary("EXP", b.binary("SUB", store(b, x), peak))
        tensor = b.binary("ADD", b.unary("LOG", _by_computed_axes(b, node, View.of(shifted), "SUM", True)), peak)
        return View.of(tensor if keep else _by_computed_axes(b, node, View.of(tensor), "SUM", False))
    axes = _axes(node, x.rank)
    if axes is None:
        return x
    stored = [x.axis(axis) for axis in axes]
    peak = b.reduce("REDUCE_MAX", x.tensor, stored, keep=True)
    total = b.reduce("SUM", b.unary("EXP", b.binary("SUB", x.tensor, peak)), stored, keep=True)
    tensor = b.binary("ADD", b.unary("LOG", total), peak)
    if not keep:
        tensor = b.reduce("SUM", tensor, stored, keep=False)  # the axes have size 1 by now
    return _reduced(x, tensor, axes, keep)


def arg_extreme(kind: str) -> Lowering:
    """The lowering of ArgMax / ArgMin."""

    def lower(b: Builder, node: Node) -> View:
        x = node.view(0)
        axis = node.integer("axis", 0) % x.rank
        stored = x.axis(axis)
        shape = tuple(dim for at, dim in enumerate(x.tensor.shape) if at != stored)
        over = b.const(np.array(stored, np.int32))
        last = bool(node.integer("select_last_index", 0))
        source = x.tensor
        if last:  # LiteRT returns the first of equal extremes
            source = b.emit("REVERSE_V2", [source, b.reshape(over, (1,))], source.shape, x.dtype)
        tensor = b.emit(kind, [source, over], shape, np.int64, outputType="INT64")
        if last:
            size = b.cast(size_scalar(b, x.tensor.shape[stored]), np.int64)
            tensor = b.binary("SUB", b.binary("SUB", size, b.scalar(1, size)), tensor)
        if not node.integer("keepdims", 1):
            return _reduced(x, tensor, [axis], keep=False)
        kept = tuple(1 if at == stored else dim for at, dim in enumerate(x.tensor.shape))
        return x.with_tensor(b.reshape(tensor, kept))

    return lower
