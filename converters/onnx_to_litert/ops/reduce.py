"""Reductions: the axes are mapped to storage, so no layout is preferred."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgekit.converters.onnx_to_litert.builder import Builder
from edgekit.converters.onnx_to_litert.graph import Tensor
from edgekit.converters.onnx_to_litert.node import Node, Refused
from edgekit.converters.onnx_to_litert.view import View

__all__ = ["REDUCTIONS", "arg_extreme", "reduction"]

Lowering = Callable[[Builder, Node], View]
#: ONNX op -> LiteRT op
REDUCTIONS = {
    "ReduceMean": "MEAN", "ReduceSum": "SUM", "ReduceMax": "REDUCE_MAX", "ReduceMin": "REDUCE_MIN",
    "ReduceProd": "REDUCE_PROD",
}  # fmt: skip


def _axes(node: Node, rank: int) -> list[int] | None:
    """The ONNX axes to reduce; None when the op is to do nothing."""
    axes = node.optional_const(1, "axes") if len(node.inputs) > 1 else None
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
        if x.dtype not in (np.float32, np.int32, np.int64) or (x.dtype != np.float32 and (before or after)):
            raise Refused(f"LiteRT has no {node.op_type} for {x.dtype.name}", "Convert the model to float32.")
        keep = bool(node.integer("keepdims", 1))
        axes = _axes(node, x.rank)
        tensor = before(b, x.tensor) if before else x.tensor
        if axes is None:
            return x.with_tensor(after(b, tensor) if after else tensor)
        tensor = b.reduce(kind, tensor, [x.axis(axis) for axis in axes], keep)
        return _reduced(x, after(b, tensor) if after else tensor, axes, keep)

    return lower


def square(b: Builder, x: Tensor) -> Tensor:
    """X * x."""
    return b.binary("MUL", x, x)


def absolute(b: Builder, x: Tensor) -> Tensor:
    """|x|."""
    return b.unary("ABS", x)


def root(b: Builder, x: Tensor) -> Tensor:
    """The square root."""
    return b.unary("SQRT", x)


def logarithm(b: Builder, x: Tensor) -> Tensor:
    """The natural logarithm."""
    return b.unary("LOG", x)


def log_sum_exp(b: Builder, node: Node) -> View:
    """ReduceLogSumExp: m + log(sum(exp(x - m))) with m the maximum."""
    x = node.floats(0)
    axes, keep = _axes(node, x.rank), bool(node.integer("keepdims", 1))
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
        if node.integer("select_last_index", 0):
            raise Refused("LiteRT returns the first of equal extremes, not the last")
        axis = node.integer("axis", 0) % x.rank
        stored = x.axis(axis)
        shape = tuple(dim for at, dim in enumerate(x.tensor.shape) if at != stored)
        over = b.const(np.array(stored, np.int32))
        tensor = b.emit(kind, [x.tensor, over], shape, np.int64, outputType="INT64")
        if not node.integer("keepdims", 1):
            return _reduced(x, tensor, [axis], keep=False)
        kept = tuple(1 if at == stored else dim for at, dim in enumerate(x.tensor.shape))
        return x.with_tensor(b.reshape(tensor, kept))

    return lower
