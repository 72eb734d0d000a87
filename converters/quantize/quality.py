"""How far a quantized file is from the float one: signal to noise of outputs and of every inner value, and top-1."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from edgekit.artifacts import Array

__all__ = ["MAX_DB", "Noise", "sqnr_db"]

#: what a signal to noise ratio is capped at: equal to the last bit of float32, or nearly so
MAX_DB = 140.0


class Noise:
    """Sums of squares of values and of their errors, by name, over any number of samples."""

    def __init__(self) -> None:
        self.signal: dict[str, float] = {}
        self.error: dict[str, float] = {}

    def add(self, name: str, want: Array, got: Array) -> None:
        """``got`` in the place of ``want``; non-finite pairs that agree count as no error."""
        a, b = want.astype(np.float64).ravel(), got.astype(np.float64).ravel()
        with np.errstate(invalid="ignore"):
            difference = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, a - b)
        finite = a[np.isfinite(a)]
        self.signal[name] = self.signal.get(name, 0.0) + float(finite @ finite)
        self.error[name] = self.error.get(name, 0.0) + float(difference @ difference)

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


def sqnr_db(signal: float, error: float) -> float:
    """10 log10 (signal / error), between -140 and 140; NaN in the error counts as the worst."""
    if math.isnan(error) or math.isinf(error):
        return -MAX_DB
    if error == 0:
        return MAX_DB
    if signal == 0:
        return -MAX_DB
    return max(-MAX_DB, min(MAX_DB, 10 * math.log10(signal / error)))
