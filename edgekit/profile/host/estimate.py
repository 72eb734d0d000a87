"""The time of a network from costs of kernels."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from edgekit.device_profiles import KernelCosts
from edgekit.graph.costs import GraphCosts, OpCost
from edgekit.profile.host.fit import Kernels, nearness, op_times
from edgekit.profile.host.terms import graph_amounts, kernel_of, place

__all__ = ["Estimate", "estimate"]

Floats = npt.NDArray[np.float64]

_MOST_CORRECTION = 0.8
_LIKE = 0.25  # an op that resembles no measured one more than this is new
_FALLBACKS = ("ADD.8", "ADD.32", "Add.32")


class Estimate(msgspec.Struct, frozen=True):
    """``per_op_ms`` and ``known``: for each op; ``run_ms``: what a run costs besides; ``covered``: share of the time
    that is spent on ops like measured ones.
    """

    per_op_ms: Floats
    known: tuple[bool, ...]
    run_ms: float
    covered: float

    @property
    def total_ms(self) -> float:
        """The whole network."""
        return float(self.per_op_ms.sum()) + self.run_ms


def estimate(costs: GraphCosts, kernels: Kernels | KernelCosts, other_bytes: int = 0) -> Estimate:
    """The time of a network, with ``other_bytes`` of other memory read between its runs.

    Ops of kinds that were not measured count as additions.
    """
    rows, whole = graph_amounts(costs, other_bytes)
    base = op_times(rows, kernels.costs_ms)
    known = tuple(kernel_of(op) in kernels.corrections for op in costs.ops)
    for index, op in enumerate(costs.ops):
        if not known[index]:
            base[index] += _as_copy(op, kernels)
    logs, like = _corrections(costs.ops, kernels)
    per_op = base * np.exp(logs)
    run = float(op_times([whole], kernels.costs_ms)[0])
    total = float(per_op.sum()) + run
    fresh = float(per_op[like < _LIKE].sum())
    return Estimate(per_op, known, run, 1 - fresh / total if total > 0 else 0.0)


def _as_copy(op: OpCost, kernels: Kernels | KernelCosts) -> float:
    name = next((name for name in _FALLBACKS if f"{name}/written" in kernels.costs_ms), None)
    if name is None:
        return 0.0
    cost = {term: kernels.costs_ms[f"{name}/{term}"] for term in ("call", "read", "written")}
    return cost["call"] + cost["read"] * op.in_elements / 1e6 + cost["written"] * op.out_elements / 1e6


def _corrections(ops: Sequence[OpCost], kernels: Kernels | KernelCosts) -> tuple[Floats, Floats]:
    """For each op the logarithm to add, and how much it resembles the nearest measured one."""
    logs, like = np.zeros(len(ops)), np.zeros(len(ops))
    names = [kernel_of(op) for op in ops]
    for kernel in set(names) & set(kernels.corrections):
        rows = [index for index, name in enumerate(names) if name == kernel]
        measured = kernels.corrections[kernel]
        near = nearness(np.stack([place(ops[index]) for index in rows]), np.array(measured.places), kernels.length)
        logs[rows] = np.clip(near @ np.array(measured.weights), -_MOST_CORRECTION, _MOST_CORRECTION)
        like[rows] = near.max(axis=1)
    return logs, like
