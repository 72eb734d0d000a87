"""Layout assignment by bookkeeping: a ``View`` says in which order the axes of an ONNX value are stored.

An ONNX Transpose only changes the view. A convolution asks for N, H, W, C and leaves its result so. Elementwise
ops, reductions, concatenations, slices and most reshapes work on whatever order is there. A TRANSPOSE op is emitted
only when an op needs an order that the stored tensor does not have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgekit.artifacts import Array
from edgekit.converters.onnx_to_litert.builder import Builder
from edgekit.converters.onnx_to_litert.graph import ANONYMOUS, Shape, Tensor, is_static

__all__ = ["NHWC", "View", "align", "channels_last", "expand_rank", "identity", "reshape_view", "store"]

NHWC: Shape = (0, 2, 3, 1)


def identity(rank: int) -> Shape:
    """The order of axes in which storage and ONNX agree."""
    return tuple(range(rank))


def channels_last(rank: int) -> Shape:
    """N, spatial axes, C: what spatial ops want. Below rank 3 there is nothing to move."""
    return (0, *range(2, rank), 1) if rank > 2 else identity(rank)


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """An ONNX value: storage axis j of ``tensor`` is the value's axis ``order[j]``."""

    tensor: Tensor
    order: Shape

    @classmethod
    def of(cls, tensor: Tensor) -> View:
        """A view of a tensor that is stored in the ONNX order."""
        return cls(tensor, identity(tensor.rank))

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.order)

    @property
    def shape(self) -> Shape:
        """The shape in ONNX order."""
        dims = dict(zip(self.order, self.tensor.shape, strict=True))
        return tuple(dims[axis] for axis in range(self.rank))

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Element type."""
        return self.tensor.dtype

    @property
    def const(self) -> Array | None:
        """The value in ONNX order when it is a constant."""
        data = self.tensor.data
        return None if data is None else data.transpose([self.order.index(axis) for axis in range(self.rank)])

    @property
    def is_identity(self) -> bool:
        """Whether storage and ONNX order agree."""
        return self.order == identity(self.rank)

    def axis(self, axis: int) -> int:
        """The storage axis of the ONNX ``axis`` (which may be negative)."""
        return self.order.index(axis % self.rank)

    def with_tensor(self, tensor: Tensor) -> View:
        """Another tensor stored in the same order."""
        return View(tensor, self.order)


def store(builder: Builder, view: View, order: Shape | None = None) -> Tensor:
    """The tensor of ``view`` with its axes stored in ``order`` (None: the ONNX order)."""
    order = identity(view.rank) if order is None else order
    return builder.transpose(view.tensor, tuple(view.order.index(axis) for axis in order))


def expand_rank(builder: Builder, view: View, rank: int) -> View:
    """``view`` with axes of size 1 put in front, as broadcasting does."""
    extra = rank - view.rank
    if extra == 0:
        return view
    tensor = builder.reshape(view.tensor, (1,) * extra + view.tensor.shape)
    return View(tensor, identity(extra) + tuple(axis + extra for axis in view.order))


def align(builder: Builder, views: Sequence[View]) -> tuple[list[Tensor], Shape]:
    """The tensors of ``views`` in one common order, broadcastable to each other, and that order.

    The order is the one in which most of the data already lies; constants are rearranged for nothing.
    """
    rank = max(view.rank for view in views)
    weights: dict[Shape, int] = {}
    for view in views:
        if view.tensor.data is None and view.rank == rank:
            weights[view.order] = weights.get(view.order, 0) + _weight(view)
    if weights:
        order = max(weights, key=lambda key: (weights[key], key != identity(rank)))
    else:
        order = identity(rank)
    if order == identity(rank):
        return [store(builder, view) for view in views], order
    tensors = []
    for view in views:
        scalar = view.tensor.data is not None and view.rank == 0
        tensors.append(view.tensor if scalar else store(builder, expand_rank(builder, view, rank), order))
    return tensors, order


def _weight(view: View) -> int:
    """Elements, an unknown dimension counted as 64; an order that only moves axes of size 1 weighs next to nothing."""
    real = [axis for axis, dim in zip(view.order, view.tensor.shape, strict=True) if dim != 1]
    size = int(np.prod([64 if dim < 0 else dim for dim in view.tensor.shape]))
    return size if len(real) > 1 else 1


def reshape_view(builder: Builder, view: View, shape: Shape) -> View:
    """``view`` in another ONNX ``shape``; the stored order survives when the reshape does not cut through it."""
    if view.is_identity:
        return View.of(builder.reshape(view.tensor, shape))
    if view.tensor.data is None and sum(not builder.can_read(dim) for dim in shape) <= 1:
        groups = _groups(view.shape, shape)
        if groups is not None:
            view = _gather_groups(builder, view, [old for old, _ in groups])
            order = _order_after(view, shape, groups)
            return View(builder.reshape(view.tensor, tuple(shape[axis] for axis in order)), order)
    return View.of(builder.reshape(store(builder, view), shape))


def _gather_groups(builder: Builder, view: View, groups: list[list[int]]) -> View:
    """``view`` stored so that the axes of each group lie side by side, in their ONNX order; unmoved if they do already.

    A group that was torn apart comes together where its last axis lay, so that channels stay last where they were.
    """
    stored = [axis for axis, dim in zip(view.order, view.tensor.shape, strict=True) if dim != 1]
    home = {axis: group for group in groups for axis in group}
    wanted: list[int] = []
    for at, axis in enumerate(stored):
        group = home[axis]
        if all(other in stored[: at + 1] for other in group):
            wanted.extend(group)
    if wanted == stored:
        return view
    order = [axis for axis in view.order if view.shape[axis] == 1] + wanted
    return View(store(builder, view, tuple(order)), tuple(order))


def _order_after(view: View, shape: Shape, groups: list[tuple[list[int], list[int]]]) -> Shape:
    """The storage order after the reshape: each group's new axes stand where its old ones stood."""
    place = {axis: index for index, axis in enumerate(view.order)}
    order = [axis for _, new in sorted(groups, key=lambda group: place[group[0][0]]) for axis in new]
    for axis, dim in enumerate(shape):
        if dim == 1:
            order.insert(order.index(axis - 1) + 1 if axis else 0, axis)
    return tuple(order)


def _groups(old: Shape, new: Shape) -> list[tuple[list[int], list[int]]] | None:
    """The smallest pairs (axes of ``old``, axes of ``new``) of equal products: a split, a merge, or both.

    Axes of size 1 are left out. None if the shapes do not pair up, which unknown dimensions may hide.
    """
    left = [axis for axis, dim in enumerate(old) if dim != 1]
    right = [axis for axis, dim in enumerate(new) if dim != 1]
    groups: list[tuple[list[int], list[int]]] = []
    while left and right:
        a, b = [left.pop(0)], [right.pop(0)]
        if old[a[0]] == new[b[0]] and old[a[0]] != ANONYMOUS:
            groups.append((a, b))
            continue
        size_a, size_b = old[a[0]], new[b[0]]
        while size_a != size_b:
            if min(size_a, size_b) < 0 or size_a == 0 or size_b == 0:
                rest_a, rest_b = a + left, b + right
                unknown = [old[axis] for axis in rest_a if old[axis] < 0]
                return [*groups, (rest_a, rest_b)] if unknown or not is_static(new) else None
            if size_a < size_b:
                if not left:
                    return None
                a.append(left.pop(0))
                size_a = size_a * old[a[-1]] if old[a[-1]] >= 0 else -1
            else:
                if not right:
                    return None
                b.append(right.pop(0))
                size_b = size_b * new[b[-1]] if new[b[-1]] >= 0 else -1
        groups.append((a, b))
    return None if left or right else groups
