"""Small integer tensors (sizes, positions, indices): constant where they are known, computed where they are not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgekit.converters.onnx_to_litert.builder import Builder
from edgekit.converters.onnx_to_litert.graph import Shape, Tensor, is_static
from edgekit.converters.onnx_to_litert.node import Node
from edgekit.converters.onnx_to_litert.refusal import Refused
from edgekit.converters.onnx_to_litert.view import View, store

__all__ = ["as_scalar", "axis_of", "axis_positions", "int32_vector", "iota", "ones_of", "size_scalar", "strides_of",
           "vector_length", "wrapped"]

_INT32 = np.iinfo(np.int32)


def size_scalar(b: Builder, dim: int) -> Tensor:
    """``dim`` as an int32 of rank 0."""
    if dim >= 0:
        return b.const(np.array(dim, np.int32))
    return b.reshape(b.dims((dim,)), ())


def iota(b: Builder, dim: int) -> Tensor:
    """0, 1, ... ``dim`` - 1 as an int32 vector."""
    if dim >= 0:
        return b.const(np.arange(dim, dtype=np.int32))
    zero, one = b.const(np.array(0, np.int32)), b.const(np.array(1, np.int32))
    return b.emit("RANGE", [zero, size_scalar(b, dim), one], (dim,), np.int32)


def axis_positions(b: Builder, shape: Shape, axis: int) -> Tensor:
    """The position along ``axis``, shaped to broadcast against ``shape``."""
    return b.reshape(iota(b, shape[axis]), tuple(dim if at == axis else 1 for at, dim in enumerate(shape)))


def strides_of(b: Builder, dims: Shape) -> list[Tensor]:
    """How far apart neighbours along each of ``dims`` lie in a flat tensor, as int32 of rank 0."""
    strides: list[Tensor] = []
    for at in range(len(dims)):
        inner = dims[at + 1 :]
        if is_static(inner):
            strides.append(b.const(np.array(np.prod(inner, dtype=np.int64), np.int32)))
        else:
            strides.append(b.reduce("REDUCE_PROD", b.dims(inner), [0], keep=False))
    return strides


def wrapped(b: Builder, indices: Tensor, size: Tensor) -> Tensor:
    """``indices`` that may count from the end as positions below ``size``."""
    if indices.data is not None and size.data is not None:
        return b.const(np.where(indices.data < 0, indices.data + size.data, indices.data).astype(np.int32))
    return b.binary("FLOOR_MOD", indices, size)


def int32_vector(b: Builder, view: View) -> Tensor:
    """``view`` as int32; larger numbers, which mean "to the end", become the largest ones."""
    tensor = store(b, view)
    if tensor.dtype == np.int32:
        return tensor
    if tensor.dtype == np.int64 and tensor.elements is None:
        if tensor.data is not None:
            return b.const(np.clip(tensor.data, _INT32.min, _INT32.max).astype(np.int32))
        tensor = b.binary("MINIMUM", tensor, b.scalar(_INT32.max, tensor))
        tensor = b.binary("MAXIMUM", tensor, b.scalar(_INT32.min, tensor))
    return b.cast(tensor, np.int32)


def as_scalar(b: Builder, view: View) -> Tensor:
    """A tensor of one element as int32 of rank 0."""
    if any(dim not in (1, -1) and dim >= 0 for dim in view.shape):
        raise Refused(f"it takes one number where it is given a tensor of shape {list(view.shape)}")
    return b.reshape(b.cast(view.tensor, np.int32), ())


def vector_length(view: View, what: str) -> int:
    """How many elements the vector has; refused when that is known only at run time."""
    length = view.shape[0] if view.rank else 1
    if length < 0:
        raise Refused(f"the number of its {what} is known only at run time", f"Make the {what} constants.")
    return length


def ones_of(b: Builder, like: Tensor, dtype: type[np.generic]) -> Tensor:
    """Ones in the shape of ``like``."""
    if is_static(like.shape):
        return b.const(np.ones(like.shape, dtype))
    return b.emit("FILL", [b.shape_of(like), b.const(np.array(1, dtype))], like.shape, dtype)


def axis_of(node: Node, index: int, rank: int) -> int | None:
    """The ONNX axis that the operand ``index`` holds, None when it is computed at run time."""
    data: Sequence[int] | None = None
    const = node.view(index).const
    if const is not None:
        data = [int(value) for value in const.reshape(-1)]
    return None if data is None else data[0] % rank
