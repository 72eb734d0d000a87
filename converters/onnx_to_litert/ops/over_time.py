"""A loop over one axis of tensors, in two levels where it collects much."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isqrt

import numpy as np

from edgekit.converters.onnx_to_litert.builder import Builder
from edgekit.converters.onnx_to_litert.graph import Shape, Tensor, is_static
from edgekit.converters.onnx_to_litert.subgraphs import Loop, Variable

__all__ = ["Made", "OverTime", "Steps", "sliced", "zeros"]

#: the states of each direction, and what each puts out
Made = tuple[list[list[Tensor]], list[Tensor]]
#: (builder, number of the step, a row of each direction, states of each) -> new states, rows to collect
Steps = Callable[[Builder, Tensor, list[Tensor], list[list[Tensor]]], Made]
#: zeros up to this size are a constant, larger ones are filled in at run time instead of making the file larger
_LARGEST_ZEROS_BYTES = 4096
#: more than this is collected by two nested loops
_LARGEST_COPY_BYTES = 32 * 1024


@dataclass(frozen=True, slots=True)
class OverTime:
    """A loop over ``axis`` of some tensors, backwards where ``reverse`` says so; ``collect``: keep what it puts out."""

    axis: int
    reverse: list[bool]
    collect: bool

    def run(self, b: Builder, rows: list[Tensor], states: list[list[Tensor]], limit: Tensor, steps: Steps) -> Made:
        """The states after ``limit`` steps, and what those put out: tensors as long as ``rows`` (or [])."""
        loop = Loop(b)
        counter = loop.counter()
        variables = [[loop.variable(state) for state in group] for group in states]
        length = rows[0].shape[self.axis]
        newest = self._newest(b, length) if any(self.reverse) else limit
        places = [loop.body.binary("SUB", newest, counter.now) if back else counter.now for back in self.reverse]
        taken = [self._take(loop.body, x, place) for x, place in zip(rows, places, strict=True)]
        now = [[variable.now for variable in group] for group in variables]
        after, outputs = steps(loop.body, counter.now, taken, now)
        for group, results in zip(variables, after, strict=True):
            for variable, result in zip(group, results, strict=True):
                variable.next = result
        pairs = zip(outputs, places, strict=True) if self.collect else ()
        collected = [self._collect(loop, output, place, length) for output, place in pairs]
        final = loop.run(loop.test.binary("LESS", counter.tested, limit, np.bool_))
        return [[final[variable] for variable in group] for group in variables], [final[into] for into in collected]

    def block_length(self, rows: list[Tensor], width: int) -> int:
        """How many steps to take in an inner loop when ``width`` numbers are collected a step; 0 for no inner loop.

        The engine copies what a loop collects in every step: with T steps that is T * T rows. Two nested loops of about
        sqrt(T) steps copy 2 * T * sqrt(T) rows.
        """
        length, batch = rows[0].shape[self.axis], rows[0].shape[1 - self.axis]
        if not self.collect or min(length, batch) < 0 or length * batch * width * 4 < _LARGEST_COPY_BYTES:
            return 0
        root = isqrt(length)
        return next((size for size in range(root, 2 * root) if length % size == 0), root)

    def blocks(self, b: Builder, rows: list[Tensor], states: list[list[Tensor]], size: int, steps: Steps) -> Made:
        """As ``run`` over all steps, in an outer loop over blocks of ``size`` steps and an inner one over a block."""
        length = rows[0].shape[self.axis]
        count = -(-length // size)
        missing = count * size - length  # of the block that is run last, at the far end of its steps
        full = b.const(np.array([size], np.int32))

        def block(b: Builder, number: Tensor, rows: list[Tensor], states: list[list[Tensor]]) -> Made:
            limit = full
            if missing:
                left = b.binary("SUB", b.const(np.array([length], np.int32)), b.binary("MUL", number, full))
                limit = b.binary("MINIMUM", full, left)
            flat = [b.reshape(x, self._merged(x.shape)) for x in rows]
            after, outputs = self.run(b, flat, states, limit, steps)
            return after, [b.reshape(x, self._parted(x.shape, 1)) for x in outputs]

        ends = [(missing, 0) if back else (0, missing) for back in self.reverse]
        parted = []
        for x, end in zip(rows, ends, strict=True):
            padded = b.pad(x, [end if axis == self.axis else (0, 0) for axis in range(x.rank)])
            parted.append(b.reshape(padded, self._parted(padded.shape, count)))
        after, outputs = self.run(b, parted, states, b.const(np.array([count], np.int32)), block)
        whole = [b.reshape(x, self._merged(x.shape)) for x in outputs]
        return after, [sliced(b, x, self.axis, end[0], length) for x, end in zip(whole, ends, strict=True)]

    def _newest(self, b: Builder, length: int) -> Tensor:
        """The last place, where a backward direction begins."""
        if length >= 0:
            return b.const(np.array([length - 1], np.int32))
        return b.binary("SUB", b.dims((length,)), b.const(np.ones(1, np.int32)))

    def _take(self, b: Builder, x: Tensor, place: Tensor) -> Tensor:
        shape = (*x.shape[: self.axis], 1, *x.shape[self.axis + 1 :])
        return b.emit("GATHER", [x, place], shape, x.dtype, axis=self.axis)

    def _collect(self, loop: Loop, row: Tensor, place: Tensor, length: int) -> Variable:
        shape = (*row.shape[: self.axis], length, *row.shape[self.axis + 1 :])
        into = loop.variable(zeros(loop.outer, shape))
        along = np.eye(row.rank, dtype=np.int32)[self.axis]
        start = loop.body.binary("MUL", place, loop.body.const(along))
        into.next = loop.body.emit("DYNAMIC_UPDATE_SLICE", [into.now, row, start], shape, row.dtype)
        return into

    def _parted(self, shape: Shape, count: int) -> Shape:
        """``shape`` with its time axis as ``count`` blocks."""
        return (*shape[: self.axis], count, shape[self.axis] // count, *shape[self.axis + 1 :])

    def _merged(self, shape: Shape) -> Shape:
        """``shape`` with blocks and the steps in them as one axis."""
        return (*shape[: self.axis], shape[self.axis] * shape[self.axis + 1], *shape[self.axis + 2 :])


def sliced(b: Builder, x: Tensor, axis: int, start: int, count: int) -> Tensor:
    """``count`` places from ``start`` on, along one axis."""
    if x.data is not None:
        return b.const(np.ascontiguousarray(np.take(x.data, range(start, start + count), axis)), x.name)
    begin, end = [0] * x.rank, [2**31 - 1] * x.rank
    begin[axis], end[axis] = start, start + count
    if x.shape[axis] == count:
        return x
    return b.strided_slice(x, begin, end, [1] * x.rank)


def zeros(b: Builder, shape: Shape) -> Tensor:
    """Float zeros."""
    if is_static(shape) and int(np.prod(shape)) * 4 <= _LARGEST_ZEROS_BYTES:
        return b.const(np.zeros(shape, np.float32))
    return b.emit("FILL", [b.dims(shape), b.const(np.zeros((), np.float32))], shape, np.float32)
