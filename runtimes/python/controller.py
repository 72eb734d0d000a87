"""Which route to take, and how slow the device is just now: a pure state machine (runtimes/SPEC.md, "Controlling").

``observe`` takes in how long a stage really took, ``judge`` how long an answer did; ``choose`` picks the route for the
next input. All return a new state. No clock is read here, so a recorded trace replays to the same choices in every
language.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from edgekit.bundle.adaptive import Plan, Route

__all__ = [
    "Choice", "Limits", "Ran", "State", "budget_of", "choose", "first_state", "judge", "next_step_ms", "observe",
    "observe_all", "route_p95_ms", "slowdown",
]

_WINDOW = 5  # the median of 5 follows a lasting change within 3 observations and ignores two outliers
_FORGET = 20  # frames after which what a stage once took says less than what others take now
_PATIENCE = 10  # frames in which a dearer route must have fitted before it is taken
_HEADROOM = 0.9  # the share of the budget into which the dearer route must fit
_GAIN = 0.1  # of the two margins, for a miss
_WIDEST = 2.0
_OVER_BUDGET, _LATE = 0.05, 0.01  # the shares of misses at which the margins stay as they are
_THERMAL = (1.0, 1.0, 0.7, 0.5)  # the share of the budget at the levels nominal, fair, serious, critical


class Limits(NamedTuple):
    """What the app asks for: the 95th percentile in milliseconds (None: the plan's own choice), and how hot it is.

    ``thermal`` is 0 (nominal), 1 (fair), 2 (serious) or 3 (critical); larger counts as 3.
    """

    budget_ms: float | None = None
    thermal: int = 0


class Seen(NamedTuple):
    """The last ratios of measured to planned time of a stage, and the frame of the last one."""

    ratios: tuple[float, ...] = ()
    frame: int = 0


class State(NamedTuple):
    """``seen[l][s]``: of stage s of ladder l; ``recent``: of all stages; ``calm``: frames in which more would fit.

    ``margin`` and ``caution``, 1 to 2: what expected times are multiplied by before they are held against the budget
    and against a deadline, since what is expected is a median and answers that come late are at the upper end.
    """

    route: int
    frame: int
    calm: int
    recent: tuple[float, ...]
    seen: tuple[tuple[Seen, ...], ...]
    margin: float = 1.0
    caution: float = 1.0


class Ran(NamedTuple):
    """A stage that ran: in which frame, which stage of which ladder, and for how long."""

    frame: int
    ladder: int
    stage: int
    measured_ms: float


class Choice(NamedTuple):
    """The state after choosing and the index of the route; ``fits``: whether it is expected to keep the budget."""

    state: State
    route: int
    fits: bool


def first_state(plan: Plan) -> State:
    """Nothing seen yet: the device is as fast as the plan says."""
    return State(plan.default, 0, 0, (), tuple(tuple(Seen() for _ in stages) for stages in plan.stage_ms))


def observe(state: State, plan: Plan, ladder: int, stage: int, measured_ms: float) -> State:
    """The state after stage ``stage`` of ladder ``ladder`` took ``measured_ms`` in the current frame."""
    return observe_all(state, plan, (Ran(state.frame, ladder, stage, measured_ms),))


def observe_all(state: State, plan: Plan, runs: Iterable[Ran]) -> State:
    """The state after all of these, in this order; ``state.frame`` stays as it is.

    For a caller that observes every frame but needs the times now and then only.
    """
    recent = list(state.recent)
    changed: dict[tuple[int, int], tuple[list[float], int]] = {}
    for frame, ladder, stage, measured_ms in runs:
        ratio = measured_ms / plan.stage_ms[ladder][stage]
        recent.append(ratio)
        known = changed.get((ladder, stage))
        ratios = list(state.seen[ladder][stage].ratios) if known is None else known[0]
        ratios.append(ratio)
        changed[ladder, stage] = ratios, frame
    seen = [list(row) for row in state.seen]
    for (ladder, stage), (ratios, frame) in changed.items():
        seen[ladder][stage] = Seen(tuple(ratios[-_WINDOW:]), frame)
    return state._replace(recent=tuple(recent[-_WINDOW:]), seen=tuple(map(tuple, seen)))


def judge(state: State, plan: Plan, limits: Limits, taken_ms: float, late: bool | None) -> State:
    """The state after an answer that took ``taken_ms``; ``late``: a step was begun that ended after the deadline.

    ``late`` is None without a deadline. Each miss widens a margin, and each answer in time narrows it, so that in the
    long run 5 % are over the budget and 1 % late, or fewer.
    """
    budget = budget_of(plan, limits)
    margin, caution = state.margin, state.caution
    if budget is not None:
        margin = _moved(margin, taken_ms > budget, _OVER_BUDGET)
    if late is not None:
        caution = _moved(caution, late, _LATE)
    return state._replace(margin=margin, caution=caution)


def _moved(margin: float, missed: bool, share: float) -> float:
    return min(max(margin + _GAIN * (missed - share), 1.0), _WIDEST)


def slowdown(state: State, ladder: int, stage: int) -> float:
    """How many times slower than planned a stage is expected to be: its own median, or, when it is old, everybody's."""
    own = state.seen[ladder][stage]
    if own.ratios and state.frame - own.frame <= _FORGET:
        return _median(own.ratios)
    return _median(state.recent) if state.recent else 1.0


def next_step_ms(state: State, plan: Plan, route: Route, step: int) -> float:
    """What step ``step`` of ``route`` is feared to take: the stages that no earlier step has run, with caution."""
    wanted = route.steps[step]
    done = max((each.stage for each in route.steps[:step] if each.ladder == wanted.ladder), default=-1)
    times = plan.stage_ms[wanted.ladder]
    return state.caution * (plan.overhead_ms + sum(times[stage] * slowdown(state, wanted.ladder, stage)
                                                   for stage in range(done + 1, wanted.stage + 1)))


def route_p95_ms(state: State, plan: Plan, route: Route) -> float:
    """The time within which 95 % of the inputs are expected to be answered on this route, with the margin."""
    return state.margin * _p95_ms(route, plan.overhead_ms, _until(state, plan))


def _until(state: State, plan: Plan) -> list[list[float]]:
    """For each ladder, what its stages are expected to take until the end of each, after a 0."""
    found = []
    for ladder, times in enumerate(plan.stage_ms):
        until = [0.0]
        for stage, planned_ms in enumerate(times):
            until.append(until[-1] + planned_ms * slowdown(state, ladder, stage))
        found.append(until)
    return found


def _p95_ms(route: Route, overhead_ms: float, until: Sequence[Sequence[float]]) -> float:
    elapsed = share = 0.0
    done = [0] * len(until)
    for step, stops in zip(route.steps, route.promise.stops, strict=True):
        ladder, end = step.ladder, step.stage + 1
        elapsed += overhead_ms + until[ladder][end] - until[ladder][done[ladder]]
        done[ladder] = end
        share += stops
        if share >= 0.95:
            break
    return elapsed


def choose(state: State, plan: Plan, limits: Limits) -> Choice:
    """The route for the next input.

    The dearest route whose p95 keeps the budget; to a cheaper one at once, to a dearer one step by step, after 10
    frames in a row in which the next dearer one fitted into 90 % of the budget. Without a budget the plan's default
    route and its own p95 at planned speed are what is to be kept when it is hot, and nothing changes when it is not.
    """
    frame = state.frame + 1
    budget = budget_of(plan, limits)
    if budget is None:
        same = State(plan.default, frame, 0, state.recent, state.seen, state.margin, state.caution)
        return Choice(same, plan.default, True)
    state = state._replace(frame=frame)
    until = _until(state, plan)
    expected = [state.margin * _p95_ms(route, plan.overhead_ms, until) for route in plan.routes]
    fitting = [index for index, time in enumerate(expected) if time <= budget]
    best = max(fitting, default=0)
    if best < state.route or expected[state.route] > budget:
        return Choice(state._replace(route=best, calm=0), best, bool(fitting))
    above = state.route + 1
    calm = state.calm + 1 if above <= best and expected[above] <= _HEADROOM * budget else 0
    if calm >= _PATIENCE:
        state, calm = state._replace(route=above), 0
    return Choice(state._replace(calm=calm), state.route, bool(fitting))


def budget_of(plan: Plan, limits: Limits) -> float | None:
    """The milliseconds that 95 of 100 inputs are to keep; None where nothing is asked for."""
    share = _THERMAL[min(max(limits.thermal, 0), len(_THERMAL) - 1)]
    if limits.budget_ms is not None:
        return limits.budget_ms * share
    return plan.routes[plan.default].promise.p95_ms * share if share < 1 else None


def _median(values: tuple[float, ...]) -> float:
    """That of the statistics module, which takes four times as long."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2

