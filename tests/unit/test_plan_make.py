"""Plans on simulated data: better than fixed points where that is possible, and never worse."""

from __future__ import annotations

import dataclasses
import itertools

import msgspec
import numpy as np
import pytest

from edgekit.bundle.adaptive import Plan
from edgekit.errors import BadInput, BadRecipe, BudgetImpossible
from edgekit.plan import Observations, PlanRecipe, Point, make_plan, plan_with_points, plans_with_points
from edgekit.plan.choose import Table, choose_routes, measure_slack
from edgekit.plan.hull import hull_of
from edgekit.replay import replay
from edgekit.runtime.controller import Limits, choose, first_state, route_p95_ms
from tests.plan_simulation import HASH, blind, difficulty


def fixed_accuracy(data: Observations) -> dict[float, float]:
    """Milliseconds and accuracy of every single exit."""
    return {data.cost_ms((point,))[0]: float((data.of(point).argmax(axis=1) == data.labels).mean())
            for point in data.points}


@pytest.fixture(scope="module")
def seeds() -> list[tuple[Observations, Plan]]:
    plans = []
    for seed in range(4):
        data = difficulty(1200, seed)
        plans.append((data, make_plan(data, PlanRecipe(max_drop=1.0, seed=seed))))
    return plans


def test_where_confidence_tells_much_time_is_saved_on_fresh_samples(seeds: list[tuple[Observations, Plan]]) -> None:
    saved = []
    for seed, (_, plan) in enumerate(seeds):
        fresh = difficulty(1500, 1000 + seed)
        found = replay(plan, plan.routes[plan.default], fresh)
        fixed = fixed_accuracy(fresh)
        hull = hull_of(list(fixed), list(fixed.values()))
        saved.append(1 - found.mean_ms / float(hull.ms_for(min(found.accuracy, float(hull.accuracy[-1])))))
        assert len(plan.routes[plan.default].steps) > 1
    assert np.mean(saved) > 0.2


def test_what_is_promised_is_realised_on_fresh_samples(seeds: list[tuple[Observations, Plan]]) -> None:
    accuracies, times, shares = [], [], []
    for seed, (_, plan) in enumerate(seeds):
        fresh = difficulty(1500, 2000 + seed)
        for route in (plan.routes[plan.default], plan.routes[len(plan.routes) // 2]):
            found = replay(plan, route, fresh)
            accuracies.append(found.accuracy - route.promise.accuracy)
            times.append(found.mean_ms / route.promise.mean_ms - 1)
            shares.append(np.abs(found.stops - route.promise.stops).max())
    # the standard error of each difference is about 1.5 points, of the mean of the four seeds about 0.8
    assert -0.02 < np.mean(accuracies) < 0.03
    assert abs(np.mean(times)) < 0.05
    assert np.mean(shares) < 0.05


def test_a_plan_is_never_worse_than_the_best_fixed_point_on_its_data() -> None:
    for seed in range(2):
        data = difficulty(400, seed)
        fixed = fixed_accuracy(data)
        for budget in (1.1, 2.2, 3.1, 5.0, 6.2):
            plan = make_plan(data, PlanRecipe(budget_ms=budget, max_steps=2, measures=("margin",)))
            promise = plan.routes[plan.default].promise
            assert promise.mean_ms <= budget
            assert promise.accuracy >= max(accuracy for ms, accuracy in fixed.items() if ms <= budget) - 1e-12
        plan = make_plan(data, PlanRecipe(max_drop=0.0, max_steps=2))
        promise = plan.routes[plan.default].promise
        assert promise.accuracy >= max(fixed.values()) - 1e-12
        assert promise.mean_ms <= max(fixed) + 2 * data.overhead_ms


def test_where_confidence_says_nothing_the_plan_is_the_fixed_point_and_says_so() -> None:
    for seed in range(3):
        data = blind(1500, seed)
        for recipe in (PlanRecipe(budget_ms=8.06), PlanRecipe(max_drop=0.0), PlanRecipe(budget_ms=2.06)):
            plan = make_plan(data, recipe)
            default = plan.routes[plan.default]
            assert len(default.steps) == 1
            assert "A fixed point is the default" in plan.notes[0]
            assert f"{100 * default.promise.accuracy:.2f} %" in plan.notes[0]


def test_a_saving_that_is_none_is_reported_as_none() -> None:
    plan = make_plan(blind(2000, 5), PlanRecipe(budget_ms=5.0))
    assert len(plan.routes[plan.default].steps) == 2  # between two fixed points: stops at random, the only choice
    assert "Inputs sent to fixed points at random would do as well" in plan.notes[-1]


def test_routes_grow_in_accuracy_mean_and_percentile(seeds: list[tuple[Observations, Plan]]) -> None:
    for data, plan in seeds:
        promises = [route.promise for route in plan.routes]
        assert 4 <= len(promises) <= 12
        for low, high in itertools.pairwise(promises):
            assert low.accuracy < high.accuracy
            assert low.mean_ms < high.mean_ms
            assert low.p95_ms <= high.p95_ms
        assert promises[0].mean_ms == pytest.approx(1.05)
        for promise, route in zip(promises, plan.routes, strict=True):
            assert sum(promise.stops) == pytest.approx(1)
            assert promise.interval[0] < promise.accuracy < promise.interval[1]
            assert promise.samples == data.samples
            assert route.steps[-1].threshold is None
            assert all(step.threshold is not None for step in route.steps[:-1])
            assert [len(step.weights) for step in route.steps] == list(range(1, len(route.steps) + 1))
            assert all((step.gate is not None) == (step.confidence == "gate") for step in route.steps)


def table(rows: list[tuple[float, float, float, bool]]) -> Table:
    """Rows of (accuracy, mean ms, p95 ms, fixed) over one block of 1,000 samples."""
    accuracy, ms, p95, fixed = (np.array(column) for column in zip(*rows, strict=True))
    return Table(1000 * accuracy[:, None], 1000 * ms[:, None], p95, fixed, np.array([1000.0]),
                 tuple((index, 0) for index in range(len(rows))))


def test_of_two_routes_that_are_alike_the_cheaper_is_taken_and_none_that_it_beats() -> None:
    # the second and the fourth are so close that only one of them is wanted; the third is worse and slower
    rows = [(0.5, 1.0, 1.0, True), (0.70, 2.0, 2.0, True), (0.69, 2.1, 2.1, False), (0.701, 3.0, 3.0, True),
            (0.9, 5.0, 5.0, True)]
    assert choose_routes(table(rows), 4, 0.0, 12) == [0, 1, 4]
    assert choose_routes(table(rows), 0, 0.0, 12) == [0, 1, 4]
    assert choose_routes(table(rows), 1, 0.0, 12) == [0, 1, 4]


def test_routes_whose_percentile_would_fall_are_left_out_and_the_cheapest_stays() -> None:
    rows = [(0.5, 1.0, 1.0, True), (0.8, 2.0, 9.0, False), (0.7, 2.5, 4.0, False), (0.85, 5.0, 5.0, True),
            (0.9, 6.0, 8.0, False), (0.92, 7.0, 7.0, True)]
    assert choose_routes(table(rows), 3, 0.0, 12) == [0, 2, 3, 5]  # the fifth would make the percentile fall after it
    assert choose_routes(table(rows), 0, 0.0, 1) == [0]
    assert choose_routes(table(rows), 3, 0.0, 2) == [0, 3]


def test_slack_is_what_the_best_of_many_equal_rows_loses_on_the_other_half() -> None:
    """200 adaptive rows of the same true accuracy: choosing the best is chance alone, and the slack must say so."""
    random = np.random.default_rng(0)
    blocks, each = 40, 50
    right = random.binomial(each, 0.8, size=(201, blocks)).astype(float)
    found = Table(right, np.full((201, blocks), float(each)), np.ones(201), np.arange(201) == 0,
                  np.full(blocks, float(each)), tuple((index, 0) for index in range(201)))
    slack = measure_slack(found, PlanRecipe(budget_ms=2.0))
    best = float(right[1:].sum(axis=1).max()) / (blocks * each)
    assert slack == pytest.approx(best - 0.8, rel=0.5)
    assert slack > 0.01


def test_the_controller_takes_the_routes(seeds: list[tuple[Observations, Plan]]) -> None:
    _, plan = seeds[0]
    state = first_state(plan)
    for route in plan.routes:
        assert route_p95_ms(state, plan, route) == pytest.approx(route.promise.p95_ms)
    for budget in (1.1, 3.0, 9.0):
        found = choose(first_state(plan)._replace(route=len(plan.routes) - 1), plan, Limits(budget_ms=budget))
        assert found.fits
        assert plan.routes[found.route].promise.p95_ms <= budget


def test_a_plan_survives_json_and_is_the_same_for_the_same_data_and_seed() -> None:
    data = difficulty(400, 1)
    recipe = PlanRecipe(max_drop=0.5, max_steps=2)
    plan = make_plan(data, recipe)
    text = msgspec.json.encode(plan)
    assert msgspec.json.decode(text, type=Plan) == plan
    assert msgspec.json.encode(make_plan(data, recipe)) == text


def test_a_budget_below_the_cheapest_point_names_it() -> None:
    with pytest.raises(BudgetImpossible, match=r"cheapest takes 1\.05 ms, with an accuracy of"):
        make_plan(difficulty(200, 0), PlanRecipe(budget_ms=1.0, max_steps=2, measures=("margin",)))


def test_a_budget_on_the_percentile_holds_it() -> None:
    data = difficulty(800, 2)
    for budget in (3.5, 6.5, 8.5):
        plan = make_plan(data, PlanRecipe(budget_ms=budget, budget_on="p95", max_steps=2))
        assert plan.routes[plan.default].promise.p95_ms <= budget
        assert plan.objective == f"p95 <= {budget:g} ms"


def test_without_labels_agreement_with_the_dearest_point_stands_in() -> None:
    data = difficulty(1000, 3)
    bare = Observations(data.logits, None, data.stage_ms, 0.05, "simulated", "litert", "measured", HASH)
    plan = make_plan(bare, PlanRecipe(max_drop=2.0, max_steps=2))
    assert "no labels" in plan.notes[0]
    default = plan.routes[plan.default]
    assert len(default.steps) == 2
    assert default.promise.accuracy >= 0.98
    dearest = data.logits[1][1].argmax(axis=1)
    agreeing = Observations(data.logits, dearest, data.stage_ms, 0.05, "simulated", "litert", "measured", HASH)
    found = replay(plan, default, agreeing)
    assert found.accuracy == pytest.approx(default.promise.accuracy, abs=0.015)
    assert found.mean_ms < 0.9 * data.cost_ms(data.points[-1:])[0]


def test_several_wishes_are_planned_from_the_same_trials() -> None:
    data = difficulty(600, 5)
    recipes = [PlanRecipe(max_drop=drop, max_steps=2, measures=("margin",)) for drop in (0.0, 1.0)]
    both = plans_with_points(data, recipes)
    assert [each.plan for each in both] == [make_plan(data, recipe) for recipe in recipes]
    with pytest.raises(BadRecipe, match="differ"):
        plans_with_points(data, [recipes[0], PlanRecipe(max_drop=0.0, max_steps=3, measures=("margin",))])


def test_replaying_needs_labels() -> None:
    data = difficulty(400, 6)
    plan = make_plan(data, PlanRecipe(max_steps=2, measures=("margin",)))
    with pytest.raises(BadInput, match="labels"):
        replay(plan, plan.routes[0], dataclasses.replace(data, labels=None))


def test_only_the_measures_and_steps_that_are_allowed_are_used() -> None:
    data = difficulty(500, 4)
    gated = make_plan(data, PlanRecipe(measures=("gate",), max_steps=2, max_drop=1.0))
    used = {step.confidence for route in gated.routes for step in route.steps[:-1] if step.threshold != 2.0}
    assert used == {"gate"}
    single = make_plan(data, PlanRecipe(max_steps=1))
    assert all(len(route.steps) == 1 for route in single.routes)


def test_slack_that_is_given_is_taken_off_and_more_of_it_promises_less() -> None:
    data = difficulty(800, 6)
    tight = plan_with_points(data, PlanRecipe(max_drop=1.0, max_steps=2, slack=0.0))
    loose = plan_with_points(data, PlanRecipe(max_drop=1.0, max_steps=2, slack=3.0))
    assert (tight.slack, loose.slack) == (0.0, 3.0)
    first, second = (each.plan.routes[each.plan.default].promise for each in (tight, loose))
    assert second.mean_ms > first.mean_ms  # the same promise needs dearer thresholds


def test_the_free_ensemble_of_two_exits_counts_among_the_fixed_points() -> None:
    found = plan_with_points(difficulty(800, 7), PlanRecipe(max_steps=2))
    chains = {each.chain: each for each in found.fixed}
    pair = chains[(Point(1, 0), Point(1, 1))]
    assert pair.accuracy > chains[(Point(1, 1),)].accuracy
    assert pair.mean_ms == pytest.approx(6.1)
    assert pair.interval[0] < pair.accuracy < pair.interval[1]
    assert any(each.on_hull for each in found.fixed)
