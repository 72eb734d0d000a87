"""CPU time of things that run side by side, and the ratio of two of them with an interval.

The machine may be shared: absolute times drift by tens of per cent within a minute. So every block times each subject
in turn, a ratio is only ever formed inside a block, and the reported figure is the median of those ratios. Reloading a
file can move it by a few per cent too (memory placement), so the subjects are reopened every round, and the bootstrap
resamples rounds before it resamples the blocks inside them.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from edgekit.measure import paired_ratio

__all__ = ["Ratio", "Seconds", "interleave", "measure_ratios", "ratio"]

Seconds = npt.NDArray[np.float64]
Run = Callable[[], object]


@dataclasses.dataclass(frozen=True)
class Ratio:
    """Time of one subject over time of another, with a bootstrap interval; ``blocks`` is the number of pairs."""

    value: float
    lower: float
    upper: float
    blocks: int

    @property
    def half_width(self) -> float:
        """Half the interval, as a fraction of the value."""
        return (self.upper - self.lower) / (2 * self.value)


def _time_block(run: Run, repeats: int, clock: Callable[[], float]) -> float:
    """Median seconds of ``repeats`` calls, after one that brings caches back to this subject."""
    run()
    seconds = []
    for _ in range(repeats):
        start = clock()
        run()
        seconds.append(clock() - start)
    return float(np.median(seconds))


def interleave(openers: Mapping[str, Callable[[], Run]], rounds: int, blocks: int, repeats: int = 5,
               clock: Callable[[], float] = time.thread_time) -> dict[str, Seconds]:
    """Seconds per call of every subject, as arrays (rounds, blocks) that may be paired element by element.

    An opener loads its subject afresh and returns what to time. The order inside a block rotates, so that no subject
    always follows the same neighbour. ``clock`` must count CPU seconds of the calling thread: subjects use one thread.
    """
    names = list(openers)
    seconds = {name: np.empty((rounds, blocks)) for name in names}
    for r in range(rounds):
        opened = {name: openers[name]() for name in names[r % len(names):] + names[:r % len(names)]}
        for b in range(blocks):
            first = (r + b) % len(names)
            for name in names[first:] + names[:first]:
                seconds[name][r, b] = _time_block(opened[name], repeats, clock)
    return seconds


def ratio(numerator: Seconds, denominator: Seconds, draws: int = 4000) -> Ratio:
    """The median of the paired ratios of two (rounds, blocks) arrays, with a two-level 95 % bootstrap interval."""
    return Ratio(*paired_ratio(denominator, numerator, draws), blocks=numerator.size)


def measure_ratios(openers: Mapping[str, Callable[[], Run]], subject: str, against: Sequence[str], *,
                   half_width: float = 0.015, max_seconds: float = 60.0) -> tuple[dict[str, Seconds], dict[str, Ratio]]:
    """Measure until every ratio ``subject / other`` is known to ``half_width``, or ``max_seconds`` of wall time passed.

    Returns the paired seconds of every subject and the ratios by the other's name.
    """
    seconds = interleave(openers, rounds=6, blocks=4)
    deadline = time.monotonic() + max_seconds
    while True:
        ratios = {other: ratio(seconds[subject], seconds[other]) for other in against}
        if all(r.half_width <= half_width for r in ratios.values()) or time.monotonic() > deadline:
            return seconds, ratios
        more = interleave(openers, rounds=3, blocks=4)
        seconds = {name: np.concatenate([seconds[name], more[name]]) for name in seconds}
