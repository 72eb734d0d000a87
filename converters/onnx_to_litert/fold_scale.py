"""A scale behind a dense layer goes into the rows of its weights, through views and slices (attention's 1 / sqrt(d)).

before: y = FULLY_CONNECTED(x, w, b); q = STRIDED_SLICE(TRANSPOSE(RESHAPE(y))); s = MUL(q, c)
after:  y = FULLY_CONNECTED(x, w', b'); s = STRIDED_SLICE(TRANSPOSE(RESHAPE(y)))   rows that only q reads times c

Which rows reach which reader is found by sending the numbers of the rows through the views.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from edgekit.artifacts import Array
from edgekit.converters.onnx_to_litert.graph import Graph, Op, Tensor, is_static

__all__ = ["fold_scale_into_dense"]

_DENSE = frozenset({"FULLY_CONNECTED", "CONV_2D"})
_DATA = {"RESHAPE": 0, "TRANSPOSE": 0, "STRIDED_SLICE": 0, "SPLIT": 1, "SPLIT_V": 0}  # views, and where their data is
_MAX_ELEMENTS = 1 << 22  # of the row numbers that are sent through


def fold_scale_into_dense(graph: Graph) -> int:
    """Fold every multiplication by one constant that can be; how many were. Batch axes must be known."""
    uses = _Uses(graph)
    dropped = {id(op) for op in graph.ops if _folded(uses, op)}
    graph.ops = [op for op in graph.ops if id(op) not in dropped]
    return len(dropped)


class _Uses:
    """Who makes and who reads each tensor, kept right while tensors are renamed."""

    def __init__(self, graph: Graph) -> None:
        self.producers = {id(tensor): op for op in graph.ops for tensor in op.outputs}
        self.readers = graph.consumers()
        self.outputs = {id(tensor) for tensor in graph.outputs}
        # kept alive, so that no new tensor gets the id of one that is gone
        self._alive = [tensor for op in graph.ops for tensor in (*op.inputs, *op.outputs)]

    def rename(self, old: Tensor, new: Tensor) -> None:
        """``new`` in the place of ``old`` wherever it is made or read."""
        maker, readers = self.producers.pop(id(old)), self.readers.pop(id(old), [])
        maker.outputs = [new if each is old else each for each in maker.outputs]
        for reader in readers:
            reader.inputs = [new if each is old else each for each in reader.inputs]
        self.producers[id(new)] = maker
        self.readers.setdefault(id(new), []).extend(readers)
        self._alive.append(new)


def _scalar_product(op: Op) -> tuple[Tensor | None, float]:
    if op.kind != "MUL" or op.options.get("fusedActivationFunction"):
        return None, 1.0
    for value, constant in (op.inputs, op.inputs[::-1]):
        if value is None or constant is None or constant.data is None or value.data is not None:
            continue
        if constant.data.size == 1 and constant.data.dtype == np.float32 and op.outputs[0].shape == value.shape:
            return value, float(constant.data.reshape(()))
    return None, 1.0


def _folded(uses: _Uses, product: Op) -> bool:
    """Whether ``product`` could be done without."""
    value, factor = _scalar_product(product)
    dense = None if value is None else uses.producers.get(id(value))
    while dense is not None and dense.kind in _DATA:
        source = dense.inputs[_DATA[dense.kind]]
        dense = None if source is None else uses.producers.get(id(source))
    if value is None or dense is None or not _is_plain(dense) or not np.isfinite(factor):
        return False
    scaled = product.outputs[0]
    if id(scaled) in uses.outputs or id(value) in uses.outputs:
        return False
    reached = _follow(uses, dense, product)
    if reached is None or reached.own & reached.others:
        return False
    _scale_rows(dense, sorted(reached.own), factor)
    uses.readers[id(value)] = [op for op in uses.readers[id(value)] if op is not product]
    # What holds scaled values is no longer the value of the source graph, and only the product's result is the same.
    for each, rows in reached.views:
        if each is not value and rows & reached.own:
            uses.rename(each, Tensor(f"{each.name}/scaled", each.dtype, each.shape))
    uses.rename(value, scaled)
    return True


def _is_plain(dense: Op) -> bool:
    """A float layer with constants of its own, without an activation."""
    if dense.kind not in _DENSE or dense.options.get("fusedActivationFunction") not in (None, "NONE"):
        return False
    constants = dense.inputs[1:3]
    known = all(each is not None and each.data is not None and each.data.dtype == np.float32 for each in constants)
    small = is_static(dense.outputs[0].shape) and math.prod(dense.outputs[0].shape) <= _MAX_ELEMENTS
    return known and len(constants) == 2 and small and all(each is not None and each.stored is None
                                                           for each in constants)


@dataclass(slots=True)
class _Reached:
    """Rows that reach the product (``own``) and anything else (``others``), and the rows in each tensor on the way."""

    own: set[int] = field(default_factory=set)
    others: set[int] = field(default_factory=set)
    views: list[tuple[Tensor, set[int]]] = field(default_factory=list)


def _follow(uses: _Uses, dense: Op, product: Op) -> _Reached | None:
    """Where the rows of ``dense`` go; None where a view is not understood."""
    result = dense.outputs[0]
    reached = _Reached()
    front = [(result, np.broadcast_to(np.arange(result.shape[-1]), result.shape))]
    while front:
        tensor, numbers = front.pop()
        rows = set(np.unique(numbers).tolist())
        reached.views.append((tensor, rows))
        if id(tensor) in uses.outputs:
            reached.others |= rows
        for op in {id(op): op for op in uses.readers.get(id(tensor), [])}.values():
            if op.kind not in _DATA or op.inputs[_DATA[op.kind]] is not tensor:
                (reached.own if op is product else reached.others).update(rows)
                continue
            seen = _through(op, numbers)
            if seen is None:
                return None
            front += zip(op.outputs, seen, strict=True)
    return reached


def _through(op: Op, numbers: Array) -> list[Array] | None:
    """What a view makes of ``numbers``, for each of its outputs; None where its operands are not constants."""
    shapes = [tensor.shape for tensor in op.outputs]
    if not all(is_static(shape) for shape in shapes):
        return None
    if op.kind == "RESHAPE":
        return [numbers.reshape(shapes[0])]
    operands = [tensor.data for index, tensor in enumerate(op.inputs)
                if index != _DATA[op.kind] and tensor is not None and tensor.data is not None]
    if op.kind == "TRANSPOSE" and len(operands) == 1:
        return [numbers.transpose(operands[0])]
    if op.kind in ("SPLIT", "SPLIT_V") and operands:
        axis = int(operands[-1].reshape(()))
        return np.split(numbers, np.cumsum([shape[axis] for shape in shapes])[:-1], axis)
    return _sliced(op, operands, numbers) if op.kind == "STRIDED_SLICE" and len(operands) == 3 else None


def _sliced(op: Op, operands: list[Array], numbers: Array) -> list[Array] | None:
    if set(op.options) - {"beginMask", "endMask"}:
        return None
    begin_mask, end_mask = (int(str(op.options.get(name) or 0)) for name in ("beginMask", "endMask"))
    slices = tuple(
        slice(None if begin_mask >> axis & 1 else int(begin), None if end_mask >> axis & 1 else int(end), int(step))
        for axis, (begin, end, step) in enumerate(zip(*operands, strict=True)))
    taken = numbers[slices]
    return [taken] if taken.shape == op.outputs[0].shape else None


def _scale_rows(dense: Op, rows: list[int], factor: float) -> None:
    """Multiply the rows ``rows`` of copies of the weights and the bias (other layers may share them)."""
    for index in (1, 2):
        constant = dense.inputs[index]
        if constant is None or constant.data is None:  # _is_plain looked
            continue
        data = constant.data.copy()
        data[rows] = (data[rows].astype(np.float64) * factor).astype(np.float32)
        dense.inputs[index] = Tensor(constant.name, constant.dtype, constant.shape, data)
