"""Tasks made of one network's answers: logits restricted to random groups of classes, plans judged on blind halves."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edgekit.bundle.adaptive import Plan
from edgekit.plan import Observations, PlanRecipe, Point, plans_with_points
from edgekit.plan.hull import hull_of
from edgekit.plan.observations import chain_costs
from edgekit.replay import replay

__all__ = ["Judged", "Task", "blind_halves", "judge", "restricted"]

Floats = npt.NDArray[np.float64]


class Task(NamedTuple):
    """``classes`` random classes at a time, in disjoint groups; None for all."""

    name: str
    classes: int | None


class Judged(NamedTuple):
    """A plan made on one half, on the other. Times in ms; accuracies are parts of 1.

    ``saved``: part of the hull's time at the accuracy that was realised; ``gained``: accuracy above the hull's for the
    time that was taken. The hull is that of the half the plan did not see: it knows the answers there, which favours
    it by the luck of its best points. ``saved_chosen``: the same against a hull that, as the plan, chose its points on
    the half that was seen.
    """

    promised: float
    realised: float
    mean_ms: float
    saved: float
    gained: float
    best_fixed: float
    best_fixed_ms: float
    fixed_is_better: bool
    saved_chosen: float


def restricted(seen: Observations, task: Task, seed: int) -> Observations:
    """``seen`` as the task has it: the logits of each image's group of classes, renumbered."""
    if task.classes is None:
        return seen
    assert seen.labels is not None
    order = np.random.default_rng(seed).permutation(seen.classes)
    place = np.empty(seen.classes, np.int64)
    place[order] = np.arange(seen.classes)
    groups = order.reshape(-1, task.classes)
    columns = groups[place[seen.labels] // task.classes]
    logits = tuple(tuple(np.take_along_axis(each, columns, axis=1) for each in row) for row in seen.logits)
    return dataclasses.replace(seen, logits=logits, labels=place[seen.labels] % task.classes)


def chosen(seen: Observations, rows: npt.NDArray[np.intp]) -> Observations:
    """The images ``rows`` of ``seen``."""
    assert seen.labels is not None
    logits = tuple(tuple(each[rows] for each in row) for row in seen.logits)
    return dataclasses.replace(seen, logits=logits, labels=seen.labels[rows])


def blind_halves(seen: Observations, seed: int) -> Iterator[tuple[Observations, Observations]]:
    """A random half and the rest, both ways round."""
    order = np.random.default_rng(seed).permutation(seen.samples)
    halves = np.sort(order[:seen.samples // 2]), np.sort(order[seen.samples // 2:])
    for first, second in (halves, halves[::-1]):
        yield chosen(seen, first), chosen(seen, second)


def judge(seen: Observations, blind: Observations, drops: Sequence[float]) -> list[Judged]:
    """For each of ``drops``, in points, the plan's default route, made on ``seen``, on ``blind``."""
    return [_judged(planned.plan, seen, blind)
            for planned in plans_with_points(seen, [PlanRecipe(max_drop=drop) for drop in drops])]


def _judged(plan: Plan, seen: Observations, blind: Observations) -> Judged:
    route = plan.routes[plan.default]
    found = replay(plan, route, blind)
    ms, accuracy = _fixed(plan, blind)
    hull = hull_of(ms, accuracy)
    at = min(found.accuracy, float(hull.accuracy[-1]))
    # an opponent that chooses its points on the half that the plan chose on, and is judged where the plan is
    _, before = _fixed(plan, seen)
    own = list(hull_of(ms, before).members)
    fair = hull_of(ms[own], accuracy[own])
    fair_at = min(found.accuracy, float(fair.accuracy[-1]))
    return Judged(
        promised=route.promise.accuracy, realised=found.accuracy, mean_ms=found.mean_ms,
        saved=1 - found.mean_ms / float(hull.ms_for(at)),
        gained=found.accuracy - float(hull.accuracy_at(found.mean_ms)),
        best_fixed=float(hull.accuracy[-1]), best_fixed_ms=float(hull.ms[-1]),
        fixed_is_better=len(route.steps) == 1, saved_chosen=1 - found.mean_ms / float(fair.ms_for(fair_at)))


def _fixed(plan: Plan, data: Observations) -> tuple[Floats, Floats]:
    """Milliseconds and accuracy of every point, and of sums of the last two and three exits of a ladder, on ``data``.

    Sums are of probabilities' logarithms with equal weights: with fitted ones they gain nothing more (docs/plan.md).
    """
    ms, accuracy = [], []
    for ladder, row in enumerate(data.logits):
        scaled = [_log_softmax(each) for each in row]
        for stage in range(len(row)):
            (cost,) = chain_costs((Point(ladder, stage),), plan.stage_ms, plan.overhead_ms)
            for size in range(1, min(3, stage + 1) + 1):
                answers = np.sum(scaled[stage + 1 - size:stage + 1], axis=0).argmax(axis=1)
                ms.append(cost)
                accuracy.append(float(np.mean(answers == data.labels)))
    return np.array(ms), np.array(accuracy)


def _log_softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    shifted = logits - logits.max(axis=1, keepdims=True)
    found: npt.NDArray[np.float32] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return found
