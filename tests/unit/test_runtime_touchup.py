"""Thresholds that follow what is seen."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from edgekit.bundle.adaptive import Plan, Promise, Route, Step
from edgekit.errors import BadInput
from edgekit.runtime.touchup import BINS, MAX_SHIFT, Touchup, first_touchup, from_json, note, thresholds, to_json

STOPS = (0.6, 0.3, 0.1)


def make_plan(first: float = 0.5) -> Plan:
    """Two routes: one of three steps, of which 60 % and then 30 % stop; one of a single step."""
    steps = (Step(0, 0, (1.0,), "margin", first), Step(0, 1, (0.0, 1.0), "margin", 0.4),
             Step(0, 2, (0.0, 0.0, 1.0), "margin", None))
    return Plan("board", "litert", "measured", ((1.0, 1.0, 1.0),), 0.1,
                (Route(steps, Promise(0.9, (0.8, 1.0), 1.0, 3.0, STOPS, 100)),
                 Route(steps[:1], Promise(0.8, (0.7, 0.9), 1.0, 1.0, (1.0,), 100))), 0, "test", (), "a" * 64)


def see(state: Touchup, confidences: Any, step: int = 0) -> Touchup:
    for each in confidences:
        state = note(state, 0, step, float(each))
    return state


def used(state: Touchup, plan: Plan) -> tuple[float | None, ...]:
    return thresholds(state, plan.routes[0], 0)


def test_at_first_the_thresholds_are_those_of_the_plan() -> None:
    plan = make_plan()
    assert used(first_touchup(plan), plan) == (0.5, 0.4, None)
    assert used(see(first_touchup(plan), [0.9] * 199), plan) == (0.5, 0.4, None)


@pytest.mark.parametrize("shift", [-0.08, -0.03, 0.0, 0.05])
def test_the_planned_share_stops_where_confidences_lie_elsewhere(shift: float) -> None:
    rng = np.random.default_rng(1)
    confidences = rng.beta(4, 3, 60_000)
    plan = make_plan(first=float(np.quantile(confidences, 1 - STOPS[0])))
    seen = np.clip(confidences + shift, 0, 1)
    state = see(first_touchup(plan), seen[:3000])
    threshold = used(state, plan)[0]
    assert threshold is not None
    fixed = float((seen[3000:] >= (plan.routes[0].steps[0].threshold or 0)).mean())
    touched = float((seen[3000:] >= threshold).mean())
    assert touched == pytest.approx(STOPS[0], abs=0.025)
    if abs(shift) > 0.04:
        assert abs(fixed - STOPS[0]) > 2 * abs(touched - STOPS[0])


def test_a_later_step_keeps_the_share_of_those_that_reach_it() -> None:
    plan = make_plan()
    confidences = np.random.default_rng(2).uniform(0, 1, 3000)
    threshold = used(see(first_touchup(plan), confidences, step=1), plan)[1]
    # 0.3 of the 0.4 that reach it: the quantile 0.25 of what is seen there, which is as far as 0.15 from the plan's.
    assert threshold == pytest.approx(0.4 - MAX_SHIFT)
    threshold = used(see(first_touchup(plan), 0.1 + confidences, step=1), plan)[1]
    assert threshold == pytest.approx(0.35, abs=0.03)


@pytest.mark.parametrize(("planned", "seen", "limit"), [
    (0.5, 0.0, 0.4), (0.5, 1.0, 0.6), (0.95, 1.0, 1.0), (0.05, 0.0, 0.0)])
def test_thresholds_move_no_further_than_is_safe(planned: float, seen: float, limit: float) -> None:
    plan = make_plan(planned)
    assert used(see(first_touchup(plan), [seen] * 500), plan)[0] == pytest.approx(limit, abs=1 / BINS)


def test_the_state_stays_small_and_follows_what_is_new() -> None:
    plan = make_plan()
    state = first_touchup(plan)
    for step in (0, 1, 2):
        state = see(state, np.random.default_rng(step).uniform(0.4, 0.6, 20_000), step)
    assert len(to_json(state)) < 1500
    assert all(sum(counts) < 4000 for counts in state.histograms[0])
    assert state.histograms[0][2] == ()
    before = used(state, plan)[0]
    after = used(see(state, np.full(6000, 0.55)), plan)[0]
    assert before is not None
    assert after is not None
    assert after > before


def test_what_is_not_a_number_is_not_seen() -> None:
    plan = make_plan()
    assert see(first_touchup(plan), [float("nan")] * 300) == first_touchup(plan)
    assert see(first_touchup(plan), [-5.0, 7.0]).histograms[0][0][::BINS - 1] == (1, 1)


def test_it_is_exported_and_imported() -> None:
    plan = make_plan()
    state = see(first_touchup(plan), np.random.default_rng(4).uniform(0, 1, 500))
    assert from_json(to_json(state), plan) == state
    assert used(from_json(to_json(state), plan), plan) == used(state, plan)


def test_that_of_another_plan_is_refused() -> None:
    data = to_json(see(first_touchup(make_plan()), [0.5] * 10))
    for other in (make_plan(0.6), Plan(**{name: getattr(make_plan(), name) for name in Plan.__struct_fields__}
                                       | {"ladders_sha256": "b" * 64})):
        with pytest.raises(BadInput, match="another plan"):
            from_json(data, other)


@pytest.mark.parametrize("change", [
    lambda raw: raw.pop("planned"),
    lambda raw: raw.update(more=1),
    lambda raw: raw.update(histograms=[]),
    lambda raw: raw.update(histograms=5),
    lambda raw: raw["histograms"][0].pop(),
    lambda raw: raw["histograms"][0].__setitem__(0, [1] * (BINS - 1)),
    lambda raw: raw["histograms"][0].__setitem__(0, [-1] + [1] * (BINS - 1)),
    lambda raw: raw["histograms"][0].__setitem__(0, [0.5] * BINS),
    lambda raw: raw["histograms"][0].__setitem__(0, [True] * BINS),
    lambda raw: raw["histograms"][0].__setitem__(0, [10**9] * BINS),
    lambda raw: raw["histograms"][0].__setitem__(0, "x" * BINS),
])
def test_damaged_ones_are_refused(change: Any) -> None:
    plan = make_plan()
    raw = json.loads(to_json(see(first_touchup(plan), [0.5] * 10)))
    change(raw)
    with pytest.raises(BadInput):
        from_json(json.dumps(raw).encode(), plan)


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"\xff", b"[" * 100_000, b"{}" + b" " * 1_100_000])
def test_what_is_none_at_all_is_refused(data: bytes) -> None:
    with pytest.raises(BadInput):
        from_json(data, make_plan())
