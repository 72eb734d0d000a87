"""What an adaptive runtime remembers from input to input."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from edgekit.bundle import Bundle, Plan
from edgekit.errors import BadInput, BadRecipe
from edgekit.runtime.follow import Answer
from edgekit.runtime.policy import Policy


@pytest.fixture
def plan(conformance: Path) -> Plan:
    """Three routes, of 0.5 (one step), 2 and 4 ms (two steps) at the 95th percentile."""
    with Bundle.open(conformance / "golden_adaptive.edge") as bundle:
        found = bundle.plan()
    assert found is not None
    return found


def answer(step: int, reason: str, *certainties: float) -> Answer:
    return Answer(np.zeros(3), step, reason, certainties, tuple(map(float, range(1, len(certainties) + 1))))


def test_without_limits_the_plans_own_route_is_taken(plan: Plan) -> None:
    policy = Policy(plan, touch_up=False)
    assert [policy.choose() for _ in range(30)] == [1] * 30
    assert policy.counters().route_changes == 0


def test_a_slowed_device_takes_a_cheaper_route_within_10_frames_and_recovers(plan: Plan) -> None:
    policy = Policy(plan, touch_up=False)
    policy.limit(budget_ms=2.0, thermal=0)
    for _ in range(20):
        policy.choose()
        policy.observe([(0, 0, 0.5)])
        policy.observe([(0, 1, 0.5)])
    assert policy.choose() == 1
    taken = []
    for _ in range(10):
        policy.observe([(0, 0, 1.5)])
        policy.observe([(0, 1, 1.5)])
        taken.append(policy.choose())
    assert taken[-1] == 0
    for _ in range(40):
        policy.observe([(0, 0, 0.5)])
        policy.choose()
    assert policy.choose() == 1
    assert policy.counters().route_changes == 2


def test_heat_takes_from_the_budget(plan: Plan) -> None:
    policy = Policy(plan, touch_up=False)
    policy.limit(budget_ms=2.0, thermal=3)
    assert policy.choose() == 0
    policy.limit(None, 2)
    assert policy.choose() == 0
    policy.limit(None, 1)
    assert policy.choose() == 1


def test_a_budget_that_nothing_keeps_is_counted(plan: Plan) -> None:
    policy = Policy(plan, touch_up=False)
    policy.limit(0.1, 0)
    assert [policy.choose(), policy.choose(4)] == [0, 0]
    counters = policy.counters()
    assert (counters.over_budget, counters.route_changes, counters.routes) == (5, 1, {0: 5})


def test_answers_are_counted(plan: Plan) -> None:
    policy = Policy(plan, touch_up=False)
    policy.limit(3.0, 0)
    policy.finish(2, [answer(0, "confident", 0.9), answer(1, "last", 0.1, 0.5)], [1.0, 5.0], 4.0)
    policy.finish(1, [answer(0, "error: it broke", 0.1)], [3.5], None)
    counters = policy.counters()
    assert counters.inputs == 3
    assert counters.exits == {(0, 0): 2, (1, 1): 1}
    assert counters.reasons == {"confident": 1, "last": 1, "error": 1}
    assert (counters.deadline_misses, counters.budget_misses) == (1, 2)


def test_limits_that_make_no_sense(plan: Plan) -> None:
    policy = Policy(plan, touch_up=False)
    for budget, thermal in ((0.0, 0), (-1.0, 0), (float("nan"), 0), (float("inf"), 0), (1.0, 4), (1.0, -1)):
        with pytest.raises(BadRecipe):
            policy.limit(budget, thermal)


def test_the_touch_up_moves_the_thresholds_until_it_is_reset(plan: Plan) -> None:
    policy = Policy(plan, touch_up=True)
    planned = policy.thresholds(1)
    assert planned == (0.5, None)
    for _ in range(300):
        policy.finish(1, [answer(0, "confident", 0.9)], [1.0], None)
    moved = policy.thresholds(1)
    assert moved[0] == pytest.approx(0.6)
    assert moved[1] is None
    data = policy.export_touchup()
    policy.import_touchup(None)
    assert policy.thresholds(1) == planned
    policy.import_touchup(data)
    assert policy.thresholds(1) == moved
    with pytest.raises(BadInput):
        policy.import_touchup(b"{}")
    assert policy.thresholds(1) == moved


def test_without_the_touch_up_nothing_moves(plan: Plan) -> None:
    policy = Policy(plan, touch_up=False)
    for _ in range(300):
        policy.finish(1, [answer(0, "confident", 0.9)], [1.0], None)
    assert policy.thresholds(1) == (0.5, None)
    with pytest.raises(BadRecipe, match="touch_up"):
        policy.export_touchup()
    with pytest.raises(BadRecipe, match="touch_up"):
        policy.import_touchup(None)


def test_several_threads_lose_no_count(plan: Plan) -> None:
    policy = Policy(plan, touch_up=True)

    def work() -> None:
        for _ in range(200):
            route = policy.choose()
            policy.observe([(0, 0, 0.5)])
            policy.finish(route, [answer(0, "confident", 0.7)], [1.0], None)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counters = policy.counters()
    assert (counters.inputs, counters.routes, counters.exits) == (1600, {1: 1600}, {(0, 0): 1600})
