"""Channels of a value that are taken from stored tensors, and the cheapest ops that bring them into one tensor.

The costs are estimates in nanoseconds per pixel of XNNPACK's copies and transpositions and of LiteRT's GATHER on one
x86 core; only their ratios matter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from edgekit.converters.onnx_to_litert.graph import Op, Shape, Tensor

__all__ = ["Channels", "Indices", "Move", "Mover", "copy_ns", "slice_last", "turn_ns"]

Indices = npt.NDArray[np.int64]

_COPY_NS, _TRANSPOSE_NS, _GATHER_NS = 0.11, 0.43, 2.4  # per number
_ROW_NS, _OP_NS = 1.0, 300.0  # per stretch of channels of a pixel, per op
_CUT_NS = 6000.0  # for an op that XNNPACK leaves to LiteRT
#: XNNPACK concatenates up to five tensors; with more, the op would cut the delegate's partition in two
_CONCAT_LIMIT = 5


@dataclass(frozen=True, slots=True, eq=False)
class Channels:
    """Channel i of a value is channel ``place[i]`` of ``sources[origin[i]]``; ``part``: what costs are booked on."""

    sources: tuple[Tensor, ...]
    origin: Indices
    place: Indices
    part: int

    @classmethod
    def of(cls, tensor: Tensor, part: int) -> Channels:
        """All channels of ``tensor`` as they are."""
        count = tensor.shape[-1]
        return cls((tensor,), np.zeros(count, np.int64), np.arange(count), part)

    @classmethod
    def stored(cls, tensor: Tensor, order: Indices, part: int) -> Channels:
        """``tensor`` holds channel ``order[j]`` at place j."""
        return cls((tensor,), np.zeros(len(order), np.int64), np.argsort(order), part)

    @classmethod
    def joined(cls, values: Sequence[Channels], part: int) -> Channels:
        """The channels of ``values`` one after the other."""
        sources: dict[int, Tensor] = {}
        number: dict[int, int] = {}
        origins: list[Indices] = []
        for value in values:
            at = np.zeros(len(value.sources), np.int64)
            for index in np.unique(value.origin).tolist():
                source = value.sources[index]
                sources[id(source)] = source
                at[index] = number.setdefault(id(source), len(number))
            origins.append(at[value.origin])
        places = np.concatenate([value.place for value in values])
        return cls(tuple(sources.values()), np.concatenate(origins), places, part)

    def take(self, channels: Indices) -> Channels:
        """The value whose channel i is channel ``channels[i]`` of this one."""
        return Channels(self.sources, self.origin[channels], self.place[channels], self.part)

    def grouped(self) -> Indices:
        """The channels in the order that copies the longest runs: source by source, small ones side by side."""
        counts = np.bincount(self.origin, minlength=len(self.sources))
        rank = np.argsort(np.argsort(counts, kind="stable"))
        return np.lexsort((self.place, rank[self.origin]))

    def runs(self) -> list[tuple[int, int, int]]:
        """(source, begin, end): the stretches to copy, in order."""
        torn = (np.diff(self.origin) != 0) | (np.diff(self.place) != 1)
        starts = [0, *(np.flatnonzero(torn) + 1).tolist(), len(self.origin)]
        return [
            (int(self.origin[a]), int(self.place[a]), int(self.place[a]) + b - a)
            for a, b in pairwise(starts)
        ]


@dataclass(frozen=True, slots=True)
class Move:
    """A way to store a value: what it costs, and ``make(result)``, which emits it into ``result`` if one is given."""

    cost_ns: float
    make: Callable[[Tensor | None], Tensor]


class Mover:
    """Emits moves into ``ops``; a move that was made already costs nothing."""

    def __init__(self, ops: list[Op]) -> None:
        self.ops = ops
        self._made: dict[tuple[tuple[int, int, int], ...], Tensor] = {}

    def plan(self, value: Channels, front: Shape, source: str) -> Move:
        """The cheapest way to store ``value`` in its own order. ``front``: the sizes of the axes before the last."""
        moves = [self._by_copies(value, front, source)]
        if moves[0].cost_ns > 0 and (turned := self._turned(value, front, source)) is not None:
            moves.append(turned)
        return min(moves, key=lambda move: move.cost_ns)

    # -- copies ------------------------------------------------------------------------------------------------------

    def _by_copies(self, value: Channels, front: Shape, source: str) -> Move:
        runs = value.runs()
        key = tuple((id(value.sources[at]), begin, end) for at, begin, end in runs)
        whole = len(runs) == 1 and runs[0][1:] == (0, value.sources[runs[0][0]].shape[-1])
        ready = value.sources[runs[0][0]] if whole else self._made.get(key)
        if ready is not None:
            return Move(0.0, lambda result: ready if result is None else self._copy(ready, result, source))
        width = sum(end - begin for _, begin, end in runs)
        cut = sum(end - begin < value.sources[at].shape[-1] for at, begin, end in runs)
        joined = len(runs) if len(runs) > 1 else 0
        nested = max(0, joined - _CONCAT_LIMIT)
        cost = copy_ns(front, width * (bool(cut) + bool(joined)), cut + joined + nested, cut + bool(joined))

        def make(result: Tensor | None) -> Tensor:
            if result is not None and len(runs) == 1:
                at, begin, _ = runs[0]
                self.ops.append(slice_last(value.sources[at], result, begin, source))
                return result
            parts = [self._part(value.sources[at], begin, end, source) for at, begin, end in runs]
            made = self._concat(parts, front, source, result)
            self._made[key] = made
            return made

        return Move(cost, make)

    def _copy(self, x: Tensor, result: Tensor, source: str) -> Tensor:
        target = np.array([max(dim, -1) for dim in result.shape], np.int32)
        if int(np.sum(target < 0)) > 1:
            perm = np.arange(x.rank, dtype=np.int32)
            self.ops.append(Op("TRANSPOSE", [x, _const(perm)], [result], source=source))
        else:
            self.ops.append(Op("RESHAPE", [x, _const(target)], [result], source=source))
        return result

    def _part(self, x: Tensor, begin: int, end: int, source: str) -> Tensor:
        if (begin, end) == (0, x.shape[-1]):
            return x
        key = ((id(x), begin, end),)
        if key not in self._made:
            part = Tensor(f"{x.name}/{begin}:{end}", x.dtype, (*x.shape[:-1], end - begin))
            self.ops.append(slice_last(x, part, begin, source))
            self._made[key] = part
        return self._made[key]

    def _concat(self, parts: list[Tensor], front: Shape, source: str, result: Tensor | None) -> Tensor:
        if len(parts) == 1:
            return parts[0] if result is None else self._copy(parts[0], result, source)
        while len(parts) > _CONCAT_LIMIT:
            count = min(_CONCAT_LIMIT, len(parts) - _CONCAT_LIMIT + 1)
            widths = [sum(part.shape[-1] for part in parts[at : at + count]) for at in range(len(parts) - count + 1)]
            at = int(np.argmin(widths))
            parts = [*parts[:at], self._concat(parts[at : at + count], front, source, None), *parts[at + count :]]
        made = result or _fresh(f"{source}/channels", parts[0], front, sum(part.shape[-1] for part in parts))
        self.ops.append(Op("CONCATENATION", list(parts), [made], {"axis": made.rank - 1}, source))
        return made

    # -- turns -------------------------------------------------------------------------------------------------------

    def _turned(self, value: Channels, front: Shape, source: str) -> Move | None:
        """Copies into the best order and, from there, one TRANSPOSE of blocks of channels or one GATHER."""
        grouped = value.grouped()
        base = self._by_copies(value.take(grouped), front, source)
        index = np.argsort(grouped)  # channel i lies at index[i]
        count = len(index)
        shape = _as_swap(index)
        if shape is not None and sum(dim < 0 for dim in front) <= 1:
            outer, inner, block = shape
            cost = turn_ns(front, count) if block == 1 else copy_ns(front, count, 2.5 * outer * inner)
        else:
            shape, cost = None, _pixels(front) * _GATHER_NS * count + _CUT_NS

        def make(result: Tensor | None) -> Tensor:
            x = base.make(None)
            made = result or _fresh(f"{source}/ordered", x, front, count)
            if shape is None:
                indices = _const(index.astype(np.int32))
                self.ops.append(Op("GATHER", [x, indices], [made], {"axis": made.rank - 1}, source))
            else:
                self._swap(x, made, shape, source)
            return made

        return Move(base.cost_ns + cost, make)

    def _swap(self, x: Tensor, result: Tensor, shape: tuple[int, int, int], source: str) -> None:
        outer, inner, block = shape
        front, tail = x.shape[:-1], () if block == 1 else (block,)
        split = Tensor(f"{source}/blocks", x.dtype, (*front, outer, inner, *tail))
        moved = Tensor(f"{source}/swapped", x.dtype, (*front, inner, outer, *tail))
        at = len(front)
        perm = (*range(at), at + 1, at, *range(at + 2, split.rank))
        self._copy(x, split, source)
        self.ops.append(Op("TRANSPOSE", [split, _const(np.array(perm, np.int32))], [moved], source=source))
        self._copy(moved, result, source)


def _as_swap(index: Indices) -> tuple[int, int, int] | None:
    """(outer, inner, block) if ``index`` is 0, 1, ... as (outer, inner, block) with the first two axes swapped."""
    torn = np.flatnonzero(np.diff(index) != 1)
    if not len(torn):
        return None
    block = int(torn[0]) + 1
    inner, rest = divmod(int(index[block]), block)
    if rest or inner < 2 or len(index) % (inner * block):
        return None
    shape = len(index) // (inner * block), inner, block
    return shape if np.array_equal(np.arange(len(index)).reshape(shape).swapaxes(0, 1).reshape(-1), index) else None


def copy_ns(front: Shape, channels: int, stretches: float, ops: int = 1) -> float:
    """What copying so many channels of each pixel costs. ``front``: the sizes of the axes before the last."""
    return _pixels(front) * (_COPY_NS * channels + _ROW_NS * stretches) + _OP_NS * ops


def turn_ns(front: Shape, channels: int) -> float:
    """What a TRANSPOSE that interleaves so many channels of each pixel costs."""
    return _pixels(front) * (_TRANSPOSE_NS * channels + _ROW_NS) + _OP_NS


def _pixels(front: Shape) -> float:
    """How many rows of channels there are, an unknown dimension counted as 64."""
    return float(np.prod([64.0 if dim < 0 else float(dim) for dim in front]))


def slice_last(x: Tensor, part: Tensor, begin: int, source: str) -> Op:
    """``part`` as the channels of ``x`` from ``begin`` on."""
    first, last = np.zeros(x.rank, np.int32), np.full(x.rank, 2**31 - 1, np.int32)
    first[-1], last[-1] = begin, begin + part.shape[-1]
    mask = (1 << (x.rank - 1)) - 1
    vectors = [_const(first), _const(last), _const(np.ones(x.rank, np.int32))]
    return Op("STRIDED_SLICE", [x, *vectors], [part], {"beginMask": mask, "endMask": mask}, source)


def _fresh(name: str, like: Tensor, front: Shape, channels: int) -> Tensor:
    return Tensor(name, like.dtype, (*front, channels))


def _const(data: npt.NDArray[np.int32]) -> Tensor:
    return Tensor("channels/const", data.dtype, data.shape, data)
