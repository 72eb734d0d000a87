"""Fits: what was put into synthetic boards comes out again, and the band holds what it promises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekit.errors import BadInput, UnknownName
from edgekit.graph.costs import OpCost
from edgekit.profile.catalogue import fit_catalogue, predict_known
from edgekit.profile.domain import NOVELTY_POWER, half_widths, novelty, spreads, term_shares
from edgekit.profile.holdout import Study, bands, leave_families_out
from edgekit.profile.population import Cells, fit_board, fit_population, log_latency
from edgekit.profile.tables import BoardRun, read_graphs, read_runs
from edgekit.profile.terms import SHAPE_PRIOR, TERM_GUESS_MS, TERMS, OpTable, term_amounts

RANDOM = np.random.default_rng(3)


def random_graph(random: np.random.Generator, kind: int) -> tuple[OpCost, ...]:
    ops = []
    for index in range(12):
        cin, cout, side = (int(n) for n in random.integers((16, 16, 7), (256, 256, 56)))
        dense = random.random() < (0.2, 0.5, 0.8)[kind % 3]
        kernel = 3 if dense else 1
        ops.append(
            OpCost(
                name=str(index),
                kind="Conv",
                op_class="conv",
                macs=side * side * cin * cout * kernel**2,
                cin=cin,
                cout=cout,
                out_h=side,
                out_w=side,
                kernel_h=kernel,
                kernel_w=kernel,
                in_elements=cin * side * side,
                out_elements=cout * side * side,
                weight_elements=cin * cout * kernel**2,
            )
        )
        ops.append(
            OpCost(
                name=f"{index}d",
                kind="Conv",
                op_class="depthwise",
                macs=9 * cin * side * side,
                cin=cin,
                cout=cin,
                out_h=side,
                out_w=side,
                kernel_h=3,
                kernel_w=3,
                groups=cin,
                in_elements=cin * side * side,
                out_elements=cin * side * side,
                weight_elements=9 * cin,
            )
        )
    return tuple(ops)


GRAPHS = [random_graph(RANDOM, kind) for kind in range(16)]
TABLE = OpTable(GRAPHS)
AMOUNTS = TABLE.per_graph(term_amounts(TABLE))
BOARDS = 8
TRUE_COST = (
    np.log(TERM_GUESS_MS)
    + RANDOM.normal(0, 0.15, len(TERMS))
    + RANDOM.normal(0, 0.2, (BOARDS, len(TERMS)))
    + RANDOM.normal(0, 1, (BOARDS, 1))
)
LOG_MS = np.log(np.exp(TRUE_COST) @ AMOUNTS.T) + RANDOM.normal(0, 0.02, (BOARDS, len(GRAPHS)))


def cells(models: slice = slice(None)) -> Cells:
    board, model = (each.ravel() for each in np.indices(LOG_MS[:, models].shape))
    return Cells(board, model, LOG_MS[:, models].ravel())


def test_networks_that_were_left_out_are_predicted() -> None:
    population, boards = fit_population(GRAPHS[:12], cells(slice(0, 12)))
    amounts = TABLE.per_graph(term_amounts(TABLE, population.shape))
    off = np.concatenate([log_latency(board, amounts[12:]) - LOG_MS[i, 12:] for i, board in enumerate(boards)])
    assert np.median(np.abs(off)) < 0.03
    alone = np.concatenate([np.log(AMOUNTS[12:] @ TERM_GUESS_MS) - row[12:] for row in LOG_MS])
    assert np.median(np.abs(alone - np.median(alone))) > 0.2  # without boards of their own the guess is far off


def test_one_bad_measurement_does_not_bend_a_fit() -> None:
    given = cells()
    spoiled = given.log_ms.copy()
    spoiled[5] += 2.0  # board 0, graph 5
    _, boards = fit_population(GRAPHS, Cells(given.board, given.model, spoiled))
    population, _ = fit_population(GRAPHS, given)
    off = log_latency(boards[0], TABLE.per_graph(term_amounts(TABLE, population.shape))) - LOG_MS[0]
    assert abs(np.median(off)) < 0.03
    assert abs(off[5]) < 0.15


def test_a_new_board_gets_better_with_each_measurement() -> None:
    keep = cells().board != 0
    given = cells()
    population, _ = fit_population(GRAPHS, Cells(given.board[keep] - 1, given.model[keep], given.log_ms[keep]))
    amounts = TABLE.per_graph(term_amounts(TABLE, population.shape))
    errors = []
    for count in (1, 8):
        board = fit_board(population, amounts[:count], LOG_MS[0, :count])
        errors.append(float(np.median(np.abs(log_latency(board, amounts[8:]) - LOG_MS[0, 8:]))))
    assert errors[1] < 0.04
    assert errors[0] < 0.3


def test_bands_on_held_out_families_hold_what_they_promise() -> None:
    names = tuple(f"n{index}" for index in range(len(GRAPHS)))
    runs = [
        BoardRun(f"b{i}", str(i), 1, "0", "cpu", "", "", "", dict(zip(names, np.exp(row), strict=True)))
        for i, row in enumerate(LOG_MS)
    ]
    study = Study.of(dict(zip(names, GRAPHS, strict=True)), {name: f"f{i // 2}" for i, name in enumerate(names)}, runs)
    held_out = leave_families_out(study)
    found = bands(held_out)
    assert np.median(held_out.ape) < 0.04
    assert 0.8 <= found.covered.mean() <= 0.98
    assert found.inside.mean() > 0.8


def test_novelty_is_zero_for_a_known_mixture_and_one_for_a_disjoint_one() -> None:
    reference = np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    np.testing.assert_allclose(novelty(np.array([[0.5, 0.5, 0], [0, 0, 1.0], [0.8, 0.2, 0]]), reference), [0, 1, 0.2])
    shares = term_shares(np.log(TERM_GUESS_MS), AMOUNTS)
    np.testing.assert_allclose(shares.sum(axis=1), 1)


def test_spreads_cover_and_tell_noisy_boards_from_quiet_ones() -> None:
    random = np.random.default_rng(0)
    board, family = np.repeat([0, 1], 400), np.tile(np.repeat(np.arange(10), 40), 2)
    new = random.uniform(0, 0.4, 800)
    ratio = random.normal(0, 1, 800) * np.where(board == 0, 0.1, 0.5) * (0.1 + new) ** NOVELTY_POWER
    spread = spreads(ratio, new, board, family)
    assert 3 < spread[1] / spread[0] < 6
    assert 0.9 < np.mean(np.abs(ratio) <= half_widths(spread[board], new, NOVELTY_POWER)) < 0.97


def test_known_networks_on_a_new_board_follow_from_a_few() -> None:
    models = tuple(f"n{index}" for index in range(len(GRAPHS)))
    boards = [dict(zip(models, np.exp(row), strict=True)) for row in LOG_MS]
    del boards[2]["n7"]
    catalogue = fit_catalogue(models, boards[1:])
    found = predict_known(catalogue, {model: boards[0][model] for model in models[:5]}, models[5:])
    off = [mean - np.log(boards[0][model]) for model, (mean, _) in found.items()]
    one = predict_known(catalogue, {"n0": boards[0]["n0"]}, models[5:])
    assert np.median(np.abs(off)) < 0.1
    assert np.mean([sd for _, sd in found.values()]) < np.mean([sd for _, sd in one.values()])
    with pytest.raises(UnknownName, match="nothing"):
        predict_known(catalogue, {"nothing": 1.0}, models)


def test_tables_are_read_and_wrong_ones_refused(shared: Path, tmp_path: Path) -> None:
    graphs = read_graphs(shared / "latency" / "ncnn_model_ops.csv")
    assert sum(op.macs for op in graphs["vgg16"]) == pytest.approx(15.47e9, rel=0.005)
    assert not [op.kind for ops in graphs.values() for op in ops if op.op_class == "unknown"]
    runs = read_runs(shared / "latency" / "ncnn_benchmark.csv.gz")
    assert len(runs) > 200
    wrong = tmp_path / "w.csv"
    wrong.write_text("model,op\nm,o\n")
    with pytest.raises(BadInput, match="row 2"):
        read_graphs(wrong)
    with pytest.raises(BadInput, match="cannot be read"):
        read_runs(tmp_path / "absent.csv.gz")


def test_the_shape_prior_is_positive() -> None:
    assert (np.exp(SHAPE_PRIOR) > 0).all()
