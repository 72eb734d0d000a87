"""The state of an adaptive runtime, behind one lock: which route, how slow the device is, what has happened."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from edgekit.bundle.adaptive import Plan
from edgekit.errors import BadRecipe
from edgekit.runtime.controller import Limits, Ran, budget_of, choose, first_state, judge, next_step_ms, observe_all
from edgekit.runtime.follow import Answer
from edgekit.runtime.stages import Seen
from edgekit.runtime.touchup import first_touchup, from_json, note, thresholds, to_json

__all__ = ["Counters", "Policy"]


_MOST_PENDING = 64  # inputs whose times wait to be taken into the state


class Counters(NamedTuple):
    """What has happened since loading.

    ``exits``: answers by (ladder, stage); ``routes``: inputs by route; ``reasons``: answers by the first word of the
    reason; ``deadline_misses``: answers after their deadline; ``budget_misses``: answers that took longer than the
    budget (of which 5 % are to be expected); ``route_changes``; ``over_budget``: inputs for which no route was expected
    to keep the budget.
    """

    inputs: int
    exits: Mapping[tuple[int, int], int]
    routes: Mapping[int, int]
    reasons: Mapping[str, int]
    deadline_misses: int
    budget_misses: int
    route_changes: int
    over_budget: int


class Policy:
    """Carries the pure functions' states from input to input. Safe to call from several threads."""

    def __init__(self, plan: Plan, touch_up: bool) -> None:
        self.plan = plan
        self._lock = threading.Lock()
        self._limits = Limits()
        self._budget: float | None = None
        self._ahead = 0  # inputs that the state has not counted yet
        self._state = first_state(plan)
        self._pending: list[tuple[int, Sequence[Seen]]] = []  # frames, and what ran in them
        self._planned = [tuple(step.threshold for step in route.steps) for route in plan.routes]
        self._touchup = first_touchup(plan) if touch_up else None
        self._exits: dict[tuple[int, int], int] = {}
        self._routes: dict[int, int] = {}
        self._reasons: dict[str, int] = {}
        self._deadline_misses = self._budget_misses = self._route_changes = self._over_budget = 0

    def limit(self, budget_ms: float | None, thermal: int) -> None:
        """From the next ``choose`` on. Raises BadRecipe."""
        if budget_ms is not None and not 0 < budget_ms < float("inf"):
            raise BadRecipe(f"The budget is {budget_ms} ms.", "It must be more than 0.")
        if not 0 <= thermal <= 3:
            raise BadRecipe(f"The thermal level is {thermal}.", "It must be from 0 (nominal) to 3 (critical).")
        with self._lock:
            self._limits = Limits(budget_ms, thermal)
            self._budget = budget_of(self.plan, self._limits)

    def choose(self, inputs: int = 1) -> int:
        """The index of the route for the next inputs."""
        with self._lock:
            route = self._state.route
            if self._budget is None and route == self.plan.default and self._state.calm == 0:
                self._ahead += 1  # all that choosing does then
            else:
                route = self._choose(inputs)
            self._routes[route] = self._routes.get(route, 0) + inputs
            return route

    def _choose(self, inputs: int) -> int:
        self._take_in()
        before = self._state.route
        self._state, route, fits = choose(self._state, self.plan, self._limits)
        self._route_changes += route != before
        self._over_budget += 0 if fits else inputs
        return route

    def next_ms(self, route: int, step: int) -> float:
        """What a step is feared to take for one input."""
        with self._lock:
            self._take_in()
            return next_step_ms(self._state, self.plan, self.plan.routes[route], step)

    def observe(self, seen: Sequence[Seen]) -> None:
        """These stages have run, in this order, for one input. ``seen`` is kept."""
        with self._lock:
            self._pending.append((self._state.frame + self._ahead, seen))
            if len(self._pending) >= _MOST_PENDING:
                self._take_in()

    def _take_in(self) -> None:
        """What waits becomes part of the state: only a budget and a deadline ask for it, so it need not be at once."""
        if self._ahead:
            self._state = self._state._replace(frame=self._state.frame + self._ahead)
            self._ahead = 0
        if self._pending:
            runs = [Ran(frame, *each) for frame, seen in self._pending for each in seen]
            self._state = observe_all(self._state, self.plan, runs)
            self._pending = []

    def thresholds(self, route: int) -> tuple[float | None, ...]:
        """The plan's, or those of the touch-up."""
        if self._touchup is None:
            return self._planned[route]
        with self._lock:
            return thresholds(self._touchup, self.plan.routes[route], route)

    def finish(self, route: int, answers: Sequence[Answer], latencies_ms: Sequence[float],
               deadline_ms: float | None) -> None:
        """Count the answers; let the thresholds learn from their confidences."""
        steps = self.plan.routes[route].steps
        with self._lock:
            budget_ms = self._limits.budget_ms
            for answer, latency_ms in zip(answers, latencies_ms, strict=True):
                point = steps[answer.step].ladder, steps[answer.step].stage
                self._exits[point] = self._exits.get(point, 0) + 1
                reason = answer.reason.partition(":")[0]
                self._reasons[reason] = self._reasons.get(reason, 0) + 1
                self._deadline_misses += deadline_ms is not None and latency_ms > deadline_ms
                self._budget_misses += budget_ms is not None and latency_ms > budget_ms
                if self._touchup is not None:
                    for step, certainty in enumerate(answer.certainties):
                        self._touchup = note(self._touchup, route, step, certainty)

    def judge(self, taken_ms: float, late: bool | None) -> None:
        """An input alone took so long; ``late``: it missed its deadline by going on (None: it had none)."""
        if late is None and self._budget is None:
            return
        with self._lock:
            self._state = judge(self._state, self.plan, self._limits, taken_ms, late)

    def counters(self) -> Counters:
        """A copy."""
        with self._lock:
            return Counters(sum(self._exits.values()), dict(self._exits), dict(self._routes), dict(self._reasons),
                            self._deadline_misses, self._budget_misses, self._route_changes, self._over_budget)

    def export_touchup(self) -> bytes:
        """Raises BadRecipe when it is off."""
        with self._lock:
            if self._touchup is None:
                raise _off()
            return to_json(self._touchup)

    def import_touchup(self, data: bytes | None) -> None:
        """None forgets everything. Raises BadInput, and BadRecipe when it is off."""
        state = first_touchup(self.plan) if data is None else from_json(data, self.plan)
        with self._lock:
            if self._touchup is None:
                raise _off()
            self._touchup = state


def _off() -> BadRecipe:
    return BadRecipe("The touch-up is off.", "Load the bundle with RuntimeOptions(touch_up=True).")
