"""Whether measured times can be trusted: how wide they spread, and whether they drift while the machine gets hot."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

__all__ = ["MAX_SPREAD", "Reading", "Sustained", "Window", "refusal", "spread_of", "sustained_of"]

Floats = npt.NDArray[np.float64]
#: seconds from the beginning, hottest sensor in deg C, fastest core's clock in MHz; None where the system does not tell
Reading = tuple[float, float | None, float | None]

#: the middle 80 % of runs may spread over this part of their median
MAX_SPREAD = 0.25
_DRIFT = 0.1
_CLOCK_FELL = 0.95
_WINDOWS = 10
_LONGEST_WINDOW_S = 60.0
_BLOCKS = 10
_DRAWS = 1000


class Window(msgspec.Struct, frozen=True):
    """A part of a sustained run; ``at_s`` is its middle. The 10th percentile, median and 90th of the wall times."""

    at_s: float
    runs: int
    p10_ms: float
    median_ms: float
    p90_ms: float


class Sustained(msgspec.Struct, frozen=True):
    """A run of ``seconds`` without a pause. ``first_ms`` and ``last_ms``: medians of the first and the last window.

    ``drift``: last over first, with its 95 % interval ``drift_low`` to ``drift_high``. ``throttled``: the times grew
    and the clock fell with them; None where the system does not tell its clock. ``hottest_c``: of all sensors.
    """

    seconds: float
    windows: tuple[Window, ...]
    first_ms: float
    last_ms: float
    drift: float
    drift_low: float
    drift_high: float
    throttled: bool | None
    hottest_c: float | None
    first_mhz: float | None
    last_mhz: float | None


def spread_of(times_ms: npt.ArrayLike) -> float:
    """How wide the middle 80 % of the times are, as a part of their median."""
    low, middle, high = np.quantile(np.asarray(times_ms, np.float64), (0.1, 0.5, 0.9))
    return float((high - low) / middle) if middle > 0 else 0.0


def sustained_of(at_s: Sequence[float], wall_ms: Sequence[float], readings: Sequence[Reading]) -> Sustained:
    """``wall_ms`` of runs that began ``at_s`` seconds into a sustained run, seen in at least ten windows.

    A window is a tenth of the run, or a minute of a longer one.
    """
    at, wall = np.asarray(at_s, np.float64), np.asarray(wall_ms, np.float64)
    seconds = float(at[-1] + wall[-1] / 1e3)
    count = max(_WINDOWS, round(seconds / _LONGEST_WINDOW_S))
    index = np.minimum((at / seconds * count).astype(int), count - 1)
    parts = [wall[index == each] for each in range(count)]
    windows = tuple(
        Window((each + 0.5) * seconds / count, len(part), *(float(v) for v in np.quantile(part, (0.1, 0.5, 0.9))))
        for each, part in enumerate(parts) if len(part)
    )
    filled = [part for part in parts if len(part)]
    drift, low, high = _ratio(filled[0], filled[-1])
    width = seconds / count
    first_mhz, last_mhz = _clock(readings, 0, width), _clock(readings, seconds - width, seconds)
    throttled = None
    if first_mhz and last_mhz:
        throttled = low > 1 and last_mhz < _CLOCK_FELL * first_mhz
    heat = [celsius for _, celsius, _ in readings if celsius is not None]
    return Sustained(
        seconds=seconds, windows=windows, first_ms=windows[0].median_ms, last_ms=windows[-1].median_ms, drift=drift,
        drift_low=low, drift_high=high, throttled=throttled, hottest_c=max(heat, default=None), first_mhz=first_mhz,
        last_mhz=last_mhz,
    )


def refusal(wall_ms: npt.ArrayLike, cpu_ms: npt.ArrayLike, limit: float, sustained: Sustained | None = None) -> str:
    """Why no single figure stands for these times, and what to do about it; "" when one does."""
    reasons = []
    spread = spread_of(wall_ms)
    if spread > limit:
        reason = f"the middle 80 % of wall times spread over {spread:.0%} of their median (limit {limit:.0%})"
        if spread_of(cpu_ms) <= limit:
            reason += f"; those of CPU time over {spread_of(cpu_ms):.0%}: other programs take turns, close them"
        else:
            reason += ": close other programs, fix the clock, measure for longer"
        reasons.append(reason)
    if sustained is not None and (sustained.drift_low > 1 + _DRIFT or sustained.drift_high < 1 - _DRIFT):
        cause = ", because the clock fell" if sustained.throttled else ""
        reasons.append(
            f"it drifts: {sustained.first_ms:.3g} ms at first, {sustained.last_ms:.3g} ms at last{cause}; "
            "count on the slower one, or cool the machine"
        )
    return "; ".join(reasons)


def _ratio(first: Floats, last: Floats) -> tuple[float, float, float]:
    """The ratio of medians and its 95 % interval. Neighbouring runs share their luck: whole blocks are resampled."""
    random = np.random.default_rng(0)
    drawn = []
    for part in (last, first):
        blocks = np.array([np.median(block) for block in np.array_split(part, min(_BLOCKS, len(part)))])
        drawn.append(np.median(blocks[random.integers(len(blocks), size=(_DRAWS, len(blocks)))], axis=1))
    low, high = np.quantile(drawn[0] / drawn[1], (0.025, 0.975))
    return float(np.median(last) / np.median(first)), float(low), float(high)


def _clock(readings: Sequence[Reading], since_s: float, until_s: float) -> float | None:
    found = [mhz for at_s, _, mhz in readings if mhz is not None and since_s <= at_s <= until_s]
    return float(np.median(found)) if found else None
