"""A route on answers that were recorded before, by the runtime's own decisions: what it would have done."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgekit.bundle.adaptive import Plan, Route
from edgekit.errors import BadInput
from edgekit.plan import Observations, Point
from edgekit.plan.observations import chain_costs
from edgekit.runtime.decide import combine, confidence

__all__ = ["Replayed", "replay"]


@dataclass(frozen=True)
class Replayed:
    """``answers``, ``stopped``: int64 (samples,), the class and the step that answered; ``ms``: float64 (samples,),
    by the times of the stages in the plan. ``stops``: (steps,), the part of the samples that each step answered.
    """

    answers: npt.NDArray[np.int64]
    stopped: npt.NDArray[np.int64]
    ms: npt.NDArray[np.float64]
    right: npt.NDArray[np.bool_]
    stops: npt.NDArray[np.float64]

    @property
    def accuracy(self) -> float:
        """The part of right answers."""
        return float(self.right.mean())

    @property
    def mean_ms(self) -> float:
        """Milliseconds for an input."""
        return float(self.ms.mean())


def replay(plan: Plan, route: Route, data: Observations) -> Replayed:
    """``route`` of ``plan`` on every sample of ``data``. Raises BadInput where there are no labels."""
    if data.labels is None:
        raise BadInput("There are no labels to judge a route by.", "Give the class of each sample.")
    costs = chain_costs(tuple(Point(step.ladder, step.stage) for step in route.steps), plan.stage_ms, plan.overhead_ms)
    answers, stopped = np.empty(data.samples, np.int64), np.empty(data.samples, np.int64)
    for sample in range(data.samples):
        answers[sample], stopped[sample] = _walk(route, data, sample)
    stops = np.bincount(stopped, minlength=len(costs)) / data.samples
    return Replayed(answers, stopped, np.array(costs)[stopped], answers == data.labels, stops)


def _walk(route: Route, data: Observations, sample: int) -> tuple[int, int]:
    """The class and the step of the answer for one sample."""
    logits: list[npt.NDArray[np.float32]] = []
    earlier = None
    for step in route.steps:
        logits.append(data.logits[step.ladder][step.stage][sample])
        combined = combine(logits, step.weights)
        if step.threshold is not None and confidence(combined, step, earlier) >= step.threshold:
            break
        earlier = combined
    return int(combined.argmax()), len(logits) - 1
