"""Ranges of activations, from one walk over the samples, in memory that does not grow with their number."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgekit.artifacts import Array

__all__ = ["Histogram", "RangeFinder"]

Method = Literal["extreme", "minmax", "average", "percentile", "entropy"]
Counts = npt.NDArray[np.float64]
_BINS = 2048
_LEVELS = 256
_MOMENTUM = 0.95
_FEWEST = 8
# What a Gumbel distribution exceeds once in 1000, in standard deviations above its mean.
_ONCE_IN_1000 = math.sqrt(6) / math.pi * (-math.log(-math.log1p(-1e-3)) - 0.5772156649)


class Histogram:
    """Counts of values in 2048 equal bins around zero; the bins double in width whenever a value lies outside."""

    def __init__(self) -> None:
        self.counts: Counts = np.zeros(_BINS)
        self.limit = 0.0  # the bins span -limit to limit

    def add(self, values: Array) -> None:
        """Count ``values``, all finite."""
        peak = float(np.max(np.abs(values), initial=0.0))
        if peak == 0.0 and self.limit == 0.0:
            peak = 1e-9
        if self.limit == 0.0:
            self.limit = peak
        while self.limit < peak:
            half = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.concatenate([np.zeros(_BINS // 4), half, np.zeros(_BINS // 4)])
            self.limit *= 2
        places = ((values.ravel() / self.limit + 1) * (_BINS / 2)).astype(np.int32)
        self.counts += np.bincount(np.minimum(places, _BINS - 1), minlength=_BINS)

    def edges(self) -> Counts:
        """The 2049 borders of the bins."""
        return np.linspace(-self.limit, self.limit, _BINS + 1)

    def percentile(self, central: float) -> tuple[float, float]:
        """The smallest range of whole bins that leaves (100 - ``central``) / 2 % of the values out on either side."""
        tail = (100 - central) / 200
        share = np.cumsum(self.counts) / self.counts.sum()
        low, high = int(np.searchsorted(share, tail, "right")), int(np.searchsorted(share, 1 - tail, "left"))
        edges = self.edges()
        return float(edges[min(low, _BINS - 1)]), float(edges[min(high, _BINS - 1) + 1])

    def entropy(self) -> tuple[float, float]:
        """The range, cut on the side that is longer, whose 256 levels keep most of the distribution's information."""
        filled = np.flatnonzero(self.counts)
        first, last = int(filled[0]), int(filled[-1]) + 1
        edges, best, found = self.edges(), np.inf, (first, last)
        for kept in np.linspace(0.3, 1.0, 36):
            reach = kept * max(-edges[first], edges[last], self.limit / _BINS)
            low = max(first, int(np.searchsorted(edges, -reach, "left")))
            high = min(last, int(np.searchsorted(edges, reach, "right")))
            if high <= low:
                continue
            loss = _divergence(self.counts[first:last], low - first, high - first)
            if loss < best - 1e-12:
                best, found = loss, (low, high)
        return float(edges[found[0]]), float(edges[found[1]])


def _divergence(counts: Counts, low: int, high: int) -> float:
    """Of the clipped and quantized distribution from the true one (Kullback and Leibler)."""
    clipped = counts[low:high].copy()
    clipped[0] += counts[:low].sum()
    clipped[-1] += counts[high:].sum()
    level = np.arange(high - low) * _LEVELS // max(high - low, _LEVELS)
    used = counts[low:high] > 0
    mass = np.bincount(level, counts[low:high], minlength=_LEVELS)
    width = np.bincount(level, used, minlength=_LEVELS)
    flat = np.where(used, mass[level] / np.maximum(width[level], 1), 0.0)
    p, q = clipped / clipped.sum(), (flat + 1e-10) / (flat + 1e-10).sum()
    some = p > 0
    return float(np.sum(p[some] * np.log(p[some] / q[some])))


class _Peaks:
    """The largest value of each sample: their mean and spread (Welford), and how often the largest was reached."""

    def __init__(self) -> None:
        self.count, self.mean, self.squares = 0, 0.0, 0.0
        self.largest, self.reached = -math.inf, 0

    def add(self, value: float) -> None:
        self.count += 1
        step = value - self.mean
        self.mean += step / self.count
        self.squares += step * (value - self.mean)
        if value > self.largest:
            self.largest, self.reached = value, 0
        self.reached += value == self.largest

    def bound(self) -> float:
        """What one more sample exceeds once in a thousand times, at least what was seen.

        Maxima of samples are taken as Gumbel-distributed, fitted by moments (Gumbel 1958, Statistics of Extremes). A
        value that two samples reach exactly is the end of what the op can give (ReLU6, padding), and with few samples
        there is no spread to go by: then it is what was seen.
        """
        if self.count < _FEWEST or self.reached > 1:
            return self.largest
        return max(self.largest, self.mean + _ONCE_IN_1000 * math.sqrt(self.squares / (self.count - 1)))


class RangeFinder:
    """Collects the values of every tensor and says the range of each, by one of five methods."""

    def __init__(self, method: Method, percentile: float) -> None:
        self._method, self._percentile = method, percentile
        self._extremes: dict[str, tuple[float, float]] = {}
        self._histograms: dict[str, Histogram] = {}
        self._peaks: dict[str, tuple[_Peaks, _Peaks]] = {}
        self.not_finite: set[str] = set()

    def add(self, values: Iterable[tuple[str, Array]]) -> None:
        """The values of one sample. A tensor that ever holds NaN or infinity gets into ``not_finite``."""
        for name, array in values:
            if array.dtype.kind not in "fiub" or array.size == 0 or name in self.not_finite:
                continue
            low, high = float(array.min()), float(array.max())
            if not np.isfinite(low + high):
                self.not_finite.add(name)
                continue
            self._extremes[name] = self._merged(name, low, high)
            if self._method == "extreme":
                below, above = self._peaks.setdefault(name, (_Peaks(), _Peaks()))
                below.add(-low)
                above.add(high)
            if self._method in ("percentile", "entropy"):
                self._histograms.setdefault(name, Histogram()).add(array)

    def _merged(self, name: str, low: float, high: float) -> tuple[float, float]:
        if name not in self._extremes:
            return low, high
        old_low, old_high = self._extremes[name]
        if self._method == "average":
            return (_MOMENTUM * old_low + (1 - _MOMENTUM) * low, _MOMENTUM * old_high + (1 - _MOMENTUM) * high)
        return min(old_low, low), max(old_high, high)

    def ranges(self) -> dict[str, tuple[float, float]]:
        """Minimum and maximum of each finite tensor; only "extreme" may be wider than what was seen."""
        return {name: found for name, found in self._ranges() if name not in self.not_finite}

    def _ranges(self) -> Iterator[tuple[str, tuple[float, float]]]:
        for name, (low, high) in self._extremes.items():
            if name in self._peaks:
                below, above = self._peaks[name]
                yield name, (-below.bound(), above.bound())
                continue
            histogram = self._histograms.get(name)
            if histogram is None:
                yield name, (low, high)
                continue
            cut = histogram.entropy() if self._method == "entropy" else histogram.percentile(self._percentile)
            yield name, (max(low, min(cut[0], high)), min(high, max(cut[1], low)))
