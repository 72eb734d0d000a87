"""Costs of kernels from timed networks: a sum of terms that are never negative, corrected by nearby measurements.

The terms are fitted first (least squares on relative errors). What they leave is modelled as a Gaussian process over
the sizes of ops, one for each kind of kernel: the logarithm of a network's time deviates by the mean of its ops'
deviations, weighted by their share of the time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from edgekit.device_profiles import Corrections
from edgekit.graph.costs import OpCost
from edgekit.profile.host.terms import graph_amounts, kernel_of, place
from edgekit.profile.host.timing import Timed

__all__ = ["Kernels", "fit_kernels", "nearness", "op_times"]

Floats = npt.NDArray[np.float64]

_RIDGE = 1e-4
_SWEEPS = 400
_ROBUST_ROUNDS = 3
_TAIL = 0.15
_SDS = (0.15, 0.3)
_LENGTHS = (0.8, 1.4, 2.2)
_NOISES = (0.04, 0.08)
_MOST_CORRECTION = 0.8


class Kernels(msgspec.Struct, frozen=True):
    """As ``KernelCosts``, without what is known about their accuracy."""

    costs_ms: dict[str, float]
    length: float
    corrections: dict[str, Corrections]


def fit_kernels(timed: Sequence[Timed]) -> Kernels:
    """From networks of which each has at least one op."""
    rows, wholes = zip(*(graph_amounts(each.costs, each.other_bytes) for each in timed), strict=True)
    times = np.array([each.ms for each in timed])
    costs = _fit_terms(rows, wholes, times)
    shares, residuals = _residuals(rows, wholes, times, costs)
    ops = [each.costs.ops for each in timed]
    return _fit_corrections(ops, shares, residuals, costs)


def _fit_terms(
    rows: Sequence[Sequence[Mapping[str, float]]], wholes: Sequence[Mapping[str, float]], times: Floats
) -> dict[str, float]:
    names: dict[str, int] = {}
    entries: list[tuple[int, int, float]] = []
    for index, (ops, whole) in enumerate(zip(rows, wholes, strict=True)):
        for terms in (*ops, whole):
            entries += [(index, names.setdefault(name, len(names)), amount) for name, amount in terms.items()]
    matrix = np.zeros((len(times), len(names)))
    for row, column, amount in entries:
        matrix[row, column] += amount
    relative = matrix / times[:, None]
    weights = np.ones(len(times))
    for _ in range(_ROBUST_ROUNDS):
        found = _non_negative(relative * weights[:, None], weights)
        error = np.abs(relative @ found - 1)
        weights = np.sqrt(1 / np.maximum(error / _TAIL, 1))
    return {name: float(found[column]) for name, column in names.items()}


def _non_negative(matrix: Floats, target: Floats) -> Floats:
    """Least squares with coefficients that are not negative, by coordinate descent; columns are scaled first."""
    scale = np.sqrt((matrix**2).sum(axis=0)) + 1e-300
    scaled = matrix / scale
    gram = scaled.T @ scaled + _RIDGE * np.eye(matrix.shape[1])
    pull = scaled.T @ target
    found = np.zeros(len(pull))
    gradient = -pull
    for _ in range(_SWEEPS):
        largest = 0.0
        for index in range(len(pull)):
            step = max(-gradient[index] / gram[index, index], -found[index])
            if step:
                found[index] += step
                gradient += step * gram[index]
                largest = max(largest, abs(step))
        if largest < 1e-6:
            break
    return np.asarray(found / scale)


def op_times(terms: Sequence[Mapping[str, float]], costs_ms: Mapping[str, float]) -> Floats:
    """(ops,): milliseconds by the terms alone; a term without a cost counts nothing."""
    return np.array([sum(costs_ms.get(name, 0.0) * amount for name, amount in each.items()) for each in terms])


def _residuals(
    rows: Sequence[Sequence[Mapping[str, float]]], wholes: Sequence[Mapping[str, float]], times: Floats,
    costs: Mapping[str, float],
) -> tuple[list[Floats], Floats]:
    """For each network the ops' shares of its predicted time, and the logarithm of measured over predicted."""
    shares, logs = [], np.empty(len(times))
    for index, (ops, whole) in enumerate(zip(rows, wholes, strict=True)):
        per_op = op_times(ops, costs)
        total = float(per_op.sum() + op_times([whole], costs)[0])
        shares.append(per_op / total)
        logs[index] = np.log(times[index] / total)
    return shares, logs


class _Group(msgspec.Struct):
    """The distinct ops of one kind of kernel, and how each network is made of them: ``parts`` (networks, ops)."""

    places: Floats
    parts: Floats


def _groups(ops: Sequence[Sequence[OpCost]], shares: Sequence[Floats]) -> dict[str, _Group]:
    index: dict[str, dict[tuple[float, ...], int]] = {}
    entries: dict[str, list[tuple[int, int, float]]] = {}
    for network, (each, parts) in enumerate(zip(ops, shares, strict=True)):
        for op, share in zip(each, parts, strict=True):
            known = index.setdefault(kernel_of(op), {})
            at = known.setdefault(tuple(float(value) for value in place(op).round(3)), len(known))
            entries.setdefault(kernel_of(op), []).append((network, at, float(share)))
    found = {}
    for kernel, known in index.items():
        parts = np.zeros((len(ops), len(known)))
        for network, at, share in entries[kernel]:
            parts[network, at] += share
        found[kernel] = _Group(np.array(list(known)), parts)
    return found


def nearness(first: Floats, second: Floats, length: float) -> Floats:
    """(n, m) in [0, 1]: how much two ops of one kind resemble one another."""
    squares = (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1)[None] - 2 * first @ second.T
    return np.asarray(np.exp(-np.maximum(squares, 0) / (2 * length**2)))


def _fit_corrections(
    ops: Sequence[Sequence[OpCost]], shares: Sequence[Floats], residuals: Floats, costs: dict[str, float]
) -> Kernels:
    groups = _groups(ops, shares)
    clipped = np.clip(residuals, -_MOST_CORRECTION, _MOST_CORRECTION)
    best: tuple[float, float, float, Floats] | None = None
    for length in _LENGTHS:
        common = sum(group.parts @ nearness(group.places, group.places, length) @ group.parts.T
                     for group in groups.values())
        for sd in _SDS:
            for noise in _NOISES:
                inverse = np.linalg.inv(sd**2 * common + noise**2 * np.eye(len(clipped)))
                pulled = inverse @ clipped
                left_out = np.abs(pulled / np.diag(inverse))
                score = float(np.minimum(left_out, 0.3).mean())
                if best is None or score < best[0]:
                    best = (score, length, sd, pulled)
    assert best is not None
    _, length, sd, pulled = best
    corrections = {}
    for kernel, group in groups.items():
        weights = sd**2 * (group.parts.T @ pulled)
        corrections[kernel] = Corrections(
            tuple(tuple(row) for row in group.places.tolist()), tuple(float(f"{weight:.5g}") for weight in weights))
    return Kernels({name: float(f"{cost:.6g}") for name, cost in costs.items()}, length, corrections)
