"""How far a quantized file is from the float one: signal to noise of outputs and of every inner value, and top-1."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from edgekit.artifacts import Array

__all__ = ["MAX_DB", "Noise", "sqnr_db"]

#: what a signal to noise ratio is capped at: equal to the last bit of float32, or nearly so
MAX_DB = 140.0
_FEWEST = 4
_ONE_IN_TWENTY = 1.645


class Noise:
    """Sums of squares of values and of their errors, by name, over any number of samples."""

    def __init__(self) -> None:
        self.signal: dict[str, float] = {}
        self.error: dict[str, float] = {}
        self.each: dict[str, list[tuple[float, float]]] = {}  # of every call: signal, error

    def add(self, name: str, want: Array, got: Array) -> None:
        """``got`` in the place of ``want``; non-finite pairs that agree count as no error."""
        a, b = want.astype(np.float64).ravel(), got.astype(np.float64).ravel()
        with np.errstate(invalid="ignore"):
            difference = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, a - b)
        finite = a[np.isfinite(a)]
        signal, error = float(finite @ finite), float(difference @ difference)
        self.signal[name] = self.signal.get(name, 0.0) + signal
        self.error[name] = self.error.get(name, 0.0) + error
        self.each.setdefault(name, []).append((signal, error))

    def add_all(self, want: Mapping[str, Array], got: Mapping[str, Array]) -> None:
        """Every array of ``want`` that has a counterpart of the same size in ``got``."""
        for name, array in want.items():
            if name in got and got[name].size == array.size:
                self.add(name, array, got[name])

    def db(self, name: str) -> float:
        """The ratio for one name, in decibels."""
        return sqnr_db(self.signal[name], self.error[name])

    def worst_db(self, names: Iterable[str]) -> float:
        """The lowest ratio among ``names``: a network is as good as its worst output."""
        return min((self.db(name) for name in names), default=MAX_DB)

    def low_db(self, name: str) -> float | None:
        """What the ratio on one other sample falls below once in twenty times; None with fewer than four samples.

        From the spread of the samples' noise, linearised as for a ratio of sums (Cochran 1977, Sampling Techniques,
        6.4): the variance of the next sample and of the mean together, taken as normal.
        """
        each = np.array(self.each[name])
        if len(each) < _FEWEST or not np.isfinite(each).all() or self.signal[name] == 0:
            return None
        ratio = self.error[name] / self.signal[name]
        influence = (each[:, 1] - ratio * each[:, 0]) / each[:, 0].mean()
        return sqnr_db(1.0, ratio + _ONE_IN_TWENTY * float(influence.std(ddof=1)) * math.sqrt(1 + 1 / len(each)))


def sqnr_db(signal: float, error: float) -> float:
    """10 log10 (signal / error), between -140 and 140; NaN in the error counts as the worst."""
    if math.isnan(error) or math.isinf(error):
        return -MAX_DB
    if error == 0:
        return MAX_DB
    if signal == 0:
        return -MAX_DB
    return max(-MAX_DB, min(MAX_DB, 10 * math.log10(signal / error)))
