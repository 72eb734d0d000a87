"""What to measure on a new board, what simple predictors make of it, and the tables of the benchmark."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.predict import new_boards, summary
from edgekit.graph.costs import OpCost
from edgekit.profile.baseline import least_squares, simple_sums
from edgekit.profile.catalogue import Catalogue, fit_catalogue, predict_known
from edgekit.profile.holdout import Study
from edgekit.profile.newboard import choose_probes
from edgekit.profile.population import ONE_CORE
from edgekit.profile.tables import BoardRun
from edgekit.profile.terms import TERM_GUESS_MS, OpTable, term_amounts

RANDOM = np.random.default_rng(5)


def graph(wide: int, deep: int) -> tuple[OpCost, ...]:
    return tuple(
        OpCost(name=str(i), kind="Conv", op_class="conv", macs=400 * wide * wide * kernel**2, cin=wide, cout=wide,
               out_h=20, out_w=20, kernel_h=kernel, kernel_w=kernel, in_elements=400 * wide, out_elements=400 * wide,
               weight_elements=wide * wide * kernel**2)
        for i in range(deep) for kernel in (1, 3)[: 1 + i % 2])


NAMES = tuple(f"n{index}" for index in range(10))
GRAPHS = {name: graph(24 + 24 * (index % 5), 4 + index) for index, name in enumerate(NAMES)}
FAMILY = {name: f"f{index // 2}" for index, name in enumerate(NAMES)}


def runs(count: int) -> list[BoardRun]:
    table = OpTable(list(GRAPHS.values()))
    amounts = table.per_graph(term_amounts(table))
    found = []
    for index in range(count):
        cost = TERM_GUESS_MS * np.exp(RANDOM.normal(0, 0.2, amounts.shape[1]) + RANDOM.normal())
        latency = (amounts @ cost) * np.exp(RANDOM.normal(0, 0.01, len(NAMES)))
        times = dict(zip(NAMES, latency, strict=True))
        found.append(BoardRun(f"b{index}", str(index), 1, "0", "cpu", "", "", "", times))
    return found


RUNS = runs(12)
STUDY = Study.of(GRAPHS, FAMILY, RUNS[:10])


def test_more_measured_networks_bring_a_new_board_closer() -> None:
    found = new_boards(STUDY, RUNS[10:], ONE_CORE)
    for kind in ("catalogue", "strict"):
        errors = [found[kind][f"k={count}"]["board_median"] for count in (1, 3, 5)]
        assert errors[2] < 0.08
        assert errors[0] < 0.35
    assert found["boards"] == ["b10", "b11"]


def test_the_network_that_tells_most_is_measured_first() -> None:
    # b moves with a and c; d moves alone, so measuring d says nothing about the others.
    cov = np.array([[1.0, 0.9, 0.8, 0.0], [0.9, 1.0, 0.9, 0.0], [0.8, 0.9, 1.0, 0.0], [0.0, 0.0, 0.0, 0.3]])
    catalogue = Catalogue(("a", "b", "c", "d"), np.zeros(4), cov * 0.01)
    assert choose_probes(catalogue, ("a", "b", "c", "d"), 1) == ("b",)
    assert set(choose_probes(catalogue, ("a", "b"), 5)) == {"a", "b"}


def test_least_squares_finds_the_costs_of_boards_that_follow_it() -> None:
    sums = simple_sums(STUDY, 3)
    assert sums.shape == (10, 3)
    costs = np.array([3e-8, 2e-6, 0.01])
    latency = dict(zip(NAMES, sums @ costs, strict=True))
    study = Study.of(GRAPHS, FAMILY, [BoardRun("b", "0", 1, "0", "cpu", "", "", "", latency)])
    predicted = least_squares(study, 3)
    np.testing.assert_allclose(predicted, study.cells().log_ms, atol=0.02)
    assert least_squares(study, 10).shape == predicted.shape


def test_a_summary_counts_boards_alike_and_cells_within_the_limits() -> None:
    found = summary(np.array([0.05, 0.05, 0.05, 0.15, 0.3]), np.array([0, 0, 0, 1, 1]))
    assert found["board_median"] == pytest.approx(0.1375)
    assert (found["within_10"], found["within_20"], found["cells"]) == (0.6, 0.8, 5)


def test_a_catalogue_keeps_differences_between_networks_and_drops_the_scale() -> None:
    catalogue = fit_catalogue(NAMES, [run.latency_ms for run in RUNS])
    faster = [{name: ms / 7 for name, ms in run.latency_ms.items()} for run in RUNS]
    again = fit_catalogue(NAMES, faster)
    np.testing.assert_allclose(catalogue.mean - catalogue.mean[0], again.mean - again.mean[0], atol=1e-6)
    np.testing.assert_allclose(catalogue.cov, again.cov, atol=1e-6)


def test_a_fact_that_boards_differ_by_tells_a_catalogue_which_kind_a_new_one_is() -> None:
    random = np.random.default_rng(1)
    kinds = [index % 2 - 0.5 for index in range(20)]
    # The second kind is 30 % slower on every other network.
    boards = [{f"m{i}": 5.0 * (1.3 if kind > 0 and i % 2 else 1.0) * np.exp(random.normal(0, 0.01)) for i in range(6)}
              for kind in kinds]
    models = [f"m{i}" for i in range(6)]
    catalogue = fit_catalogue(models, boards, [[kind] for kind in kinds])
    for kind, ratio in ((-0.5, 1.0), (0.5, 1.3)):
        found = predict_known(catalogue.given([kind]), {"m0": 2.0}, ["m1", "m2"])
        assert np.exp(found["m1"][0]) == pytest.approx(2.0 * ratio, rel=0.05)
        assert np.exp(found["m2"][0]) == pytest.approx(2.0, rel=0.05)
