"""The parts of the planner: fits, thresholds, the hull, what observations are refused."""

from __future__ import annotations

import ast
import itertools
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edgekit.plan
from edgekit.errors import BadInput, BadRecipe
from edgekit.plan.ensemble import fit_gate, fit_weights, gate_scores
from edgekit.plan.hull import hull_of
from edgekit.plan.observations import Observations, PlanRecipe, Point, chain_costs
from edgekit.plan.thresholds import NEVER, Setting, apply, fit_thresholds, settings_for
from edgekit.plan.workbench import Workbench
from edgekit.runtime.decide import combine, gate_features
from tests.plan_simulation import HASH, difficulty

Floats = npt.NDArray[np.float64]


def drawn(logits: npt.NDArray[np.float64], seed: int = 0) -> npt.NDArray[np.float64]:
    """Labels drawn from the softmax of ``logits``, one-hot."""
    noisy = logits + np.random.default_rng(seed).gumbel(size=logits.shape)
    return np.asarray(np.eye(logits.shape[1])[noisy.argmax(axis=1)])


def test_a_single_weight_is_the_inverse_of_the_temperature() -> None:
    logits = np.random.default_rng(1).normal(0, 2, (20_000, 8))
    assert fit_weights((logits * 4)[:, None], drawn(logits))[0] == pytest.approx(0.25, rel=0.03)
    assert fit_weights((logits / 4)[:, None], drawn(logits))[0] == pytest.approx(4.0, rel=0.03)


def test_weights_of_two_exits_are_those_that_made_the_labels() -> None:
    random = np.random.default_rng(2)
    two = random.normal(0, 1.5, (20_000, 2, 8))
    found = fit_weights(two, drawn(np.einsum("njc,j->nc", two, [0.3, 1.2])))
    np.testing.assert_allclose(found, [0.3, 1.2], atol=0.04)


def test_an_exit_that_only_harms_gets_no_weight_rather_than_a_negative_one() -> None:
    two = np.random.default_rng(3).normal(0, 1.5, (5_000, 2, 8))
    found = fit_weights(two, drawn(two[:, 1] - 0.5 * two[:, 0]))
    assert found[0] == 0
    assert found[1] > 0.5


def test_soft_targets_give_back_the_exit_that_made_them() -> None:
    two = np.random.default_rng(4).normal(0, 2, (2_000, 2, 6)).astype(np.float32)
    powers = np.exp(two[:, 1])
    np.testing.assert_allclose(fit_weights(two, powers / powers.sum(axis=1, keepdims=True)), [0, 1], atol=0.02)


def test_the_gate_finds_the_chances_that_made_the_data_and_ignores_a_constant_feature() -> None:
    random = np.random.default_rng(5)
    features = random.random((40_000, 5))
    features[:, 4] = 0.5
    score = 3 * features[:, 0] - 2 * features[:, 3] - 0.4
    chances = 1 / (1 + np.exp(-score))
    gate = fit_gate(features, random.random(len(score)) < chances)
    assert gate[4] == 0
    assert np.abs(gate_scores(features, gate) - chances).max() < 0.06


@given(st.integers(2, 4), st.floats(0.1, 8), st.integers(20, 300), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_budgeted_batch_stops_the_exact_floor_of_each_share(steps: int, ratio: float, samples: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    sure = random.permuted(np.linspace(0, 1, samples * (steps - 1))).reshape(samples, steps - 1)
    right = random.random((samples, steps)) < 0.5
    setting = Setting("share", ratio if steps > 2 else min(ratio / 8, 1.0))
    found = fit_thresholds(sure, right, np.arange(1.0, steps + 1), (setting,))
    where = apply(sure, found)[0]
    wanted = np.array([setting.value]) if steps == 2 else ratio ** np.arange(1, steps + 1)
    wanted = wanted if steps == 2 else wanted[:-1] / wanted.sum()
    for step, share in enumerate(wanted):
        left = int((where >= step).sum())
        assert (where == step).sum() == min(int(samples * share), left)


def test_search_by_price_is_as_good_as_trying_every_pair_of_thresholds() -> None:
    random = np.random.default_rng(7)
    for _ in range(5):
        sure = random.random((60, 2))
        right = np.stack([random.random(60) < 0.3 + 0.6 * sure[:, 0], random.random(60) < 0.4 + 0.5 * sure[:, 1],
                          random.random(60) < 0.9], axis=1)
        costs = np.array([1.0, 2.0, 4.0])
        worth = right - 0.1 * costs

        def value(thresholds: Floats, sure: Floats = sure, worth: Floats = worth) -> float:
            where = apply(sure, thresholds[None])[0]
            return float(worth[np.arange(60), where].mean())

        found = value(fit_thresholds(sure, right, costs, (Setting("price", 0.1),))[0])
        best = max(value(np.array(pair)) for pair in itertools.product([*sure[::2, 0], NEVER], [*sure[::2, 1], NEVER]))
        fixed = worth.mean(axis=0).max()
        assert found > fixed
        assert found - fixed >= 0.8 * (best - fixed)  # few cuts by design: not the very best of 60 images


def test_settings_of_one_step_ask_for_no_threshold_and_never_is_above_all() -> None:
    found = fit_thresholds(np.empty((5, 0)), np.ones((5, 1), bool), np.array([1.0]), settings_for(1, 0.1))
    assert found.shape == (1, 0)
    assert (apply(np.ones((5, 2)), np.array([[NEVER, NEVER]])) == 2).all()


@given(st.lists(st.tuples(st.floats(0.1, 100), st.floats(0, 1)), min_size=1, max_size=30))
def test_no_point_is_above_the_hull_and_the_hull_bends_down(points: list[tuple[float, float]]) -> None:
    ms, accuracy = np.array(points).T
    hull = hull_of(ms, accuracy)
    assert (accuracy <= hull.accuracy_at(ms) + 1e-9).all()
    assert (np.diff(hull.ms) > 0).all()
    assert (np.diff(hull.accuracy) > 0).all()
    slopes = np.diff(hull.accuracy) / np.diff(hull.ms)
    assert (np.diff(slopes) <= 1e-9 * np.abs(slopes[:-1])).all()
    assert set(hull.ms) <= set(ms)


def test_the_hull_answers_both_ways_and_beyond_its_ends() -> None:
    hull = hull_of([1, 2, 3, 2.5], [0.5, 0.7, 0.8, 0.6])
    assert hull.members == (0, 1, 2)
    assert hull.accuracy_at(1.5) == pytest.approx(0.6)
    assert hull.ms_for(0.75) == pytest.approx(2.5)
    assert hull.accuracy_at(0.5) == -np.inf
    assert hull.accuracy_at(9) == pytest.approx(0.8)
    assert hull.ms_for(0.9) == np.inf


def test_a_step_goes_on_from_where_its_ladder_has_stopped() -> None:
    times = ((1.0, 2.0), (4.0, 8.0))
    chain = (Point(0, 0), Point(1, 0), Point(1, 1), Point(0, 1))
    assert chain_costs(chain, times, 0.5) == pytest.approx((1.5, 6.0, 14.5, 17.0))


def test_features_are_those_that_the_runtime_computes() -> None:
    data = difficulty(120, 3)
    bench = Workbench(data, PlanRecipe())
    chain = (Point(0, 1), Point(1, 1))
    first, second = bench.fitted(chain)
    for sample in range(data.samples):
        logits = [data.of(point)[sample] for point in chain]
        before = combine(logits[:1], first.weights)
        np.testing.assert_allclose(first.features[sample], gate_features(before, None), atol=2e-6)
        now = combine(logits, second.weights)
        np.testing.assert_allclose(second.features[sample], gate_features(now, before), atol=2e-6)


def test_weights_are_applied_to_samples_that_they_were_not_fitted_on() -> None:
    """With the labels of one fold changed, its own features stay as they were; those of the other folds move."""
    data = difficulty(200, 4)
    assert data.labels is not None
    chain = (Point(0, 0), Point(1, 1))
    bench = Workbench(data, PlanRecipe())
    before = bench.view(chain).features
    fold = np.flatnonzero(bench.folds == 2)
    labels = data.labels.copy()
    labels[fold] = (labels[fold] + 1) % 10
    changed = Observations(data.logits, labels, data.stage_ms, 0.05, "simulated", "litert", "measured", HASH)
    after = Workbench(changed, PlanRecipe()).view(chain).features
    np.testing.assert_array_equal(before[fold], after[fold])
    assert np.abs(before - after).max() > 1e-3


def test_planning_touches_no_file_and_no_clock() -> None:
    folder = Path(edgekit.plan.__file__).parent
    modules = {name for file in folder.glob("*.py") for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
               for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import)
                            else [node.module or ""] if isinstance(node, ast.ImportFrom) else [])}
    assert "edgekit.plan.observations" in modules
    assert not {name.partition(".")[0] for name in modules} & {
        "datetime", "io", "os", "pathlib", "random", "shutil", "socket", "subprocess", "sys", "tempfile", "time"}
    assert not any("open(" in file.read_text(encoding="utf-8") for file in folder.glob("*.py"))


def with_changes(**changes: object) -> Observations:
    data = difficulty(100, 0)
    fields = {name: getattr(data, name) for name in data.__dataclass_fields__}
    return Observations(**{**fields, **changes})


@pytest.mark.parametrize(("changes", "words"), [
    ({"logits": ()}, "no logits"),
    ({"stage_ms": ((1.0,), (1.0, 1.0))}, "times"),
    ({"stage_ms": ((1.0, 0.0), (1.0, 1.0))}, "positive"),
    ({"overhead_ms": float("nan")}, "positive"),
    ({"labels": np.zeros(99, np.int64)}, "99 labels"),
    ({"labels": np.full(100, 10)}, "classes 0 to 9"),
    ({"logits": ((np.zeros((100, 3), np.float32),), (np.zeros((100, 4), np.float32),)), "stage_ms": ((1.0,), (1.0,))},
     "shapes"),
    ({"logits": ((np.full((100, 3), np.inf, np.float32),),), "stage_ms": ((1.0,),)}, "finite"),
    ({"logits": ((np.zeros((20, 3), np.float32),),), "stage_ms": ((1.0,),), "labels": None}, "too few"),
])
def test_observations_that_do_not_fit_together_are_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        with_changes(**changes)


@pytest.mark.parametrize("fields", [
    {"budget_ms": 1.0, "max_drop": 1.0}, {"budget_ms": 0.0}, {"max_drop": -1.0}, {"slack": float("nan")},
    {"max_steps": 0}, {"max_steps": 5}, {"folds": 1}, {"measures": ()}, {"max_routes": 13},
])
def test_recipes_that_make_no_sense_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(BadRecipe):
        PlanRecipe(**fields)  # type: ignore[arg-type]
