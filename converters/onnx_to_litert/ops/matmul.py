"""Gemm and MatMul: FULLY_CONNECTED for constant weights, BATCH_MATMUL otherwise."""

from __future__ import annotations

import numpy as np

from edgekit.converters.onnx_to_litert.builder import Builder
from edgekit.converters.onnx_to_litert.graph import Shape, Tensor
from edgekit.converters.onnx_to_litert.node import Node, Refused
from edgekit.converters.onnx_to_litert.view import View, expand_rank, identity, reshape_view, store

__all__ = ["gemm", "matmul", "product"]


def gemm(b: Builder, node: Node) -> View:
    """Gemm: alpha * A' @ B' + beta * C. The factors go into constants where they can."""
    a, weights = node.floats(0), node.floats(1)
    alpha, beta = node.real("alpha", 1.0), node.real("beta", 1.0)
    if node.integer("transA", 0):
        a = View(a.tensor, tuple(1 - axis for axis in a.order))
    if not node.integer("transB", 0):
        weights = View(weights.tensor, tuple(1 - axis for axis in weights.order))
    c = node.view(2) if node.has_input(2) else None
    units = weights.shape[0]
    if c is not None and c.rank and min(c.shape[-1], units) >= 0 and c.shape[-1] not in (1, units):
        raise Refused(f"its bias {list(c.shape)} does not fit {units} units")
    data = weights.const
    if data is not None:
        bias = None if c is None else c.const
        fits = bias is not None and (bias.size == 1 or bias.shape[-1] == bias.size)
        kernel = store(b, weights) if alpha == 1 else b.const(data * np.float32(alpha), weights.tensor.name)
        flat = None
        if fits and bias is not None:
            flat = np.broadcast_to(bias.reshape(-1) * np.float32(beta), (data.shape[0],)).astype(np.float32)
        y = fully_connected(b, store(b, a), kernel, flat)
        if fits or c is None:
            return View.of(y)
    else:
        y = b.emit("BATCH_MATMUL", [store(b, a), store(b, weights)], (a.shape[0], weights.shape[0]), a.dtype, adjY=True)
        if alpha != 1:
            y = b.binary("MUL", y, b.scalar(alpha, y))
        if c is None:
            return View.of(y)
    addend = store(b, c)
    if beta != 1:
        addend = b.binary("MUL", addend, b.scalar(beta, addend))
    return View.of(b.binary("ADD", y, addend))


def fully_connected(b: Builder, x: Tensor, kernel: Tensor, bias: np.ndarray | None = None) -> Tensor:
    """``x`` (..., in) by ``kernel`` (out, in), plus a bias (out,)."""
    units = kernel.shape[0]
    zeros = np.zeros(units, np.float32) if bias is None else bias
    return b.emit(
        "FULLY_CONNECTED", [x, kernel, b.const(zeros)], (*x.shape[:-1], units), x.dtype, keepNumDims=x.rank != 2
    )


def matmul(b: Builder, node: Node) -> View:
    """MatMul with numpy's rules for ranks 1 and above."""
    x, y = node.floats(0), node.floats(1)
    summed = (x.shape[-1], y.shape[max(y.rank - 2, 0)])
    if min(summed) >= 0 and summed[0] != summed[1]:
        raise Refused(f"its operands {list(x.shape)} and {list(y.shape)} do not multiply")
    if x.rank == 1 or y.rank == 1:
        return _with_vectors(b, x, y)
    data = y.const
    if data is not None and data.ndim == 2:
        # all axes but the last may lie in any order
        order = x.order if x.order[-1] == x.rank - 1 else (*(a for a in x.order if a != x.rank - 1), x.rank - 1)
        kernel = b.transpose(store(b, y), (1, 0))
        return View(fully_connected(b, store(b, x, order), kernel), order)
    return View.of(_batched(b, x, y))


def _with_vectors(b: Builder, x: View, y: View) -> View:
    left = reshape_view(b, x, (1, x.shape[0])) if x.rank == 1 else x
    right = reshape_view(b, y, (y.shape[0], 1)) if y.rank == 1 else y
    product = _batched(b, left, right)
    shape = list(product.shape)
    if y.rank == 1:
        shape.pop()
    if x.rank == 1:
        shape.pop(-1 if y.rank == 1 else -2)
    return View.of(b.reshape(product, tuple(shape)))


def product(b: Builder, x: View, y: View) -> View:
    """The matrix product of operands of one rank above 2; FULLY_CONNECTED for one constant matrix on the right."""
    if y.const is not None and y.rank == 3 and y.shape[0] == 1:
        kernel = b.const(np.ascontiguousarray(y.const[0].T), y.tensor.name)
        return View.of(fully_connected(b, store(b, x), kernel))
    return View.of(_batched(b, x, y))


def _batched(b: Builder, x: View, y: View) -> Tensor:
    """BATCH_MATMUL; a swapped last pair of axes is a flag of the op, not a TRANSPOSE."""
    rank = max(x.rank, y.rank)
    if rank > 5:
        raise Refused(f"LiteRT's BATCH_MATMUL takes at most 5 axes, not {rank}")
    if x.rank != y.rank:
        x, y = expand_rank(b, x, rank), expand_rank(b, y, rank)
    left, adj_x = _matrix(b, x)
    right, adj_y = _matrix(b, y)
    if left is right and left.data is None and not (adj_x or adj_y):
        # XNNPACK draws a TRANSPOSE before the op into one of the two and misreads the other, so they must differ
        right, adj_y = store(b, y, (*range(rank - 2), rank - 1, rank - 2)), True
    batch = b.broadcast_dims([x.shape[:-2], y.shape[:-2]]) if rank > 2 else ()
    shape: Shape = (*batch, x.shape[-2], y.shape[-1])
    return b.emit("BATCH_MATMUL", [left, right], shape, x.dtype, adjX=adj_x, adjY=adj_y)


def _matrix(b: Builder, view: View) -> tuple[Tensor, bool]:
    """The tensor with its batch axes in order, and whether its last two axes are stored swapped."""
    swapped = (*range(view.rank - 2), view.rank - 1, view.rank - 2)
    if view.order == swapped:
        return view.tensor, True
    if view.is_identity or view.order[-1] == view.rank - 1:
        return store(b, view, identity(view.rank)), False
    if view.order[-1] == view.rank - 2:
        return store(b, view, swapped), True
    return store(b, view), False
