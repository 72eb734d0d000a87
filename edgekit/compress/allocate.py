"""How much of each site goes: an exponential fitted to its losses, one multiplier for all (CC, section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

__all__ = ["Fit", "fit_curve", "rates"]

Floats = npt.NDArray[np.float64]
_LEAST_SLOPE = 1e-3  # a site whose loss does not grow is given away whole


@dataclass(frozen=True)
class Fit:
    """The loss at rate r is about ``largest * a * exp(b * r)``. ``r2``: the share of the losses' variance explained.

    ``macs``: of the site before anything is removed; ``largest``: its largest loss, by which the others were divided.
    """

    a: float
    b: float
    largest: float
    macs: int
    r2: float

    def loss(self, rate: float) -> float:
        """At ``rate``."""
        return self.largest * self.a * math.exp(self.b * rate)


def fit_curve(at: Floats, losses: Floats, macs: int) -> Fit:
    """Linear regression of log(loss / largest + 1e-10) on the rate, weighted by the root of loss / largest."""
    if len(at) < 2 or not losses.max() > 0:
        return Fit(1e-10, _LEAST_SLOPE, float(losses.max()) if len(losses) else 0.0, macs, 0.0)
    largest = float(losses.max())
    share = losses / largest
    weights, logs = np.sqrt(share), np.log(share + 1e-10)
    mean_at, mean_log = np.average(at, weights=weights), np.average(logs, weights=weights)
    spread = float((weights * (at - mean_at) ** 2).sum())
    slope = float((weights * (at - mean_at) * (logs - mean_log)).sum()) / spread if spread > 0 else 0.0
    slope = max(slope, _LEAST_SLOPE)
    a = math.exp(mean_log - slope * mean_at)
    rest = float(((a * np.exp(slope * at) - share) ** 2).sum())
    whole = float(((share - share.mean()) ** 2).sum())
    return Fit(a, slope, largest, macs, 1 - rest / whole if whole > 0 else 0.0)


def rates(fits: Sequence[Fit], multiplier: float, rule: Literal["released", "exact", "uniform"],
          highest: float) -> list[float]:
    """The rate of each site where one more unit of rate loses as much everywhere; ``multiplier`` is ln(lambda).

    "released": a b exp(b r) = lambda, on losses divided by the site's largest. "exact": largest * a b exp(b r) =
    lambda F, with F multiply-adds, which is the minimum of the summed loss for the multiply-adds that it saves.
    "uniform": the logistic function of ``multiplier`` everywhere. Rates are held between 0 and ``highest``.
    """
    if rule == "uniform":
        return [highest / (1 + math.exp(-multiplier))] * len(fits)
    found = []
    for fit in fits:
        level = multiplier - math.log(fit.a * fit.b)
        if rule == "exact":
            level += math.log(fit.macs) - math.log(max(fit.largest, 1e-300))
        found.append(min(max(level / fit.b, 0.0), highest))
    return found
