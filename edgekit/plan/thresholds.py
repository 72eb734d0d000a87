"""Where to stop: thresholds for a chain of steps, chosen on some samples and applied to others.

Two families. *Shares* (the budgeted batch of MSDNet): thresholds so that given shares of the samples stop at each step,
exact counts rounded down. *Price*: thresholds that maximise accuracy less a price for each millisecond, found step by
step at a few quantiles; fewer degrees of freedom are left to chance than in a grid over all thresholds.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["NEVER", "Setting", "apply", "fit_thresholds", "settings_for"]

Floats = npt.NDArray[np.float64]

NEVER = 2.0  # above every confidence
_QUANTILES = 24  # cuts that the search by price may choose from at each step
_SWEEPS = 2
_SHARES = (0.0, *np.linspace(0.03, 0.97, 48))
_RATIOS = tuple(2.0 ** exponent for exponent in np.linspace(-3, 3, 19))
_PRICES = tuple(2.0 ** exponent for exponent in np.linspace(-4, 3, 15))


class Setting(NamedTuple):
    """How thresholds are chosen, from one number.

    "share": the part that stops at step k is in proportion to ``value`` ** k (0: all go to the end); for two steps
    ``value`` itself is the part that stops at the first. "price": accuracy lost for a millisecond.
    """

    kind: Literal["share", "price"]
    value: float


def settings_for(steps: int, price: float) -> tuple[Setting, ...]:
    """The settings to try for chains of ``steps`` steps; ``price`` is a typical gain in accuracy for a millisecond."""
    if steps == 1:
        return (Setting("share", 0.0),)
    if steps == 2:
        return tuple(Setting("share", float(share)) for share in _SHARES)
    return (*(Setting("share", ratio) for ratio in _RATIOS), *(Setting("price", price * each) for each in _PRICES))


def fit_thresholds(sure: Floats, right: npt.NDArray[np.bool_], costs: Floats, settings: tuple[Setting, ...]) -> Floats:
    """Thresholds, (settings, steps - 1).

    ``sure``: (samples, steps - 1) confidences; ``right``: (samples, steps) whether each step's answer is right;
    ``costs``: (steps,) milliseconds until each step is done.
    """
    orders = np.argsort(-sure, axis=0, kind="stable")
    found = np.full((len(settings), sure.shape[1]), NEVER)
    for row, setting in zip(found, settings, strict=True):
        if setting.kind == "share":
            row[:] = _by_shares(sure, orders, _shares(setting.value, right.shape[1]))
        else:
            row[:] = _by_price(sure, orders, right - setting.value * costs)
    return found


def apply(sure: Floats, thresholds: Floats) -> npt.NDArray[np.intp]:
    """The step at which each sample stops, (settings, samples), for thresholds (settings, steps - 1)."""
    steps = sure.shape[1] + 1
    where = np.full((len(thresholds), len(sure)), steps - 1, np.intp)
    for step in range(steps - 2, -1, -1):
        where[sure[:, step][None] >= thresholds[:, step, None]] = step
    return where


def _shares(value: float, steps: int) -> Floats:
    if steps == 2 or value == 0:
        return np.full(steps - 1, value)
    powers = value ** np.arange(1, steps + 1)
    return np.asarray((powers / powers.sum())[:-1], np.float64)


def _by_shares(sure: Floats, orders: npt.NDArray[np.intp], shares: Floats) -> Floats:
    samples = len(sure)
    found = np.full(len(shares), NEVER)
    left = np.ones(samples, np.bool_)
    for step, share in enumerate(shares):
        ranked = orders[:, step][left[orders[:, step]]]
        stopping = min(int(samples * share), len(ranked))
        if stopping > 0:
            found[step] = sure[ranked[stopping - 1], step]
            left &= sure[:, step] < found[step]
    return found


def _by_price(sure: Floats, orders: npt.NDArray[np.intp], worth: Floats) -> Floats:
    """Coordinate by coordinate, from the last threshold to the first: each the best of a few cuts given the others."""
    steps = worth.shape[1]
    found = np.full(steps - 1, NEVER)
    for _ in range(_SWEEPS):
        for step in range(steps - 2, -1, -1):
            reached: npt.NDArray[np.bool_] = np.all(sure[:, :step] < found[:step], axis=1)
            later = worth[:, steps - 1].copy()
            for after in range(steps - 2, step, -1):
                stops = sure[:, after] >= found[after]
                later[stops] = worth[stops, after]
            ranked = orders[:, step][reached[orders[:, step]]]
            gains = np.concatenate([[0.0], np.cumsum((worth[:, step] - later)[ranked])])
            cuts = np.unique(np.linspace(0, len(ranked), _QUANTILES + 1).astype(int))
            best = int(cuts[gains[cuts].argmax()])
            found[step] = NEVER if best == 0 else sure[ranked[best - 1], step]
    return found
