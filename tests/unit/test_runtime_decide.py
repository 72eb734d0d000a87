"""The decision core: when a run stops, how sure logits are, which route is taken."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.bundle.adaptive import Gate, Plan, Promise, Route, Step
from edgekit.runtime.controller import (
    Limits,
    State,
    choose,
    first_state,
    judge,
    next_step_ms,
    observe,
    route_p95_ms,
    slowdown,
)
from edgekit.runtime.decide import Moment, combine, confidence, decide, gate_features

MARGIN = Step(0, 0, (1.0,), "margin", 0.5)


def route(*points: tuple[int, int], stops: tuple[float, ...], p95_ms: float) -> Route:
    steps = tuple(
        Step(ladder, stage, (0.0,) * index + (1.0,), "margin", None if index + 1 == len(points) else 0.5)
        for index, (ladder, stage) in enumerate(points)
    )
    return Route(steps, Promise(0.9, (0.88, 0.92), p95_ms / 2, p95_ms, stops, 1000))


PLAN = Plan(
    device="test",
    engine="litert",
    source="measured",
    stage_ms=((2.0, 3.0), (10.0,)),
    overhead_ms=0.5,
    routes=(
        route((0, 0), stops=(1.0,), p95_ms=2.5),
        route((0, 0), (0, 1), stops=(0.5, 0.5), p95_ms=6.0),
        route((0, 1), (1, 0), stops=(0.7, 0.3), p95_ms=16.0),
    ),
    default=1,
    objective="test",
    notes=(),
    ladders_sha256="0" * 64,
)


def after(state: State, times: int, measured: float) -> State:
    for _ in range(times):
        state = observe(state._replace(frame=state.frame + 1), PLAN, 0, 0, measured)
    return state


# -- decide ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("certainty", "threshold", "moment", "expected"),
    [
        (0.9, 0.5, Moment(0, 3, 1.0, 1.0, None), (True, "confident")),
        (0.5, 0.5, Moment(0, 3, 1.0, 1.0, None), (True, "confident")),
        (0.49, 0.5, Moment(0, 3, 1.0, 1.0, None), (False, None)),
        (0.0, 0.5, Moment(2, 3, 1.0, 0.0, None), (True, "last")),
        (1.0, 0.5, Moment(2, 3, 1.0, 0.0, 0.5), (True, "last")),
        (1.0, None, Moment(0, 2, 1.0, 1.0, None), (False, None)),
        (math.nan, 0.0, Moment(0, 2, 1.0, 1.0, None), (False, None)),
        (0.1, 0.5, Moment(0, 2, 5.0, 5.0, 10.0), (False, None)),
        (0.1, 0.5, Moment(0, 2, 5.0, 5.1, 10.0), (True, "deadline")),
        (0.9, 0.5, Moment(0, 2, 50.0, 5.1, 10.0), (True, "confident")),
    ],
)
def test_decide(certainty: float, threshold: float | None, moment: Moment, expected: tuple[bool, str | None]) -> None:
    assert decide(certainty, threshold, moment) == expected


# -- confidence ------------------------------------------------------------------------------------------------------


def test_margin_and_largest_probability() -> None:
    logits = np.log(np.array([0.6, 0.3, 0.1]))
    assert confidence(logits, MARGIN, None) == pytest.approx(0.3)
    assert confidence(logits, Step(0, 0, (1.0,), "max_probability", 0.5), None) == pytest.approx(0.6)
    assert confidence(np.array([1e4, -1e4]), MARGIN, None) == 1.0
    assert confidence(np.array([7.0]), MARGIN, None) == 1.0


def test_weights_are_temperatures_and_an_ensemble() -> None:
    first, second = np.array([2.0, 0.0], np.float32), np.array([0.0, 4.0], np.float32)
    np.testing.assert_array_equal(combine([first, second], [0.5, 0.25]), [1.0, 1.0])
    with pytest.raises(ValueError, match="zip"):
        combine([first, second], [1.0])


def test_a_gate_sees_the_step_before() -> None:
    logits = np.log(np.array([0.6, 0.3, 0.1]))
    entropy = -sum(p * math.log(p) for p in (0.6, 0.3, 0.1))
    assert gate_features(logits, None) == pytest.approx((0.3, 0.6, 0.3, entropy, 0.5))
    assert gate_features(logits, logits)[4] == 1
    assert gate_features(logits, logits[::-1].copy())[4] == 0
    gate = Step(0, 0, (1.0,), "gate", 0.5, Gate((1.0, 0.0, 0.0, 0.0, 2.0), -1.3))
    assert confidence(logits, gate, logits) == pytest.approx(1 / (1 + math.exp(-1.0)))
    assert math.isnan(confidence(logits, Step(0, 0, (1.0,), "gate", 0.5), None))


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=20), st.floats(-100, 100))
def test_confidence_does_not_see_a_shift(values: list[float], shift: float) -> None:
    logits = np.array(values)
    assert confidence(logits + shift, MARGIN, None) == pytest.approx(confidence(logits, MARGIN, None), abs=1e-9)
    assert 0 <= confidence(logits, MARGIN, None) <= 1


# -- control ---------------------------------------------------------------------------------------------------------


def test_a_step_costs_what_has_not_run_yet() -> None:
    state = first_state(PLAN)
    assert next_step_ms(state, PLAN, PLAN.routes[1], 0) == 2.5
    assert next_step_ms(state, PLAN, PLAN.routes[1], 1) == 3.5
    assert next_step_ms(state, PLAN, PLAN.routes[2], 0) == 5.5
    assert [route_p95_ms(state, PLAN, each) for each in PLAN.routes] == [2.5, 6.0, 16.0]


def test_a_slowed_device_is_noticed_within_three_observations() -> None:
    state = after(first_state(PLAN), 20, 2.0)
    assert slowdown(state, 0, 0) == 1
    slow = after(state, 3, 4.0)
    assert slowdown(slow, 0, 0) == 2
    assert slowdown(slow, 1, 0) == 2, "a stage that has not run is expected to be as slow as the others"
    assert slowdown(after(state, 2, 9.0), 0, 0) == 1, "two outliers are not a trend"


def test_what_a_stage_took_is_forgotten() -> None:
    state = observe(first_state(PLAN), PLAN, 1, 0, 30.0)
    state = after(state, 20, 2.0)
    assert slowdown(state, 1, 0) == 3
    assert slowdown(state._replace(frame=state.frame + 1), 1, 0) == 1


def test_cheaper_at_once_dearer_in_steps() -> None:
    state, chosen = first_state(PLAN), []
    for _ in range(25):
        state, index, fits = choose(state, PLAN, Limits(budget_ms=20.0))
        chosen.append(index)
        assert fits
    assert chosen == [1] * 9 + [2] * 16
    slow = after(state, 3, 4.0)
    assert choose(slow, PLAN, Limits(budget_ms=20.0)).route == 1
    assert choose(slow, PLAN, Limits(budget_ms=6.0)).route == 0
    nothing = choose(slow, PLAN, Limits(budget_ms=1.0))
    assert (nothing.route, nothing.fits) == (0, False)


def test_a_dearer_route_needs_headroom() -> None:
    state = first_state(PLAN)
    for _ in range(30):
        state, index, _ = choose(state, PLAN, Limits(budget_ms=16.5))
    assert index == 1, "16 ms fit into 16.5, but not into 90 % of it"


def test_heat_lowers_the_budget() -> None:
    assert choose(first_state(PLAN), PLAN, Limits()).route == 1
    assert choose(first_state(PLAN), PLAN, Limits(thermal=1)).route == 1
    assert choose(first_state(PLAN), PLAN, Limits(thermal=2)).route == 0
    assert choose(first_state(PLAN), PLAN, Limits(budget_ms=12.0, thermal=3)).route == 1
    assert choose(first_state(PLAN), PLAN, Limits(budget_ms=11.0, thermal=9)).route == 0


def test_misses_widen_the_margin_until_a_cheaper_route_is_taken_and_answers_in_time_narrow_it() -> None:
    limits, state = Limits(budget_ms=7.0), first_state(PLAN)
    assert choose(state, PLAN, limits).route == 1
    for _ in range(3):
        state = judge(state, PLAN, limits, 7.5, None)
    assert state.margin == pytest.approx(1.285)
    assert route_p95_ms(state, PLAN, PLAN.routes[1]) == pytest.approx(1.285 * 6.0)
    assert choose(state, PLAN, limits).route == 0
    for _ in range(60):
        state = judge(state, PLAN, limits, 2.5, None)
    assert state.margin == 1.0
    for _ in range(60):
        state = judge(state, PLAN, limits, 7.5, None)
    assert state.margin == 2.0


def test_late_answers_make_the_next_step_feared_and_nothing_else() -> None:
    state = judge(first_state(PLAN), PLAN, Limits(), 9.0, True)
    assert state.caution == pytest.approx(1.099)
    assert next_step_ms(state, PLAN, PLAN.routes[1], 1) == pytest.approx(1.099 * 3.5)
    assert (state.margin, route_p95_ms(state, PLAN, PLAN.routes[1])) == (1.0, 6.0)
    assert judge(state, PLAN, Limits(), 1.0, False).caution == pytest.approx(1.098)


@pytest.mark.parametrize("classes", [5, 300])
def test_few_classes_and_many_are_decided_alike(classes: int) -> None:
    random = np.random.default_rng(classes)
    logits = [random.normal(0, 3, classes).astype(np.float32) for _ in range(2)]
    combined = combine(logits, (0.25, 1.5))
    np.testing.assert_allclose(combined, np.array([0.25, 1.5]) @ np.array(logits, np.float64), rtol=1e-12)
    chances = np.sort(np.exp(combined) / np.exp(combined).sum())
    assert confidence(combined, MARGIN, None) == pytest.approx(chances[-1] - chances[-2], abs=1e-12)
    for odd in (math.nan, math.inf):
        combined[classes // 2] = odd
        assert math.isnan(confidence(combined, MARGIN, None))
