"""Thresholds that follow the device's own inputs, without labels: pure functions (runtimes/SPEC.md, "Touching up").

A plan says which share of the inputs that reach a step stops there. Where the camera's images are harder or easier than
the validation data, or their confidences lie elsewhere, the planned thresholds stop another share. So each step
keeps a histogram of the confidences that it saw, and the threshold moves to the quantile that stops the planned share;
no further than a fixed distance from the planned one, and only after enough inputs. What is kept is the share, which is
what the plan's accuracy was agreed for as far as it can be seen without labels; the accuracy itself is not measured.
"""

from __future__ import annotations

import json
import math
from typing import Any, NamedTuple

from edgekit.bundle.adaptive import Plan, Route
from edgekit.errors import BadInput

__all__ = ["BINS", "MAX_SHIFT", "Touchup", "first_touchup", "from_json", "note", "thresholds", "to_json"]

BINS = 64
MAX_SHIFT = 0.1  # of a threshold, either way
_ENOUGH = 200  # inputs at a step before its threshold moves
_FULL = 4000  # then all counts are halved: older inputs count less, and no count grows without end
_MAX_JSON_BYTES = 1024 * 1024

Histogram = tuple[int, ...]


class Touchup(NamedTuple):
    """``histograms[r][k]``: of the confidences at step k of route r, BINS counts over [0, 1], or () while unseen.

    ``ladders_sha256`` and the thresholds of the plan say what it belongs to. A step takes at most 400 bytes as JSON.
    """

    ladders_sha256: str
    planned: tuple[tuple[float | None, ...], ...]
    histograms: tuple[tuple[Histogram, ...], ...]


def first_touchup(plan: Plan) -> Touchup:
    """Nothing seen yet: the thresholds are the plan's."""
    return Touchup(plan.ladders_sha256, _planned(plan), tuple(tuple(() for _ in route.steps) for route in plan.routes))


def note(state: Touchup, route: int, step: int, certainty: float) -> Touchup:
    """The state after an input reached a step with this confidence, a number from 0 to 1.

    Nothing is kept of steps without a threshold, and of confidences that are not numbers.
    """
    if state.planned[route][step] is None or math.isnan(certainty):
        return state
    counts = list(state.histograms[route][step] or (0,) * BINS)
    counts[min(max(int(certainty * BINS), 0), BINS - 1)] += 1
    if sum(counts) >= _FULL:
        counts = [count // 2 for count in counts]
    row = state.histograms[route]
    row = (*row[:step], tuple(counts), *row[step + 1:])
    return state._replace(histograms=(*state.histograms[:route], row, *state.histograms[route + 1:]))


def thresholds(state: Touchup, route: Route, index: int) -> tuple[float | None, ...]:
    """The thresholds to use for ``route``, which is number ``index`` of the plan."""
    left = 1.0
    found: list[float | None] = []
    for step, share, counts in zip(route.steps, route.promise.stops, state.histograms[index], strict=True):
        wanted = min(share / left, 1.0) if left > 0 else 1.0
        left -= share
        found.append(step.threshold if step.threshold is None or sum(counts) < _ENOUGH
                     else _moved(step.threshold, _quantile(counts, 1 - wanted)))
    return tuple(found)


def to_json(state: Touchup) -> bytes:
    """The state as JSON, to be kept where the app keeps its data."""
    return json.dumps(state._asdict(), separators=(",", ":")).encode("ascii")


def from_json(data: bytes, plan: Plan) -> Touchup:
    """What ``to_json`` gave, checked. Raises BadInput when it is damaged or belongs to another plan."""
    if len(data) > _MAX_JSON_BYTES:
        raise BadInput(f"The touch-up takes {len(data)} bytes; at most {_MAX_JSON_BYTES} are allowed.", _REMEDY)
    try:
        raw = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"The touch-up cannot be read: {error}.", _REMEDY) from error
    if not isinstance(raw, dict) or set(raw) != set(Touchup._fields):
        raise BadInput("The touch-up has not the fields of one.", _REMEDY)
    if raw["ladders_sha256"] != plan.ladders_sha256 or raw["planned"] != [list(row) for row in _planned(plan)]:
        raise BadInput("The touch-up belongs to another plan.", _REMEDY)
    return Touchup(plan.ladders_sha256, _planned(plan), _histograms(raw["histograms"], plan))


_REMEDY = "Drop it and begin anew."


def _planned(plan: Plan) -> tuple[tuple[float | None, ...], ...]:
    return tuple(tuple(step.threshold for step in route.steps) for route in plan.routes)


def _histograms(raw: Any, plan: Plan) -> tuple[tuple[Histogram, ...], ...]:
    shape = [[None] * len(route.steps) for route in plan.routes]
    if isinstance(raw, list) and all(isinstance(row, list) for row in raw) and (
            [[None] * len(row) for row in raw] == shape and all(_is_histogram(each) for row in raw for each in row)):
        return tuple(tuple(tuple(counts) for counts in row) for row in raw)
    raise BadInput("The touch-up holds histograms that cannot be right.", _REMEDY)


def _is_histogram(counts: Any) -> bool:
    return isinstance(counts, list) and (not counts or (
        len(counts) == BINS and all(type(count) is int and count >= 0 for count in counts) and sum(counts) < _FULL))


def _moved(planned: float, wanted: float) -> float:
    low, high = max(planned - MAX_SHIFT, min(planned, 0.0)), min(planned + MAX_SHIFT, max(planned, 1.0))
    return min(max(wanted, low), high)


def _quantile(counts: Histogram, share: float) -> float:
    """The confidence below which this share of the counts lies, linear within a bin."""
    target = share * sum(counts)
    below = 0
    for number, count in enumerate(counts):
        if count and below + count >= target:
            return (number + max(target - below, 0.0) / count) / BINS
        below += count
    return 1.0
