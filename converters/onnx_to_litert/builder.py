"""Emitting LiteRT ops: every method adds what it needs to the graph and returns the result with its shape.

Constants are folded where that is free (reshape, transpose, cast). Shapes are in storage order; ``graph`` tells how an
unknown dimension is written.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from edgekit.artifacts import Array
from edgekit.converters.onnx_to_litert.graph import ANONYMOUS, FIRST_SYMBOL, Graph, Op, Shape, Tensor, is_static
from edgekit.converters.onnx_to_litert.limits import carrier, check_rank, data_operands
from edgekit.errors import InternalError

__all__ = ["Builder", "broadcast_shapes"]

#: constants up to this size are shared when equal; hashing larger ones would cost more than it saves
_SHARE_BYTES = 4096


class Builder:
    """Adds ops to ``graph``. ``source`` is the name of the ONNX node being lowered.

    With ``outer``, ``graph`` is a subgraph of that builder's graph: its tensors may be used, and become inputs of the
    subgraph when it is closed (``subgraphs``); unknown dimensions and constants are those of ``outer``.
    """

    def __init__(self, graph: Graph, outer: Builder | None = None) -> None:
        self.graph = graph
        self.outer = outer
        self.source: str = outer.source if outer else ""
        self._constants: dict[Hashable, Tensor] = outer._constants if outer else {}
        self._derived: dict[Hashable, int] = outer._derived if outer else {}
        self._symbols: itertools.count[int] = outer._symbols if outer else itertools.count(FIRST_SYMBOL, -1)
        self._symbol_sources: dict[int, tuple[Tensor, int]] = {}
        self._symbol_tensors: dict[int, Tensor] = {}
        self._shapes: dict[int, Tensor] = {}
        self._transposed: dict[tuple[int, Shape], Tensor] = {}
        self._reshaped: dict[int, Tensor] = {}

    # -- unknown dimensions ------------------------------------------------------------------------------------------

    def new_dim(self, key: Hashable = None) -> int:
        """A symbol for an unknown dimension; equal keys give the same one (None: always a new one)."""
        if key is not None and key in self._derived:
            return self._derived[key]
        symbol = next(self._symbols)
        if key is not None:
            self._derived[key] = symbol
        return symbol

    def note_shape(self, tensor: Tensor) -> Tensor:
        """Remember ``tensor`` as the place where its unknown dimensions can be read at run time."""
        for axis, dim in enumerate(tensor.shape):
            if dim <= FIRST_SYMBOL:
                self._symbol_sources.setdefault(dim, (tensor, axis))
        return tensor

    def can_read(self, dim: int) -> bool:
        """Whether ``dim`` is known, or can be read off a tensor at run time."""
        return dim >= 0 or self._symbol_source(dim) is not None

    def _symbol_source(self, symbol: int) -> tuple[Tensor, int] | None:
        """The tensor, and its axis, that has the unknown dimension: one of this graph before one from outside."""
        found = self._symbol_sources.get(symbol)
        return found if found or not self.outer else self.outer._symbol_source(symbol)

    def shape_of(self, tensor: Tensor) -> Tensor:
        """The storage shape of ``tensor`` as an int32 vector: a constant, or a SHAPE op."""
        if is_static(tensor.shape):
            return self.const(np.array(tensor.shape, np.int32))
        if id(tensor) not in self._shapes:
            out = self.emit("SHAPE", [tensor], (tensor.rank,), np.int32, outType="INT32")
            out.elements = tensor.shape
            self._shapes[id(tensor)] = out
        return self._shapes[id(tensor)]

    def dims(self, dims: Shape) -> Tensor:
        """``dims`` as an int32 vector, the unknown ones read at run time from a tensor that has them."""
        if is_static(dims):
            return self.const(np.array(dims, np.int32))
        pieces: list[Tensor] = []
        known: list[int] = []
        for dim in dims:
            if dim >= 0:
                known.append(dim)
                continue
            if known:
                pieces.append(self.const(np.array(known, np.int32)))
                known = []
            pieces.append(self._dim(dim))
        if known:
            pieces.append(self.const(np.array(known, np.int32)))
        out = self.concat(pieces, 0)
        out.elements = dims
        return out

    def _dim(self, symbol: int) -> Tensor:
        source = self._symbol_source(symbol)
        if source is None:
            raise InternalError(f"No tensor carries the unknown dimension {symbol} ('{self.source}').")
        if symbol not in self._symbol_tensors:
            tensor, axis = source
            self._symbol_tensors[symbol] = self.strided_slice(self.shape_of(tensor), [axis], [axis + 1], [1])
        return self._symbol_tensors[symbol]

    # -- tensors and ops ---------------------------------------------------------------------------------------------

    def const(self, data: npt.ArrayLike, name: str = "") -> Tensor:
        """``data`` as a constant; small equal ones are shared."""
        array = np.asarray(data)
        if array.nbytes > _SHARE_BYTES:
            return Tensor(name or f"{self.source}/const", array.dtype, array.shape, array)
        key = ("const", array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = Tensor(name or f"{self.source}/const", array.dtype, array.shape, array)
        return self._constants[key]

    def emit(
        self, kind: str, inputs: Sequence[Tensor | None], shape: Shape, dtype: npt.DTypeLike, **options: object
    ) -> Tensor:
        """One op with one output of ``shape`` and ``dtype``; ``options`` are the fields of its schema table."""
        return self.emit_many(kind, inputs, [(shape, dtype)], **options)[0]

    def emit_many(
        self,
        kind: str,
        inputs: Sequence[Tensor | None],
        outputs: Iterable[tuple[Shape, npt.DTypeLike]],
        **options: object,
    ) -> list[Tensor]:
        """One op with several outputs, each given as (shape, dtype).

        Where LiteRT's kernel does not compute in the type of the data, a wider one does (``limits``). Raises Refused
        where none can, and for more axes than the kernel takes.
        """
        operands, types = list(inputs), [(tuple(shape), np.dtype(dtype)) for shape, dtype in outputs]
        check_rank(kind, [tensor for tensor in operands if tensor is not None])
        data = data_operands(kind, len(operands))
        first = next((operands[index] for index in data if operands[index] is not None), None)
        if first is None or first.quantization is not None or first.dtype == (wide := carrier(kind, first.dtype)):
            return self._append(kind, operands, types, options)
        for index in data:
            operand = operands[index]
            operands[index] = self.cast(operand, wide) if operand is not None else None
        raised = [(shape, wide if dtype == first.dtype else dtype) for shape, dtype in types]
        made = self._append(kind, operands, raised, options)
        return [self.cast(tensor, dtype) for tensor, (_, dtype) in zip(made, types, strict=True)]

    def _append(
        self,
        kind: str,
        inputs: list[Tensor | None],
        types: Iterable[tuple[Shape, np.dtype[np.generic]]],
        options: dict[str, object],
    ) -> list[Tensor]:
        made = [Tensor(f"{self.source}/{kind}", dtype, shape) for shape, dtype in types]
        self.graph.ops.append(Op(kind, inputs, made, options, self.source))
        for tensor in made:
            self.note_shape(tensor)
        return made

    # -- primitives --------------------------------------------------------------------------------------------------

    def unary(self, kind: str, x: Tensor, **options: object) -> Tensor:
        """An elementwise op that keeps shape and dtype."""
        return self.emit(kind, [x], x.shape, x.dtype, **options)

    def binary(self, kind: str, a: Tensor, b: Tensor, dtype: npt.DTypeLike | None = None) -> Tensor:
        """A broadcasting elementwise op; ``dtype`` of the result is that of ``a`` unless given."""
        return self.emit(kind, [a, b], broadcast_shapes(self, [a.shape, b.shape]), dtype or a.dtype)

    def broadcast(self, tensors: Sequence[Tensor]) -> Shape:
        """The shape that the tensors broadcast to."""
        return broadcast_shapes(self, [tensor.shape for tensor in tensors])

    def broadcast_dims(self, shapes: Sequence[Shape]) -> Shape:
        """The shape that ``shapes`` broadcast to."""
        return broadcast_shapes(self, shapes)

    def cast(self, x: Tensor, dtype: npt.DTypeLike) -> Tensor:
        """``x`` as ``dtype``."""
        if x.dtype == dtype:
            return x
        if x.data is not None:
            return self.const(x.data.astype(dtype))
        out = self.emit("CAST", [x], x.shape, dtype)
        out.elements = x.elements
        return out

    def reshape(self, x: Tensor, shape: Shape) -> Tensor:
        """``x`` in another shape; at most one dimension may be unreadable at run time."""
        if x.shape == shape and (is_static(shape) or ANONYMOUS not in shape):
            return x
        if x.data is not None:
            flat = self.const(x.data.reshape(shape), x.name)
            if x.stored is not None:
                flat = Tensor(x.name, x.dtype, shape, flat.data, stored=x.stored.reshaped(shape))
            return flat
        if id(x) in self._reshaped:  # a chain of reshapes is one
            return self.reshape(self._reshaped[id(x)], shape)
        unknown = [dim for dim in shape if dim < 0]
        if len(unknown) <= 1:
            target = self.const(np.array([max(dim, -1) for dim in shape], np.int32))
        else:
            hidden = [dim for dim in unknown if not self.can_read(dim)]
            if len(hidden) > 1:
                raise InternalError(f"A reshape to {shape} has {len(hidden)} unknown dimensions ('{self.source}').")
            target = self._dims_with_one_free(shape, hidden)
        out = self.emit("RESHAPE", [x, target], shape, x.dtype)
        self._reshaped[id(out)] = x
        return out

    def _dims_with_one_free(self, shape: Shape, hidden: list[int]) -> Tensor:
        if not hidden:
            return self.dims(shape)
        at = shape.index(hidden[0])
        parts = [self.dims(part) for part in (shape[:at], shape[at + 1 :])]
        return self.concat([parts[0], self.const(np.array([-1], np.int32)), parts[1]], 0)

    def reshape_to(self, x: Tensor, target: Tensor, shape: Shape) -> Tensor:
        """``x`` in the shape that the int32 vector ``target`` holds at run time."""
        return self.emit("RESHAPE", [x, self.cast(target, np.int32)], shape, x.dtype)

    def transpose(self, x: Tensor, perm: Shape) -> Tensor:
        """Axis j of the result is axis ``perm[j]`` of ``x``. Moving only axes of size 1 is a reshape."""
        if perm == tuple(range(len(perm))):
            return x
        shape = tuple(x.shape[axis] for axis in perm)
        if x.data is not None and x.stored is not None:
            return Tensor(x.name, x.dtype, shape, x.data.transpose(perm), stored=x.stored.transposed(perm))
        if x.data is not None:
            return self.const(np.ascontiguousarray(x.data.transpose(perm)), x.name)
        key = (id(x), perm)
        if key not in self._transposed:
            moved = [axis for axis in perm if x.shape[axis] != 1]
            if moved == sorted(moved) and sum(not self.can_read(dim) for dim in shape) <= 1:
                self._transposed[key] = self.reshape(x, shape)
            else:
                order = self.const(np.array(perm, np.int32))
                self._transposed[key] = self.emit("TRANSPOSE", [x, order], shape, x.dtype)
        return self._transposed[key]

    def reduce(self, kind: str, x: Tensor, axes: Sequence[int], keep: bool) -> Tensor:
        """MEAN, SUM, REDUCE_MAX ... over storage ``axes``."""
        if not axes:
            return x
        shape = tuple(1 if axis in axes else dim for axis, dim in enumerate(x.shape) if keep or axis not in axes)
        over = self.const(np.array(sorted(axes), np.int32))
        return self.emit(kind, [x, over], shape, x.dtype, keepDims=keep)

    def concat(self, parts: Sequence[Tensor], axis: int) -> Tensor:
        """The parts one after the other along a storage axis."""
        if len(parts) == 1:
            return parts[0]
        dims = [part.shape[axis] for part in parts]
        total = sum(dims) if is_static(tuple(dims)) else self.new_dim(("concat", *dims))
        shape = list(parts[0].shape)
        for part in parts[1:]:
            shape = [a if a >= 0 else b if b >= 0 else a for a, b in zip(shape, part.shape, strict=True)]
        shape[axis] = total
        return self.emit("CONCATENATION", list(parts), tuple(shape), parts[0].dtype, axis=axis)

    def pad(self, x: Tensor, pads: Sequence[tuple[int, int]], value: float = 0.0) -> Tensor:
        """``x`` with ``pads`` (before, after) on each storage axis."""
        if not any(before or after for before, after in pads):
            return x
        dims = tuple(
            dim + sum(pad) if dim >= 0 else dim if pad == (0, 0) else self.new_dim(("pad", dim, sum(pad)))
            for dim, pad in zip(x.shape, pads, strict=True)
        )
        amounts = self.const(np.array(pads, np.int32))
        if value == 0:
            return self.emit("PAD", [x, amounts], dims, x.dtype)
        return self.emit("PADV2", [x, amounts, self.const(np.array(value, x.dtype))], dims, x.dtype)

    def strided_slice(self, x: Tensor, begin: Sequence[int], end: Sequence[int], strides: Sequence[int]) -> Tensor:
        """``x[begin:end:strides]`` on every storage axis; an ``end`` beyond the axis means all of it."""
        shape: list[int] = []
        begin_mask = end_mask = 0
        for axis, (dim, start, stop, step) in enumerate(zip(x.shape, begin, end, strides, strict=True)):
            whole = start == 0 and step == 1 and (stop >= 2**31 - 1 or stop == dim)
            if whole:
                begin_mask |= 1 << axis
                end_mask |= 1 << axis
                shape.append(dim)
            elif dim >= 0:
                shape.append(len(range(*slice(start, stop if stop > -(2**31) else None, step).indices(dim))))
                end_mask |= (1 << axis) if stop >= 2**31 - 1 or stop <= -(2**31) else 0
            else:
                shape.append(
                    stop - start
                    if 0 <= start <= stop < 2**30 and step == 1 and stop - start == 1
                    else self.new_dim(("slice", dim, start, stop, step))
                )
                end_mask |= (1 << axis) if stop >= 2**31 - 1 or stop <= -(2**31) else 0
        if begin_mask == (1 << x.rank) - 1:
            return x
        vectors = [self.const(np.clip(v, -(2**31), 2**31 - 1).astype(np.int32)) for v in (begin, end, strides)]
        return self.emit("STRIDED_SLICE", [x, *vectors], tuple(shape), x.dtype, beginMask=begin_mask, endMask=end_mask)

    def scalar(self, value: float, like: Tensor) -> Tensor:
        """``value`` as a rank-0 constant of the dtype of ``like``."""
        return self.const(np.array(value, like.dtype))

    def copy(self, x: Tensor) -> Tensor:
        """A new tensor with the same content."""
        if is_static(x.shape):
            return self.emit("RESHAPE", [x, self.const(np.array(x.shape, np.int32))], x.shape, x.dtype)
        perm = self.const(np.arange(x.rank, dtype=np.int32))
        return self.emit("TRANSPOSE", [x, perm], x.shape, x.dtype)

    def constant_data(self, x: Tensor) -> Array:
        """The values of a constant."""
        if x.data is None:
            raise InternalError(f"'{x.name}' is not a constant ('{self.source}').")
        return x.data


def broadcast_shapes(builder: Builder, shapes: Sequence[Shape]) -> Shape:
    """The shape that ``shapes`` broadcast to. An unknown dimension against a known one above 1 takes the known one."""
    rank = max(len(shape) for shape in shapes)
    result: list[int] = []
    for axis in range(rank):
        dims = {shape[axis - rank + len(shape)] for shape in shapes if axis - rank + len(shape) >= 0} - {1}
        known = [dim for dim in dims if dim >= 0]
        if known:
            result.append(known[0])
        elif len(dims) > 1:
            result.append(builder.new_dim(("broadcast", *sorted(dims))))
        else:
            result.append(dims.pop() if dims else 1)
    return tuple(result)
