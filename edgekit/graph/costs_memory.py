"""How much memory the activations of a graph need when it is reused, as LiteRT's arena planner plans it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

__all__ = ["Lifetime", "lifetimes", "live_bytes", "planned_bytes"]

#: (first op, last op, bytes) of one value
Lifetime = tuple[int, int, int]

_ALIGNMENT = 64


def lifetimes(
    ops: Sequence[tuple[Sequence[str], Sequence[str]]], sizes: Mapping[str, int],
    inputs: Iterable[str], outputs: Iterable[str],
) -> list[Lifetime]:
    """When each value of ``sizes`` (bytes) is alive; ``ops`` are (names read, names written) in order of execution.

    Inputs of the graph live until they are last read, outputs until the end.
    """
    last = len(ops)
    first = dict.fromkeys(inputs, 0)
    end = dict(first)
    for index, (read, written) in enumerate(ops):
        for name in written:
            first.setdefault(name, index)
            end.setdefault(name, index)
        for name in read:
            end[name] = index
    for name in outputs:
        end[name] = last
    return [(first[name], end[name], size) for name, size in sizes.items() if name in first and size]


def live_bytes(lives: Iterable[Lifetime], steps: int) -> tuple[int, ...]:
    """The bytes of all values that are alive while each of ``steps`` ops runs; no arena can be smaller than any."""
    change = [0] * (steps + 1)
    for first, last, size in lives:
        if first < steps:
            change[first] += size
            change[min(last, steps - 1) + 1] -= size
    return tuple(itertools.accumulate(change))[:steps]


def planned_bytes(lives: Iterable[Lifetime]) -> int:
    """The size of an arena: largest values first, each at the lowest place free during its whole life."""
    placed: list[tuple[int, int, int, int]] = []  # start and end in memory, first and last op
    total = 0
    for first, last, size in sorted(lives, key=lambda life: (-life[2], life[0])):
        aligned = -(-size // _ALIGNMENT) * _ALIGNMENT
        at, best, gap = 0, None, None
        for start, end, other_first, other_last in sorted(placed):
            if other_last < first or other_first > last:
                continue
            if start - at >= aligned and (gap is None or start - at < gap):
                best, gap = at, start - at
            at = max(at, end)
        place = at if best is None else best
        placed.append((place, place + aligned, first, last))
        total = max(total, place + aligned)
    return total
