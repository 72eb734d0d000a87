"""The fair opponent: what fixed points reach when inputs are sent to them at random (the upper convex hull)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Hull", "hull_of"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Hull:
    """Corners from cheap to dear: milliseconds and accuracy, both growing. ``members``: which points they are."""

    ms: Floats
    accuracy: Floats
    members: tuple[int, ...]

    def accuracy_at(self, ms: float | Floats) -> Floats:
        """What a mixture of fixed points reaches in ``ms`` on average; minus infinity below the cheapest."""
        found = np.interp(np.asarray(ms), self.ms, self.accuracy)
        return np.where(np.asarray(ms) < self.ms[0], -np.inf, found)

    def ms_for(self, accuracy: float | Floats) -> Floats:
        """The mean time of the cheapest mixture that reaches ``accuracy``; infinity above the best."""
        found = np.interp(np.asarray(accuracy), self.accuracy, self.ms)
        return np.where(np.asarray(accuracy) > self.accuracy[-1], np.inf, found)


def hull_of(ms: npt.ArrayLike, accuracy: npt.ArrayLike) -> Hull:
    """The hull of points (at least one); those that another beats in both are no corners."""
    times, values = np.asarray(ms, np.float64), np.asarray(accuracy, np.float64)
    corners: list[int] = []
    for index in np.lexsort((-values, times)):
        if corners and values[index] <= values[corners[-1]]:
            continue
        while len(corners) > 1 and not _bends_down(times, values, [*corners[-2:], int(index)]):
            corners.pop()
        corners.append(int(index))
    return Hull(times[corners], values[corners], tuple(corners))


def _bends_down(times: Floats, values: Floats, three: list[int]) -> bool:
    """Whether the middle one lies above the line between its neighbours."""
    first, middle, last = three
    left = (values[middle] - values[first]) * (times[last] - times[first])
    return bool(left > (values[last] - values[first]) * (times[middle] - times[first]))
